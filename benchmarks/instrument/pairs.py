"""Rounds of two builds in pairs, and the ratio of their figures with a bootstrap over blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .record import Lane
from .statistics import ROUNDS_NEEDED, Pool, latencies, percentiles, throughputs

Samples = NDArray[np.float64]

MOST_BLOCKS = 10
"""Into which the rounds of single runs are joined. A machine stays slow or fast for seconds, as
when another process moved to the same core, so that rounds next to each other are alike; blocks of
them are long enough to be independent."""


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
