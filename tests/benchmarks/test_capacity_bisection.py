"""The capacity search: which rate is tried next."""

from __future__ import annotations

from hilum.benchmarks.capacity_bisection import Limits, Tried, ascending, interval, next_rate

LIMITS = Limits(tolerance=0.1, runs=3, edge=2, most=20)


def test_bisection_begins_below_the_closed_loop() -> None:
    assert next_rate(10.0, [], LIMITS) == 7.0
    assert next_rate(10.0, [Tried(7.0, "misses", 1)], LIMITS) == 3.5
    assert next_rate(10.0, [Tried(7.0, "meets", 1)], LIMITS) == 8.5


def test_undecided_rates_are_run_again_and_then_gone_around() -> None:
    tried = [Tried(7.0, "undecided", 1)]
    assert next_rate(10.0, tried, LIMITS) == 7.0
    tried = [Tried(7.0, "undecided", 3)]
    assert next_rate(10.0, tried, LIMITS) == 3.5  # the wider gap
    tried.append(Tried(3.5, "meets", 1))
    assert next_rate(10.0, tried, LIMITS) == 5.25
    assert interval(tried).doubtful == (7.0,)


def test_edges_are_repeated_even_that_of_the_closed_loop() -> None:
    tried = [Tried(9.5, "meets", 1)]
    assert next_rate(10.0, tried, LIMITS) == 10.0  # it was never run
    tried = [Tried(9.5, "meets", 1), Tried(10.0, "misses", 1)]
    assert next_rate(10.0, tried, LIMITS) == 9.5
    tried = [Tried(9.5, "meets", 2), Tried(10.0, "misses", 1)]
    assert next_rate(10.0, tried, LIMITS) == 10.0
    tried = [Tried(9.5, "meets", 2), Tried(10.0, "misses", 2)]
    assert next_rate(10.0, tried, LIMITS) is None
    beyond = [Tried(9.5, "meets", 1), Tried(10.0, "meets", 1)]
    assert next_rate(10.0, beyond, LIMITS) == 12.5  # the closed loop had a slow spell: up to 15


def test_bisection_ends() -> None:
    assert next_rate(10.0, [Tried(7.0, "undecided", 20)], LIMITS) is None
    # Nothing meets the bound: down to the floor, not for ever.
    tried: list[Tried] = []
    while (rate := next_rate(10.0, tried, LIMITS)) is not None:
        known = {t.rate: t.runs for t in tried}
        tried = [t for t in tried if t.rate != rate]
        tried.append(Tried(rate, "misses", known.get(rate, 0) + 1))
    assert interval(tried).low == 0
    assert 0.3 < (interval(tried).high or 0) < 1


def test_a_lower_miss_counts_more_than_a_higher_hit() -> None:
    tried = [Tried(4.0, "meets", 2), Tried(6.0, "misses", 2), Tried(8.0, "meets", 2)]
    found = interval(tried)
    assert (found.low, found.high) == (4.0, 6.0)
    assert not ascending(tried)
    assert ascending(tried[:2])
    assert not ascending([Tried(3.0, "undecided", 3), *tried[:2]])
