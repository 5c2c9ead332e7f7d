"""The capacity search over settings, and what an interrupted one goes on with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from capacity_queues import (
    SPACE,
    Simulated,
    m_d_1_capacity,
    plan_of,
    rule,
    service_of,
    still,
)
from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_record import rows
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_search import candidates, ranked
from hilum.benchmarks.capacity_trials import FILE, Log, Setting
from hilum.catalog.errors import InputError


def test_candidates_cover_every_value_alike() -> None:
    found = candidates(SPACE, 8)
    assert found[0] == Setting()
    assert len(set(found)) == 8
    assert candidates(SPACE, 8) == found != candidates(SPACE, 8, seed=1)
    for name, values in SPACE.items():
        counts = [sum(getattr(s, name) == v for s in found) for v in values]
        assert max(counts) - min(counts) <= 1
    assert len(candidates(SPACE, 100)) == 16


def test_halving_finds_the_best_with_less_than_the_grid(tmp_path: Path) -> None:
    settings = candidates(SPACE, 16)
    how, log = rule(Bound(0.1, 95)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(service_of)
    capacity.carry_out(settings, log, how, simulated.make, still)
    best = ranked(settings, log.of, how)[0]
    assert (best.instances, best.transport) == (2, "auto")
    opened = {s: sum(t.ask.kind == "open" for t in log.of(s)) for s in settings}
    assert sorted(opened.values())[:7] == [2] * 7  # the default goes on, for comparison
    assert sum(opened.values()) < 0.6 * 16 * max(opened.values())
    capacities, rates = rows(settings, log.of, how)
    outcomes = [row["outcome"] for row in capacities]
    assert outcomes[:2] == ["found", "found"]
    assert outcomes.count("left behind") >= 7
    assert "found" in [row["outcome"] for row in capacities if row["setting"] == str(Setting())]
    assert capacities[0]["setting"] == str(best)
    theory = m_d_1_capacity(0.012, 0.0, how.bound)
    assert 0.6 * theory < capacities[0]["per_second"] < 1.1 * theory
    assert {row["setting"] for row in rates} == {str(s) for s in settings}
    # Settings of one server stay together, so that it is started anew only when it must be.
    servers = [s.server for s, _ in simulated.made]
    restarts = sum(a != b for a, b in pairwise(servers))
    assert restarts <= 8 + 8 + 4 + 4


@pytest.mark.parametrize("after", [0, 1, 5, 23])
def test_resume_repeats_no_finished_trial(tmp_path: Path, after: int) -> None:
    settings, how = candidates(SPACE, 4), rule(Bound(0.1, 95))
    whole = Simulated(service_of)
    log = Log(tmp_path / "whole", plan_of(settings), resume=False)
    capacity.carry_out(settings, log, how, whole.make, still)

    first = Simulated(service_of, stop_after=after)
    folder, plan = tmp_path / "stopped", plan_of(settings)
    with pytest.raises(KeyboardInterrupt):
        capacity.carry_out(settings, Log(folder, plan, resume=False), how, first.make, still)
    with (folder / FILE).open("a") as file:
        file.write('{"setting": {"instan')  # killed while it wrote
    second = Simulated(service_of)
    again = Log(folder, plan, resume=True)
    assert len(again.trials) == after
    capacity.carry_out(settings, again, how, second.make, still)
    assert first.made + second.made == whole.made
    assert again.trials == log.trials
    assert rows(settings, again.of, how) == rows(settings, log.of, how)
    assert (folder / FILE).read_text() == (tmp_path / "whole" / FILE).read_text()


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    settings, how = candidates(SPACE, 2), rule(Bound(0.1, 95))
    plan = plan_of(settings)
    capacity.carry_out(
        settings, Log(tmp_path, plan, resume=False), how, Simulated(service_of).make, still
    )
    before = (tmp_path / FILE).read_text()
    with pytest.raises(InputError, match="go on with --resume"):
        Log(tmp_path, plan, resume=False)
    with pytest.raises(InputError, match=r"another search \(seconds was None, is 8.0\)"):
        Log(tmp_path, {**plan, "seconds": 8.0}, resume=True)
    assert (tmp_path / FILE).read_text() == before
    (tmp_path / FILE).write_text("a diary\n")
    with pytest.raises(InputError, match="no file of trials"):
        Log(tmp_path, plan, resume=True)
    (tmp_path / FILE).write_text(before.splitlines()[0] + '\n{"setting": {}}\n')
    with pytest.raises(InputError, match=r"trials.jsonl, line 2: no trial"):
        Log(tmp_path, plan, resume=True)
