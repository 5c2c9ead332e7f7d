"""The capacity search: when a rate meets a bound."""

from __future__ import annotations

import numpy as np
import pytest
from records import make_round

from hilum.benchmarks.capacity_rule import Bound, duration, judge, parse_duration
from hilum.benchmarks.instrument.loops import NOT_STARTED
from hilum.catalog.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2s", 2), (" 1.5 s", 1.5), ("5min", 300), (".5s", 0.5)]
)
def test_bounds_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["500", "fast", "-1s", "0ms", "2 hours", "", "1e3ms"])
def test_bad_bounds_are_named(text: str) -> None:
    with pytest.raises(InputError, match="write 500ms, 2s or 5min") as told:
        parse_duration(text)
    assert repr(text) in str(told.value)


def test_only_percentiles_of_the_instrument() -> None:
    with pytest.raises(InputError, match="no percentile 98; choose one of 50, 75"):
        Bound(1.0, 98)
    with pytest.raises(InputError, match="above 0"):
        Bound(0.0)


def took(latencies: list[float], **fields: object):
    """A run with an arrival each second, which took so long; the lead-in is before them."""
    times = [0.0] * (len(latencies) // 8) + list(latencies)
    due = np.arange(len(times), dtype=float)
    return make_round(due, due + np.array(times), **fields)


def spread(missed: int, tasks: int) -> list[float]:
    """Misses far from each other."""
    found = np.zeros(tasks)
    found[np.linspace(tasks // 5, tasks - 20, missed).astype(int)] = 9.0
    return list(found)


def test_a_rate_meets_misses_or_is_undecided() -> None:
    bound = Bound(1.0, 95)
    assert judge([took([0.1] * 100)], bound).verdict == "meets"
    assert judge([took([0.1] * 30)], bound).verdict == "undecided"  # too few to be sure
    assert judge([took(spread(5, 100))], bound).verdict == "undecided"
    assert judge([took(spread(12, 100))], bound).verdict == "misses"
    assert judge([took(spread(5, 1000))], bound).verdict == "meets"
    found = judge([took(spread(5, 100)), took(spread(4, 100))], bound)
    assert (found.missed, found.events, found.verdict) == (9, 9, "undecided")
    # Clopper and Pearson (1934): of 9 in about 200, one-sided at 95 %.
    assert 0.018 < found.share_low < 0.026
    assert 0.065 < found.share_high < 0.085
    assert judge([took([0.2] * 97 + [9.0] * 3)], bound).latency_s == pytest.approx(0.2)


def test_one_busy_spell_is_one_event() -> None:
    """Twelve tasks that waited for the same stall are no twelve witnesses."""
    bound = Bound(1.0, 95)
    stalled = [0.1] * 44 + [9.0] * 12 + [0.1] * 44
    found = judge([took(stalled)], bound)
    assert (found.missed, found.events, found.verdict) == (12, 1, "undecided")
    assert judge([took(stalled)] * 4, bound).verdict == "undecided"
    assert judge([took([9.0] * 100)], bound).verdict == "misses"  # an overload
    assert judge([took([0.1] * 45 + [9.0] * 55)], Bound(1.0, 50)).verdict == "undecided"


def test_the_lead_in_is_not_judged() -> None:
    slow_at_first = [9.0] * 10 + [0.1] * 140
    due = np.arange(150, dtype=float)
    found = judge([make_round(due, due + np.array(slow_at_first))], Bound(1.0, 95))
    assert (found.missed, found.tasks) == (0, 135)


def test_failures_are_misses_and_a_backlog_given_up_fails() -> None:
    bound = Bound(1.0, 95)
    failed = dict.fromkeys(range(30, 110, 6), "DeadlineExceeded (DEADLINE_EXCEEDED)")
    found = judge([took([0.1] * 100, failures=failed)], bound)
    assert (found.missed, found.verdict, found.latency_s) == (14, "misses", None)
    one = judge([took([0.1] * 400, failures={449: NOT_STARTED})], bound)
    assert (one.missed, one.verdict, one.given_up) == (1, "misses", True)
