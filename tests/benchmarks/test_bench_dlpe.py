"""`hilum bench dlpe` through real servers, on a small grid with the golden files' networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from commands import hilum

from hilum.benchmarks import dlpe_published
from hilum.benchmarks.dlpe import Plan
from hilum.benchmarks.instrument.record import Record, read
from hilum.benchmarks.pages.tables import markdown
from hilum.benchmarks.target_rows import measured_in
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError, RepositoryError
from hilum.export.systems.dlpe.network import UNet

GRID = 32


@pytest.fixture(scope="module")
def environment(dlpe_repository: Path) -> dict[str, str]:
    """The store that the repository was exported from; one thread, for the machine may be busy."""
    store = str(dlpe_repository.parent / "store")
    return {**os.environ, "HILUM_STORE": store, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(
    dlpe_repository: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The record, with what was printed."""
    out = tmp_path_factory.mktemp("bench")
    done = hilum(
        "bench", "dlpe", "--grid", GRID, "--rounds", "1", "--weights", "store",
        "--repository", dlpe_repository, "--out", out, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (out / "printed").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return read(folder / "bench.json")


@pytest.mark.load
def test_stages_make_up_a_study(record: Record) -> None:
    rows = {row["stage"]: row for row in record.tables["stages"]}
    assert list(rows)[:2] == ["normalise", "stage_one"]
    assert list(rows)[-2:] == ["write files", "write pictures"]
    assert {"ranks", "masks", "stage_two", "enhancement", "lesions"} < set(rows)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    compared = {name for name, row in rows.items() if "times_faster" in row}
    assert compared == {
        "stage_one", "masks", "ranks", "stage_two", "enhancement", "lesions", "visible_lesions"
    }  # fmt: skip
    for name in compared:
        row = rows[name]
        assert row["times_faster"] == pytest.approx(row["published_seconds"] / row["seconds"])
    memory = {row["what"]: row["bytes"] for row in record.tables["memory"]}
    before, most, sampled, upper = memory.values()
    assert 10**7 < before < most < sampled < upper


@pytest.mark.load
def test_published_procedure_finds_the_same(record: Record) -> None:
    masks = record.tables["masks"]
    assert {m["mask"] for m in masks} == {
        "lung", "airway", "vessel", "follow_up", "in_patient", "visible"
    }  # fmt: skip
    assert sum(m["differing"] for m in masks) <= 2
    assert all(m["voxels"] > 0 for m in masks)
    (beside,) = record.tables["beside"]
    assert beside["level_hu"] == pytest.approx(beside["published_level_hu"], abs=0.1)
    assert beside["width_hu"] == pytest.approx(beside["published_width_hu"], abs=0.1)
    assert beside["published_passes"] == 8 * 3 * GRID >= beside["passes"] > 0


@pytest.mark.load
def test_the_record_has_lanes_that_can_be_compared(record: Record) -> None:
    whole, ours, published = record.lanes
    assert whole.rounds[0].seconds > ours.rounds[0].seconds
    ratio = published.rounds[0].seconds / ours.rounds[0].seconds
    assert record.tables["beside"][0]["times_faster"] == pytest.approx(ratio)
    assert (whole.transport, published.transport) == ("shm", "in process")
    assert ours.deviation is not None
    assert ours.deviation.differing == sum(m["differing"] for m in record.tables["masks"])
    counted = ours.counters["dlpe_lung_x"]
    assert counted.requests > 0
    assert counted.infer_s > 0


@pytest.mark.load
def test_what_is_written_can_be_read(folder: Path, record: Record) -> None:
    text = (folder / "bench.md").read_text()
    assert (folder / "printed").read_text().strip() == text.strip()
    assert text == markdown(record)
    assert record.command in text
    assert "The published procedure: PyTorch eager" in text
    assert (folder / "bench.html").is_file()
    times = {m.quantity: m for m in measured_in([folder / "bench.json"])}
    assert times["time per scan"].limits == "measured on a grid of 32³, documented for 512³"
    assert times["CPU memory, at least"].unit == "GB"


def test_other_weights_are_noticed(
    dlpe_repository: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_STORE", environment["HILUM_STORE"])
    network = catalog.TASKS["lung"].network("x")
    same = dlpe_published.torch_core(catalog.SYSTEM, network, "store")
    dlpe_published.check_same({("lung", "x"): same}, dlpe_repository, "store")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = UNet(5, 2, width=4).eval()
    with pytest.raises(RepositoryError, match=r"dlpe_lung_x .* other weights"):
        dlpe_published.check_same({("lung", "x"): other}, dlpe_repository, "store")


def test_plans_that_cannot_be_carried_out() -> None:
    with pytest.raises(InputError, match="a grid of 40"):
        Plan(grid=40)
    assert Plan(published=False, rounds=1).command == (
        "hilum bench dlpe --grid 128 --rounds 1 --no-published --weights random"
    )
