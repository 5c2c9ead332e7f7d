"""Figures from samples: percentiles, and intervals by bootstrap that respect rounds.

Requests of one round share what the machine did meanwhile, and in a queue they wait for each
other, so they are no independent samples; rounds are as good as independent. The bootstrap
therefore draws rounds first and samples within them afterwards, and with few rounds its intervals
are widened (`widening`), because a bootstrap of three things cannot know how far a fourth would
lie off.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from hilum.catalog.errors import InputError

from .record import Estimate, Round, Summary

Figure = Callable[[NDArray[np.float64]], float]
"""What is estimated, of the samples of all rounds together; must be positive."""

SAMPLES_NEEDED: Mapping[float, int] = {50: 1, 75: 20, 90: 50, 95: 100, 99: 500, 99.9: 5000}
"""Samples that a percentile needs: so many that five are expected beyond it. The median is given
from the first sample on; its interval shows what it is worth."""

ROUNDS_NEEDED = 3
"""Rounds that an interval needs."""

REPEATS = 1000
"""Of a bootstrap: the ends of a 95 % interval then lie on the 25th value from each side."""


def percentile(values: Sequence[float] | NDArray[np.float64], percent: float) -> float:
    """The nearest-rank percentile of `values`: a value that did occur.

    Raises
    ------
    InputError
        For no values.
    """
    if len(values) == 0:
        raise InputError(f"there is no {percent:g}th percentile of no samples; measure longer")
    return float(percentiles(values, [percent])[0])


def percentiles(
    values: Sequence[float] | NDArray[np.float64], percents: Sequence[float]
) -> NDArray[np.float64]:
    """Several nearest-rank percentiles of one or more values, with one pass over them."""
    if not percents:
        return np.empty(0)
    places = [_rank(len(values), p) for p in percents]
    return np.partition(np.asarray(values, np.float64), places)[places]


def latencies(round_: Round) -> list[float]:
    """Seconds from the intended start to the end of each task; failed tasks are left out."""
    return [
        end - start
        for number, (start, end) in enumerate(zip(round_.intended, round_.finished, strict=True))
        if number not in round_.failures
    ]


def throughputs(rounds: Sequence[Round], units: int) -> list[float]:
    """Units done per second in each round; what failed was not done.

    Parameters
    ----------
    units
        Images, slices or studies of one task.
    """
    done = [units * (len(r.intended) - len(r.failures)) for r in rounds]
    # Of a single task that failed at once, a round may have lasted no time at all.
    return [d / r.seconds if d else 0.0 for d, r in zip(done, rounds, strict=True)]


def supported(samples: int) -> tuple[float, ...]:
    """The percentiles that so many samples support (`SAMPLES_NEEDED`), in rising order."""
    return tuple(p for p, needed in SAMPLES_NEEDED.items() if samples >= needed)


def widening(rounds: int, level: float = 0.95) -> float:
    """By how much an interval from few rounds is stretched on both sides of its figure.

    Student's quantile over the normal one, and the root of n / (n - 1) because a bootstrap's
    spread is that of the samples at hand (Hesterberg, "What teachers should know about the
    bootstrap", The American Statistician 69, 2015, §5.3). 2.7 at three rounds, 1.2 at ten.
    """
    tail = (1 + level) / 2
    return math.sqrt(rounds / (rounds - 1)) * float(stdtrit(rounds - 1, tail) / ndtri(tail))


def bootstrap(
    values_by_round: Sequence[Sequence[float] | NDArray[np.float64]],
    figure: Figure,
    level: float = 0.95,
    seed: int = 0,
    repeats: int = REPEATS,
) -> Estimate:
    """A figure of the samples of all rounds, and its interval.

    Parameters
    ----------
    values_by_round
        Samples of each round; one each where the round is the sample (throughput).
    figure
        Of all samples in one array, for instance ``np.median``; positive.

    Returns
    -------
    Estimate
        Without an interval where fewer than three rounds have samples.
    """
    several = _bootstrap(values_by_round, lambda x: np.array([figure(x)]), level, seed, repeats)
    return several[0]


def summarise(rounds: Sequence[Round], units: int) -> Summary:
    """Figures of a lane over all of its rounds.

    Parameters
    ----------
    units
        Images, slices or studies of one task.

    Raises
    ------
    InputError
        For no rounds.
    """
    if not rounds:
        raise InputError("a lane without a round has no figures; measure at least one")
    by_round = [np.array(latencies(r)) for r in rounds]
    samples = sum(len(r) for r in by_round)
    percents = supported(samples)
    estimates = []
    if percents:
        estimates = _bootstrap(by_round, lambda x: percentiles(x, percents), 0.95, 0, REPEATS)
    return Summary(
        samples=samples,
        failures=dict(Counter(why for r in rounds for why in r.failures.values())),
        per_second=bootstrap([[x] for x in throughputs(rounds, units)], _median),
        latency_s={f"{p:g}": e for p, e in zip(percents, estimates, strict=True)},
        longest_s=max((float(r.max()) for r in by_round if len(r)), default=0.0),
    )


def ratio(of: Sequence[float], to: Sequence[float], level: float = 0.95) -> Estimate:
    """Median over the rounds of one figure's ratio to another, of the same round each.

    A slow spell of the machine meets both lanes of a round alike, so ratios within rounds hold
    where absolute figures do not.

    Parameters
    ----------
    of, to
        One figure per round, for instance from `throughputs`.

    Raises
    ------
    InputError
        When the rounds are not the same in number, or a figure to divide by is 0.
    """
    if len(of) != len(to) or not of:
        raise InputError(
            f"{len(of)} rounds cannot be paired with {len(to)}; measure both in the same rounds"
        )
    if min(to) <= 0:
        raise InputError("nothing was done in a round, so nothing can be compared to it")
    return bootstrap([[a / b] for a, b in zip(of, to, strict=True)], _median, level)


class Pool:
    """Samples of several rounds, end to end, to draw from."""

    def __init__(self, rounds: Sequence[NDArray[np.float64]]) -> None:
        self.values = np.concatenate(rounds)
        self._sizes = np.array([len(r) for r in rounds])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def draw(self, chosen: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.float64]:
        """From each of the chosen rounds as many samples as it has, with replacement."""
        sizes = self._sizes[chosen]
        place = generator.random(sizes.sum()) * np.repeat(sizes, sizes)
        return self.values[np.repeat(self._starts[chosen], sizes) + place.astype(np.intp)]


def interval(
    value: float, draws: NDArray[np.float64], rounds: int, level: float = 0.95
) -> tuple[float, float]:
    """Bounds around `value` from a bootstrap's draws of it, widened for few rounds.

    Of positive figures: the widening is by a factor, so that no bound becomes negative.
    """
    if value <= 0 or draws.min() <= 0:
        raise InputError("an interval is only for figures above 0")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(np.log(draws / value), [tail, 100 - tail])
    wider = widening(rounds, level)
    return value * math.exp(wider * min(low, 0.0)), value * math.exp(wider * max(high, 0.0))


def _bootstrap(
    values_by_round: Sequence[Sequence[float] | NDArray[np.float64]],
    figures: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    level: float,
    seed: int,
    repeats: int,
) -> list[Estimate]:
    rounds = [np.asarray(values, np.float64) for values in values_by_round if len(values)]
    if not rounds:
        raise InputError("no samples, so no figure; measure at least one round")
    pool = Pool(rounds)
    found = figures(pool.values)
    if len(rounds) < ROUNDS_NEEDED:
        return [Estimate(float(value), level=level) for value in found]
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(rounds), size=(repeats, len(rounds)))
    draws = np.array([figures(pool.draw(own, generator)) for own in chosen])
    estimates = []
    for value, own in zip(found, draws.T, strict=True):
        if value <= 0 or own.min() <= 0:  # nothing was done in a round: no factor leads there
            estimates.append(Estimate(float(value), level=level))
        else:
            low, high = interval(float(value), own, len(rounds), level)
            estimates.append(Estimate(float(value), low, high, level))
    return estimates


def _rank(samples: int, percent: float) -> int:
    """Place among `samples` sorted values, from 0; rounded, since 99.9 % of 1000 is 999."""
    return max(math.ceil(round(percent * samples / 100, 9)) - 1, 0)


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))
