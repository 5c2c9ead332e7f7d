"""What an interrupted capacity search goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from capacity_queues import Simulated, rule, still

from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_record import rows
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_trials import FILE, Log
from hilum.catalog.errors import InputError

PLAN = {"system": "cxr-severity", "seconds": None}


@pytest.mark.parametrize("after", [0, 1, 5])
def test_resume_repeats_no_finished_trial(tmp_path: Path, after: int) -> None:
    how, whole = rule(Bound(0.1, 95)), Simulated(0.02)
    log = Log(tmp_path / "whole", PLAN, resume=False)
    capacity.carry_out(log, how, whole.make, still)
    assert len(log.trials) > 5

    first = Simulated(0.02, stop_after=after)
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        capacity.carry_out(Log(folder, PLAN, resume=False), how, first.make, still)
    with (folder / FILE).open("a") as file:
        file.write('{"ask": {"kin')  # killed while it wrote
    second = Simulated(0.02)
    again = Log(folder, PLAN, resume=True)
    assert len(again.trials) == after
    capacity.carry_out(again, how, second.make, still)
    assert first.made + second.made == whole.made
    assert again.trials == log.trials
    assert rows(again.trials, how) == rows(log.trials, how)
    assert (folder / FILE).read_text() == (tmp_path / "whole" / FILE).read_text()


def test_other_searches_are_not_resumed(tmp_path: Path) -> None:
    log = Log(tmp_path, PLAN, resume=False)
    capacity.carry_out(log, rule(Bound(0.1, 95)), Simulated(0.02).make, still)
    before = (tmp_path / FILE).read_text()
    with pytest.raises(InputError, match="go on with --resume"):
        Log(tmp_path, PLAN, resume=False)
    with pytest.raises(InputError, match=r"another search \(seconds was None, is 8.0\)"):
        Log(tmp_path, {**PLAN, "seconds": 8.0}, resume=True)
    assert (tmp_path / FILE).read_text() == before
    (tmp_path / FILE).write_text("a diary\n")
    with pytest.raises(InputError, match="no file of trials"):
        Log(tmp_path, PLAN, resume=True)
    (tmp_path / FILE).write_text(before.splitlines()[0] + '\n{"ask": {}}\n')
    with pytest.raises(InputError, match=r"trials.jsonl, line 2: no trial"):
        Log(tmp_path, PLAN, resume=True)
