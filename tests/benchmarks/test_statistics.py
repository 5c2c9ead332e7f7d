"""Percentiles, intervals and ratios against what theory says of samples of known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from records import closed_round, make_round, open_round, service

from hilum.benchmarks.instrument.statistics import (
    bootstrap,
    latencies,
    percentile,
    ratio,
    summarise,
    supported,
    throughputs,
    widening,
)
from hilum.catalog.errors import InputError


def median(values: np.ndarray) -> float:
    return float(np.median(values))


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(1000, 0, -1))
    assert [percentile(values, p) for p in (50, 95, 99, 99.9, 100)] == [500, 950, 990, 999, 1000]
    assert percentile([7.0], 99.9) == 7
    assert percentile(values, 0) == 1
    with pytest.raises(InputError, match="measure longer"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (0, ()),
        (1, (50,)),
        (99, (50, 75, 90)),
        (500, (50, 75, 90, 95, 99)),
        (4999, (50, 75, 90, 95, 99)),
        (5000, (50, 75, 90, 95, 99, 99.9)),
    ],
)
def test_percentiles_that_samples_bear(samples: int, expected: tuple[float, ...]) -> None:
    assert supported(samples) == expected


def test_latency_counts_from_the_intended_start_and_leaves_failures_out() -> None:
    done = make_round(np.array([0.0, 1, 2]), np.array([0.5, 4, 6]), failures={1: "unavailable"})
    assert latencies(done) == [0.5, 4.0]
    assert throughputs([done], 8) == [pytest.approx(8 * 2 / 6)]


def test_a_round_of_failures_alone() -> None:
    failed = make_round(np.zeros(2), np.zeros(2), failures={0: "refused", 1: "refused"})
    summary = summarise([failed], 1)
    assert (summary.samples, summary.failures) == (0, {"refused": 2})
    assert (summary.per_second.value, summary.latency_s, summary.longest_s) == (0.0, {}, 0.0)
    with pytest.raises(InputError, match="at least one"):
        summarise([], 1)


def test_a_summary_of_a_queue() -> None:
    rounds = [open_round(10, service(200, seed), seed) for seed in range(3)]
    summary = summarise(rounds, 4)
    pooled = sorted(x for r in rounds for x in latencies(r))
    assert summary.samples == 600
    assert list(summary.latency_s) == ["50", "75", "90", "95", "99"]
    assert summary.latency_s["50"].value == pooled[299]
    assert summary.latency_s["99"].value == pooled[593]
    assert summary.longest_s == pooled[-1]
    assert summary.per_second.value == sorted(throughputs(rounds, 4))[1]
    for estimate in (summary.per_second, *summary.latency_s.values()):
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 < estimate.low < estimate.value < estimate.high


def test_two_rounds_give_no_interval() -> None:
    summary = summarise([closed_round(service(30, seed)) for seed in range(2)], 1)
    assert summary.per_second.low is None
    assert summary.latency_s["50"].high is None


def test_widening_for_few_rounds() -> None:
    """Student's t of 2 and 9 degrees of freedom (4.303, 2.262) over 1.960, times √(n/(n−1))."""
    assert widening(3) == pytest.approx(4.303 / 1.960 * math.sqrt(3 / 2), rel=1e-3)
    assert widening(10) == pytest.approx(2.262 / 1.960 * math.sqrt(10 / 9), rel=1e-3)
    assert widening(3, 0.99) > widening(3)


@pytest.mark.parametrize("rounds", [3, 10])
def test_intervals_hold_the_truth_as_often_as_they_say(rounds: int) -> None:
    """Rounds that differ by 10 %, of 40 exponential latencies each: the true median is ln 2.

    Samples taken for independent would miss it about every other time.
    """
    generator = np.random.default_rng(rounds)
    repeats, held, naive = 40, 0, 0
    for _ in range(repeats):
        own = [np.exp(generator.normal(0, 0.3)) * generator.exponential(1, 40)
               for _ in range(rounds)]  # fmt: skip
        found = bootstrap(own, median, repeats=100)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= math.log(2) <= found.high
        pooled = np.concatenate(own)
        alone = [np.median(generator.choice(pooled, len(pooled))) for _ in range(60)]
        naive += np.percentile(alone, 2.5) <= math.log(2) <= np.percentile(alone, 97.5)
    assert held / repeats >= 0.88  # two standard errors below 0.95
    assert naive < held


def test_more_rounds_make_a_narrower_interval() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for rounds in (4, 40):
        found = bootstrap([[x] for x in generator.lognormal(0, 0.1, rounds)], median)
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high / found.low)
    assert widths[1] < widths[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    rounds = [service(50, seed) for seed in range(4)]
    assert bootstrap(rounds, median, seed=1) == bootstrap(rounds, median, seed=1)
    assert bootstrap(rounds, median, seed=1) != bootstrap(rounds, median, seed=2)


def test_a_ratio_holds_where_the_machine_does_not() -> None:
    """The machine's speed halves and doubles between rounds; the ratio within them is 1.5."""
    machine = np.array([1.0, 0.5, 2.0, 0.7, 1.3])
    noise = np.array([1.0, 1.01, 0.99, 1.005, 0.995])
    found = ratio(list(15 * machine * noise), list(10 * machine))
    assert found.value == pytest.approx(1.5)
    assert found.low is not None
    assert found.high is not None
    assert 1.4 < found.low < 1.5 < found.high < 1.6
    with pytest.raises(InputError, match="same rounds"):
        ratio([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="nothing was done"):
        ratio([1.0], [0.0])
