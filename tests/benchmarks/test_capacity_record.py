"""The record of a capacity search: lanes, tables, pages, picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from capacity_queues import SPACE, Simulated, plan_of, rule, service_of, still
from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_record import lanes, notes, rows
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_search import candidates, ranked
from hilum.benchmarks.capacity_trials import Log
from hilum.benchmarks.instrument.record import read
from hilum.benchmarks.pages.answers import answers
from hilum.benchmarks.pages.tables import markdown
from PIL import Image
from records import make_record


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The record of a search over simulated queues, written."""
    folder = tmp_path_factory.mktemp("record")
    settings, how = candidates(SPACE, 4), rule(Bound(0.1, 95))
    log = Log(folder, plan_of(settings), resume=False)
    capacity.carry_out(settings, log, how, Simulated(service_of).make, still)
    best = ranked(settings, log.of, how)[0]
    capacities, rates = rows(settings, log.of, how)
    record = make_record(
        lanes("cxr-severity", best, log.of(best)), kind="capacity",
        title="Capacity of cxr-severity for p95 ≤ 100ms",
        tables={"capacity": tuple(capacities), "trials": tuple(rates)},
        notes=tuple(notes(settings, log.of, how)),
    )  # fmt: skip
    (folder / "printed").write_text(capacity.write(record, folder))
    return folder


def test_the_record_holds_lanes_and_tables(written: Path) -> None:
    record = read(written / "bench.json")
    assert record.kind == "capacity"
    best = record.tables["capacity"][0]
    assert best["outcome"] == "found"
    opened = [lane for lane in record.lanes if lane.loop == "open"]
    rates = [t for t in record.tables["trials"] if t["setting"] == best["setting"]]
    assert [lane.rate for lane in opened] == [t["per_second"] for t in rates]
    assert [len(lane.rounds) for lane in opened] == [t["runs"] for t in rates]
    assert [lane.concurrency for lane in record.lanes if lane.loop == "closed"][:2] == [1, 2]
    said = answers(record)
    assert f"{best['per_second']:.3g} arrivals per second" in said[0]
    assert "95 of 100 answered within 100 ms; best of 4 settings" in said[0]
    assert f"From {best['misses_from']:.3g} per second on" in said[1]


def test_the_record_can_be_read_and_seen(written: Path) -> None:
    text = (written / "printed").read_text()
    assert text == (written / "bench.md").read_text() == markdown(read(written / "bench.json"))
    assert "## Capacity" in text
    assert "## Rates that were tried" in text
    assert "with 95% confidence" in text
    page = (written / "bench.html").read_text()
    assert page.index("surely meet the bound") > page.index("arrivals per second")
    drawn = np.asarray(Image.open(written / "capacity.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)):  # rates that meet, rates that miss
        assert (np.abs(drawn.astype(int) - colour).max(axis=1) < 8).sum() > 20
