"""DLPE's stages: previews of a series, three views in both precisions, slabs under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dlpe_networks
import exports
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.client.models import read_model
from hilum.postprocessing.dlpe import ranks
from hilum.postprocessing.dlpe.three_way import positive
from hilum.preprocessing.dlpe.slabs import Slab, cut, slices_first
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.reading.volume import Volume
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe.ledger import Ledger
from hilum.systems.dlpe.options import Options
from hilum.systems.dlpe.system import Dlpe
from hilum.systems.dlpe.views import How, Stage, Variant, three_views


@pytest.fixture(scope="module")
def client(dlpe_server: TritonServer) -> Iterator[Client]:
    with Client(dlpe_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def phantom() -> Volume:
    return chest_ct(3, slices=60, size=96).volume


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_a_series_becomes_a_preview(client: Client, phantom: Volume, mode: str) -> None:
    found = client.run("dlpe", phantom, grid=64, mode=mode)
    assert found.preview
    assert found.series is not None
    assert found.normalised.voxels.shape == (64, 64, 64)
    assert found.source == found.series.description
    lung, vessel = found.masks["lung"], found.masks["vessel"]
    rank = int(lung.sum() * catalog.VESSEL.ratio)
    box = ranks.lung_box(lung, (1, 62))
    assert vessel[box].sum() == pytest.approx(rank, abs=3)
    ready = client.run("dlpe", found.normalised, mode=mode, cohort="none", visible=False)
    assert not ready.preview
    np.testing.assert_array_equal(ready.masks["lung"], lung)
    assert ready.masks["vessel"][ranks.lung_box(lung)].sum() == pytest.approx(rank, abs=3)
    assert ready.masks["vessel"].sum() != vessel.sum()


def test_as_many_slabs_are_under_way_as_the_server_has_gpus_for() -> None:
    metadata = service_pb2.ModelMetadataResponse(name="dlpe_lung_x")

    def at(in_flight: int = 0, **group: object) -> How:
        config = model_config_pb2.ModelConfig(instance_group=[ModelInstanceGroup(**group)])
        network = read_model(metadata, service_pb2.ModelConfigResponse(config=config))
        return How(0, in_flight, skip=True).at(network)

    gpu = ModelInstanceGroup.KIND_GPU
    assert at(kind=ModelInstanceGroup.KIND_CPU).in_flight == 4
    assert at(kind=gpu, gpus=[0]).in_flight == 4
    assert at(kind=gpu, gpus=range(8)).in_flight == 16
    assert at(kind=gpu, gpus=range(8), in_flight=3).in_flight == 3


def test_models_are_those_of_the_catalog() -> None:
    declared = {m.model for m in catalog.SYSTEM.models()}
    for options in (Options(), Options(roots=True, cohort="earlier"), Options(cohort="follow-up")):
        assert set(Dlpe().models(options)) <= declared
        assert set(Dlpe().networks(options)) <= {n.model for n in catalog.SYSTEM.networks}
    assert len(Dlpe().networks(Options())) == 24
    assert len(Dlpe().networks(Options(cohort="none", visible=False))) == 15
    assert len(Dlpe().networks(Options(roots=True))) == 30


@contextmanager
def three_way_client(golden: Path, precision: str) -> Iterator[Client]:
    made = exports.cached(
        f"dlpe-three-way-{precision}",
        lambda folder: dlpe_networks.export_three_way(folder, golden, precision),
    )
    repository = made / "repository"
    models = [catalog.TASKS["lung"].network(d).model for d in catalog.DIRECTIONS]
    with (
        TritonServer(repository, models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        yield client


def summed(client: Client, volume: np.ndarray) -> np.ndarray:
    stage = Stage(title="lung", variants=(Variant.single("lung"),), volume=volume)
    return three_views(stage, How(7, 3, skip=True), Ledger(), client.calls())["lung"]


def test_golden_three_way(golden: Path) -> None:
    with np.load(golden / "dlpe" / "09_three_way.npz") as stored:
        expected = {k: stored[k] for k in stored if not k.startswith("weights")}
    volume = (expected["volume_q1024"] / 1024).astype(np.float32)
    views = []
    with three_way_client(golden, "fp32") as client:
        for direction in catalog.DIRECTIONS:
            count = volume.shape[catalog.DIRECTIONS.index(direction)]
            slab = cut(volume, Slab(direction, 0, count), 5)
            answer = client.infer(f"dlpe_lung_{direction}", {"slab": slab}, ["probability"])
            view = np.empty_like(volume)
            slices_first(view, direction)[:] = answer.outputs["probability"]
            np.testing.assert_allclose(view, expected[f"prob_{direction.upper()}"], atol=1e-4)
            views.append(view)
        total = summed(client, volume)
    np.testing.assert_array_equal(total, (views[0] + views[1]) + views[2])
    np.testing.assert_array_equal(positive(total, 2), expected["mask_gt2"])
    np.testing.assert_array_equal(positive(total, 1.5), expected["mask_gt1p5"])
    with three_way_client(golden, "fp16") as client:
        assert client.model("dlpe_lung_x").inputs["slab"].dtype == "FP16"
        half = summed(client, volume)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, total, atol=0.05)
    assert (positive(half, 2) == expected["mask_gt2"]).mean() > 0.995


def test_options_are_checked(client: Client, tmp_path: Path) -> None:
    study = tmp_path / "volume.npz"
    np.savez(study, array=np.zeros((64, 64, 64), np.float32))
    for given, words in (
        ({"mode": "upside-down"}, "parity, corrected"),
        ({"cohort": "all"}, "in-patient, follow-up"),
        ({"grid": 100}, "multiple of 16"),
        ({"airway_ratio": -0.1}, "share"),
        ({"slab_slices": 1000}, "slab_slices"),
        ({"slabs_in_flight": -1}, "slabs_in_flight"),
        ({"slice": 64}, "no slice 64"),
        ({"lung_only_trees": True, "refine": True}, "choose one"),
        ({"sampling": "everywhere"}, "upper-frontal"),
        ({"device": "gpu"}, "auto, cpu or cuda:N"),
    ):
        with pytest.raises(InputError, match=words):
            client.run("dlpe", study, **given)
