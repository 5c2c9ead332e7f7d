"""The record of a capacity search: lanes, tables, pages, picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from capacity_queues import Simulated, rule, still
from PIL import Image
from records import make_record

from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_record import lanes, notes, rows
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_trials import Log
from hilum.benchmarks.instrument.record import read
from hilum.benchmarks.pages.page import write
from hilum.benchmarks.pages.tables import markdown


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The record of a search over simulated queues, written."""
    folder = tmp_path_factory.mktemp("record")
    how, log = rule(Bound(0.1, 95)), Log(folder, {}, resume=False)
    capacity.carry_out(log, how, Simulated(0.02).make, still)
    found, rates = rows(log.trials, how)
    record = make_record(
        lanes("cxr-severity", log.trials), kind="capacity",
        title="Capacity of cxr-severity for p95 ≤ 100ms",
        tables={"capacity": (found,), "trials": tuple(rates)},
        notes=tuple(notes(log.trials, how)),
    )  # fmt: skip
    (folder / "printed").write_text(write(record, folder))
    return folder


def test_the_record_holds_lanes_and_tables(written: Path) -> None:
    record = read(written / "bench.json")
    assert record.kind == "capacity"
    best = record.tables["capacity"][0]
    assert best["outcome"] == "found"
    opened = [lane for lane in record.lanes if lane.loop == "open"]
    rates = record.tables["trials"]
    assert [lane.rate for lane in opened] == [t["per_second"] for t in rates]
    assert [len(lane.rounds) for lane in opened] == [t["runs"] for t in rates]
    assert [lane.concurrency for lane in record.lanes if lane.loop == "closed"][:2] == [1, 2]
    assert (best["percentile"], best["bound_s"]) == (95, 0.1)
    assert 0 < best["per_second"] < best["misses_from"]


def test_the_record_can_be_read_and_seen(written: Path) -> None:
    text = (written / "printed").read_text()
    assert text == (written / "bench.md").read_text() == markdown(read(written / "bench.json"))
    assert "## Capacity" in text
    assert "## Rates that were tried" in text
    assert "with 95% confidence" in text
    page = (written / "bench.html").read_text()
    assert "surely meet the bound" in page
    drawn = np.asarray(Image.open(written / "capacity.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)):  # rates that meet, rates that miss
        assert (np.abs(drawn.astype(int) - colour).max(axis=1) < 8).sum() > 20
