"""The capacity search on simulated queues, whose capacity theory tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from capacity_queues import (
    SERVED,
    Simulated,
    m_d_1_capacity,
    rule,
    still,
    wait_within,
)
from records import make_round
from stand_in import lindley

from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_record import lanes, rows
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_search import check_samples, state
from hilum.benchmarks.capacity_trials import Ask, Log, Trial
from hilum.benchmarks.instrument.arrivals import poisson
from hilum.catalog.errors import InputError


def test_theory_is_that_of_the_recursion() -> None:
    """The formula that the searches are judged by, against a long simulated queue."""
    arrivals = np.array(poisson(70, 800, 1))
    waits = lindley(arrivals, np.full(len(arrivals), 0.01))
    for seconds in (0.0, 0.01, 0.025, 0.04):
        assert wait_within(70, 0.01, seconds) == pytest.approx(
            float((waits <= seconds).mean()), abs=0.02
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("percentile", "times"), [(99, 5), (95, 3), (90, 10)])
def test_simulated_capacity_is_that_of_m_d_1(
    tmp_path: Path, percentile: float, times: int, seed: int
) -> None:
    service = 0.02
    bound = Bound(times * service, percentile)
    how, log = rule(bound, seed=100 * seed), Log(tmp_path, {}, resume=False)
    capacity.carry_out(log, how, Simulated(service).make, still)
    found = state(log.trials, how)
    theory = m_d_1_capacity(service, 0.0, bound)
    assert found.ceiling == pytest.approx(1 / service, rel=0.01)
    assert found.interval.high is not None
    # The ends are sure, each for itself, at 95 %: they may lie a little on the other side.
    assert 0.6 * theory < found.interval.low < 1.1 * theory
    assert 0.9 * theory < found.interval.high < 1.4 * theory
    edge = [t.runs for t in found.tried if t.rate in (found.interval.low, found.interval.high)]
    assert min(edge) >= 2
    assert len([t for t in log.trials if t.ask.kind == "open"]) <= how.limits.most


def test_a_bound_out_of_reach_is_reported(tmp_path: Path) -> None:
    how, log = rule(Bound(0.05, 95)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(0.08)
    capacity.carry_out(log, how, simulated.make, still)
    assert [ask.kind for ask in simulated.made] == ["alone"]
    row, rates = rows(log.trials, how)
    assert (row["outcome"], row["per_second"], rates) == ("out of reach", None, [])
    assert (row["alone_s"], row["bound_s"]) == (pytest.approx(0.08), 0.05)


def test_one_slow_task_does_not_put_a_bound_out_of_reach(tmp_path: Path) -> None:
    how, log = rule(Bound(5.0, 90)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(1.5)
    capacity.carry_out(log, how, simulated.make, still)
    alone = [ask.tasks for ask in simulated.made if ask.kind == "alone"]
    assert alone == [20, 2]  # the first took 2 s of tasks
    assert lanes("cxr-severity", log.trials)[0].summary.samples == 3


def test_failing_alone_is_reported(tmp_path: Path) -> None:
    def make(ask: Ask) -> Trial:
        ended = np.arange(4.0) + 1
        return Trial(
            ask, make_round(ended - 1, ended, failures=dict.fromkeys(range(4), "Broken")),
            SERVED,
        )  # fmt: skip

    with pytest.raises(InputError, match=r"every task failed even alone \(Broken\)"):
        capacity.carry_out(Log(tmp_path, {}, resume=False), rule(Bound(1.0)), make, still)


def test_too_few_samples_are_reported_before_they_are_measured(tmp_path: Path) -> None:
    how = rule(Bound(1.0, 99), seconds=20.0)
    log, simulated = Log(tmp_path, {}, resume=False), Simulated(0.5)
    with pytest.raises(InputError, match="p99 needs 500 samples") as told:
        capacity.carry_out(log, how, simulated.make, still)
    assert all(ask.kind != "open" for ask in simulated.made)
    # 2 per second: 500 samples take 278 s with the lead-in, in three runs of 93 s.
    assert "--seconds 93, or --percentile 95" in str(told.value)
    check_samples(state(log.trials, how), rule(Bound(1.0, 99), seconds=94.0))
    check_samples(state(log.trials, how), rule(Bound(1.0, 95), seconds=20.0))
    with pytest.raises(InputError, match="an overload would not show; give --seconds 40"):
        rule(Bound(2.0), seconds=30.0)
