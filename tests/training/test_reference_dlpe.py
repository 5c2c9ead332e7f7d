"""What DLPE's reference weights find: a small measurement, and lungs beside those of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum.catalog import SYSTEMS
from hilum.client import Client
from hilum.export.reference import reference_networks
from hilum.export.repository import export_system
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.covid_mtl.pipeline import prepare
from hilum.preprocessing.covid_mtl.resample import to_grid
from hilum.preprocessing.dlpe.space import to_source
from hilum.preprocessing.reading.series import open_series
from hilum.server.launcher import TritonServer
from hilum.training import measure_cts
from hilum.training.measure_xrays import overlap
from hilum.training.plan import reference_core

SYSTEM = SYSTEMS["dlpe"]


@pytest.mark.load
def test_an_unseen_generated_chest_on_a_small_grid() -> None:
    cores = {name: reference_core("dlpe", name) for name in reference_networks(SYSTEM)}
    found = measure_cts.measure(0, 128, cores)
    assert found.dice["lung"] >= 0.97
    assert found.dice["airway"] >= 0.35  # thin for voxels of 4 mm
    assert found.dice["vessel"] >= 0.6
    assert abs(found.level_error) <= 10
    assert found.dice["visible"] >= 0.6
    assert min(found.dice[name] for name in ("follow_up", "in_patient")) >= 0.55  # a preview


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    repository = tmp_path_factory.mktemp("reference")
    export_system(SYSTEM, repository=repository, weights="reference")
    with TritonServer(repository, grace=0) as server, Client(server.grpc_url) as opened:
        yield opened


@pytest.mark.load
@pytest.mark.parametrize("name", ["A0001_5mm", "A0002_8mm_B40f"])
def test_lungs_of_a_real_series_are_those_found_without_a_network(
    client: Client, shared: Path, name: str
) -> None:
    folder = shared / "data" / "tcia-lung-pet-ct-dx" / name
    result = client.run("dlpe", folder, grid=256, mode="corrected", quantities=False)
    space, geometry = result.normalised.space, result.normalised.geometry
    other = prepare(open_series(folder), "corrected")
    assert geometry is not None and other.geometry is not None
    without = to_grid(other.lungs.mask, other.geometry, geometry)
    assert overlap(to_host(to_source(result.masks["lung"], space)), without) >= 0.93
