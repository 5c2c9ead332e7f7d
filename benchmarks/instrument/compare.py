"""Whether a change between two runs is real: `hilum bench compare`.

The test, for each lane that both runs have, of its throughput and of each latency percentile that
the samples of both runs support:

1. Rounds are paired in their order, which takes slow spells of the machine out of the difference
   where both builds were measured in turns. Of three or more pairs of runs, whole runs are paired,
   so that what differs from one start of a server to the next counts as noise, too.
2. The ratio of after to before is estimated with a bootstrap over runs, or over blocks of rounds
   within single runs (`MOST_BLOCKS`), and over the samples within rounds. Its interval is
   widened for few blocks (`statistics.widening`) and for the number of tests (Bonferroni), so that
   in `level` of all comparisons of unchanged builds nothing at all is called changed.
3. Single runs one after the other do not show how much the machine changed between them; their
   intervals are widened by `between_runs` on top.
4. A change is real when the interval leaves 1 out and the ratio is at least `threshold` away from
   it. There is no real difference when the whole interval is nearer to 1 than the threshold, or
   when it leaves 1 out and the ratio is nearer. Else the runs cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from hilum.catalog.errors import InputError

from .record import Estimate, Lane, Record
from .statistics import (
    ROUNDS_NEEDED,
    Pool,
    interval,
    latencies,
    percentiles,
    supported,
    throughputs,
)

Verdict = Literal["slower", "faster", "no real difference", "cannot tell"]

THRESHOLD = 0.05
"""Change that matters, when nothing else is said."""

BETWEEN_RUNS = 0.25
"""What single runs one after the other may differ by without a change, when nothing else is said:
unchanged runs minutes apart on a shared machine of two cores did."""

REPEATS = 4000
"""Of the bootstrap: intervals of many tests end far out."""

_COMPARED = (50, 95, 99)
"""Latency percentiles that are compared; each further one widens the intervals of all."""
_ALONE = (
    "measured one after the other: a slow spell of the machine looks like a change, so the "
    "intervals are widened by {:.0%}; measure before and after in turns, three times or more, and "
    "give all files in that order"
)


Samples = NDArray[np.float64]

MOST_BLOCKS = 10
"""Into which the rounds of single runs are joined. A machine stays slow or fast for seconds, as
when another process moved to the same core, so that rounds next to each other are alike; blocks of
them are long enough to be independent."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one figure of one lane.

    Attributes
    ----------
    figure
        "throughput", "latency p50", …
    unit
        Of `before` and `after`.
    ratio
        After to before, with the interval that the verdict rests on; without one there are too
        few rounds.
    """

    lane: str
    figure: str
    unit: str
    before: float
    after: float
    ratio: Estimate
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Test:
    """What a figure has to pass.

    Attributes
    ----------
    level
        Of its interval, so that all tests together keep the level that was asked for.
    allowance
        Factor by which the interval is widened for what nothing in the runs shows.
    """

    threshold: float
    level: float
    allowance: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    notes
        What a reader must know beside the changes: other machines, lanes of one run only,
        failures, results that differ.
    fails_more
        Lanes of which more requests fail than before.
    """

    changes: tuple[Change, ...]
    threshold: float
    level: float
    notes: tuple[str, ...] = ()
    fails_more: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether anything is slower, or fails more often."""
        return bool(self.fails_more) or any(c.verdict == "slower" for c in self.changes)


def compare(
    before: Sequence[Record],
    after: Sequence[Record],
    *,
    threshold: float = THRESHOLD,
    between_runs: float = BETWEEN_RUNS,
    level: float = 0.95,
    seed: int = 0,
    repeats: int = REPEATS,
) -> Comparison:
    """Tell which figures changed between runs.

    Parameters
    ----------
    before, after
        One run each, or the same number of each, measured in turns.
    threshold
        Change that matters, as a share: 0.05 is 5 %.
    between_runs
        By what share fewer than three pairs of runs, one after the other, may differ without a
        change.
    level
        Share of comparisons of unchanged builds in which nothing is called changed.
    repeats
        Draws of each bootstrap.

    Raises
    ------
    InputError
        When the runs have no lane in common.
    """
    if len(before) != len(after) or not before:
        raise InputError(
            f"{len(before)} runs before and {len(after)} after; give as many of each, in turns"
        )
    matched = list(_matched(before, after))
    if not matched:
        raise InputError(
            "the runs have no lane in common (same name, loop, concurrency, rate, transport and "
            "batch); measure both with the same command"
        )
    tests = sum(1 + len(_percents(a, b)) for a, b in matched)
    alone = len(before) < ROUNDS_NEEDED and not _in_turns(before[0], after[0])
    test = _Test(threshold, 1 - (1 - level) / tests, 1 + between_runs if alone else 1.0)
    changes: list[Change] = []
    notes, fails_more = list(_about(before, after, matched)), []
    if alone:
        notes.insert(0, _ALONE.format(between_runs))
    for old, new in matched:
        changes += _changes(old, new, test, seed, repeats)
        if why := _failing(old, new, 1 - test.level):
            notes.append(why)
            fails_more.append(old[0].name)
    return Comparison(tuple(changes), threshold, level, tuple(notes), tuple(fails_more))


def _in_turns(before: Record, after: Record) -> bool:
    """Whether the two runs went on during the same time: most of the shorter one's."""
    ends = [datetime.fromisoformat(r.date).timestamp() for r in (before, after)]
    lasted = [sum(r.seconds for lane in x.lanes for r in lane.rounds) for x in (before, after)]
    return abs(ends[0] - ends[1]) <= min(lasted) / 2


def _key(lane: Lane) -> tuple[object, ...]:
    return (
        lane.name, tuple(sorted(lane.systems.items())), lane.loop, lane.arrivals, lane.rate,
        lane.concurrency, lane.transport, lane.unit, lane.units,
    )  # fmt: skip


def _matched(
    before: Sequence[Record], after: Sequence[Record]
) -> Iterator[tuple[list[Lane], list[Lane]]]:
    """Each lane that all runs have: as it is in the runs before and in those after."""
    runs = [{_key(lane): lane for lane in record.lanes} for record in (*before, *after)]
    for key in runs[0]:
        if all(key in run for run in runs):
            found = [run[key] for run in runs]
            yield found[: len(before)], found[len(before) :]


def _percents(before: Sequence[Lane], after: Sequence[Lane]) -> list[float]:
    """Percentiles that both sides support."""
    samples = (sum(len(latencies(r)) for x in side for r in x.rounds) for side in (before, after))
    return [p for p in supported(min(samples)) if p in _COMPARED]


def _changes(
    before: Sequence[Lane], after: Sequence[Lane], test: _Test, seed: int, repeats: int
) -> Iterator[Change]:
    paired = list(pairs(before, after))
    if not paired:
        return
    percents = _percents(before, after)
    bootstrap = Bootstrap(paired, percents)
    old, new, found = _absolute(before, percents), _absolute(after, percents), bootstrap.ratios()
    draws = bootstrap.draws(repeats, seed) if bootstrap.enough else None
    name, unit = before[0].name, before[0].unit
    figures = [("throughput", f"{unit}s/s")] + [(f"latency p{p:g}", "ms") for p in percents]
    for number, (figure, measured_in) in enumerate(figures):
        value = float(found[number])
        ratio = Estimate(value, level=test.level)
        if draws is not None:
            low, high = interval(value, draws[:, number], len(bootstrap.blocks), test.level)
            ratio = Estimate(value, low / test.allowance, high * test.allowance, test.level)
        up_is = "faster" if figure == "throughput" else "slower"
        verdict = _verdict(ratio, test.threshold, up_is)
        yield Change(name, figure, measured_in, old[number], new[number], ratio, verdict)


def _verdict(ratio: Estimate, threshold: float, up_is: Literal["slower", "faster"]) -> Verdict:
    if ratio.low is None or ratio.high is None:
        return "cannot tell"
    least, most = 1 / (1 + threshold), 1 + threshold
    if ratio.low <= 1 <= ratio.high:
        within = least < ratio.low and ratio.high < most
        return "no real difference" if within else "cannot tell"
    if least < ratio.value < most:
        return "no real difference"
    if ratio.value > 1:
        return up_is
    return "faster" if up_is == "slower" else "slower"


def _absolute(lanes: Sequence[Lane], percents: Sequence[float]) -> list[float]:
    """The figures themselves: units per second, then percentiles in milliseconds."""
    rates = [rate for lane in lanes for rate in throughputs(lane.rounds, lane.units)]
    samples = np.array([x for lane in lanes for r in lane.rounds for x in latencies(r)])
    return [float(np.median(rates)), *(1e3 * percentiles(samples, percents))]


def _failing(before: Sequence[Lane], after: Sequence[Lane], chance: float) -> str | None:
    """Says so where more requests fail than before, and more than by chance."""

    def counts(lanes: Sequence[Lane]) -> tuple[int, int]:
        rounds = [r for lane in lanes for r in lane.rounds]
        failed = sum(len(r.failures) for r in rounds)
        return failed, sum(len(r.intended) for r in rounds) - failed

    old, new = counts(before), counts(after)
    test: Any = fisher_exact([new, old], alternative="greater")
    if test.pvalue >= chance:
        return None
    return (
        f"{before[0].name}: more requests fail, {new[0]} of {sum(new)} after and {old[0]} of "
        f"{sum(old)} before"
    )


def _about(
    before: Sequence[Record],
    after: Sequence[Record],
    matched: Sequence[tuple[Sequence[Lane], Sequence[Lane]]],
) -> Iterator[str]:
    records = (*before, *after)
    machines = {(r.machine.processor, r.machine.cores, r.machine.gpus) for r in records}
    if len(machines) > 1:
        yield "the runs come from different machines: a change may be the machine's"
    common = {_key(old[0]) for old, _ in matched}
    alone = sorted({x.name for r in records for x in r.lanes if _key(x) not in common})
    if alone:
        yield f"not in all runs, left out: {', '.join(alone)}"
    for old, new in matched:
        lanes = (*old, *new)
        if len({(x.weights, x.precision) for x in lanes}) > 1:
            yield f"{lanes[0].name}: weights or precision differ between the runs"
        a, b = old[0].deviation, new[0].deviation
        if a and b and b.differing * a.of > a.differing * b.of:
            yield (
                f"{lanes[0].name}: more decisions differ from {b.reference}, {b.differing} of "
                f"{b.of} after and {a.differing} of {a.of} before"
            )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rounds that are compared with each other: the same place in two runs.

    Attributes
    ----------
    run
        Number of the two runs, from 0.
    before, after
        Latencies in seconds.
    throughput
        Ratio of after to before.
    """

    run: int
    before: Samples
    after: Samples
    throughput: float


def pairs(before: Sequence[Lane], after: Sequence[Lane]) -> Iterator[Pair]:
    """Rounds in their order; rounds that the other run does not have are left out."""
    for run, (old, new) in enumerate(zip(before, after, strict=True)):
        for one, other in zip(old.rounds, new.rounds, strict=False):
            done, redone = throughputs([one], old.units)[0], throughputs([other], new.units)[0]
            if done > 0 and redone > 0:  # of a round that did nothing there is no ratio
                samples = np.array(latencies(one)), np.array(latencies(other))
                yield Pair(run, *samples, redone / done)


class Bootstrap:
    """Ratios of after to before, and how they vary from block to block.

    Attributes
    ----------
    blocks
        Places of pairs that are drawn together: whole runs where there are three or more, else up
        to `MOST_BLOCKS` stretches of consecutive rounds.
    """

    def __init__(self, paired: Sequence[Pair], percents: Sequence[float]) -> None:
        self._percents = percents
        self._before = Pool([p.before for p in paired])
        self._after = Pool([p.after for p in paired])
        self.blocks = _blocks(np.array([p.run for p in paired]))
        ratios = np.array([p.throughput for p in paired])
        self._throughput = np.array([np.median(ratios[block]) for block in self.blocks])

    @property
    def enough(self) -> bool:
        """Whether there are blocks enough for an interval."""
        return len(self.blocks) >= ROUNDS_NEEDED

    def ratios(self) -> Samples:
        """Of the throughput, then of each percentile."""
        return self._figures(self._throughput, self._before.values, self._after.values)

    def draws(self, repeats: int, seed: int) -> Samples:
        """The ratios of `repeats` draws: blocks, then samples within their rounds."""
        generator = np.random.default_rng(seed)
        found = []
        for chosen in generator.integers(len(self.blocks), size=(repeats, len(self.blocks))):
            rounds = np.concatenate([self.blocks[i] for i in chosen])
            old, new = (side.draw(rounds, generator) for side in (self._before, self._after))
            found.append(self._figures(self._throughput[chosen], old, new))
        return np.array(found)

    def _figures(self, throughput: Samples, before: Samples, after: Samples) -> Samples:
        old, new = (percentiles(side, self._percents) for side in (before, after))
        return np.array([np.median(throughput), *(new / old)])


def _blocks(runs: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Places of the pairs of each block; `runs` has the run of each pair."""
    numbers = np.unique(runs)
    if len(numbers) >= ROUNDS_NEEDED:
        return [np.flatnonzero(runs == number) for number in numbers]
    return np.array_split(np.arange(len(runs)), min(len(runs), MOST_BLOCKS))
