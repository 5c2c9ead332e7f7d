"""`hilum bench cxr-severity` and `ct-classifier` through real servers: small stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import hilum

from hilum.benchmarks import beside, cxr_severity
from hilum.benchmarks.beside import GRPC, PUBLISHED, RUNTIME, SHM, Plan
from hilum.benchmarks.instrument.record import Record, read
from hilum.benchmarks.pages.page import write
from hilum.benchmarks.systems import cxr_severity as images
from hilum.benchmarks.target_rows import measured_in


@pytest.fixture(scope="module")
def xrays(standin_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    out = tmp_path_factory.mktemp("xrays")
    plan = Plan(
        networks=["fpn"], repository=standin_repository, rounds=2, tasks=1, concurrencies=(1, 2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "IMAGES", 2)
        record = cxr_severity.measure(plan, lambda _text: None)
    assert record.command in write(record, out)
    assert read(out / "bench.json") == record
    (found,) = measured_in([out / "bench.json"])
    best = beside.fastest(record.lanes)
    assert (found.network, found.value) == ("fpn", best.summary.per_second.value)
    return record


@pytest.mark.load
def test_every_way_is_measured(xrays: Record) -> None:
    names = [lane.name for lane in xrays.lanes]
    assert names == [f"fpn: {PUBLISHED}, concurrency 1"] + [
        f"fpn: {way}, concurrency {c}" for way in (RUNTIME, GRPC, SHM) for c in (1, 2)
    ]
    assert [lane.transport for lane in xrays.lanes[-2:]] == ["shm", "shm"]
    for lane in xrays.lanes:
        assert not lane.summary.failures
        assert len(lane.rounds) == 2
        assert ("cxr_lung" in lane.counters) == (lane.transport != "in process")


@pytest.mark.load
def test_the_same_files_give_the_same_scores(xrays: Record) -> None:
    for lane in xrays.lanes[1:]:
        assert lane.deviation is not None
        assert (lane.deviation.differing, lane.deviation.of) == (0, 2)
        assert lane.deviation.largest < 1e-6


@pytest.mark.load
def test_ratios_are_of_the_same_rounds(xrays: Record) -> None:
    rows = {row["lane"]: row for row in xrays.tables["ratios"]}
    assert rows[xrays.lanes[0].name]["to_published"] == 1
    assert 1 in [row["to_onnx_runtime"] for name, row in rows.items() if RUNTIME in name]


@pytest.mark.load
def test_slices_in_batches(ct_repository: Path, tmp_path: Path) -> None:
    done = hilum(
        "bench", "ct-classifier", "--batch", "2", "--concurrency", "1", "--rounds", "1", "--tasks",
        "1", "--repository", ct_repository, "--out", tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tmp_path / "bench.md").read_text().strip()
    record = read(tmp_path / "bench.json")
    batched = next(lane for lane in record.lanes if RUNTIME in lane.name)
    assert (batched.units, batched.concurrency) == (2, 1)
    assert f"{RUNTIME}, batch 2" in batched.name
    served = record.lanes[-1]
    assert served.deviation is not None
    assert served.deviation.largest < 1e-5
    assert any(
        note.startswith("At the best rate through Triton 200 slices") for note in record.notes
    )
