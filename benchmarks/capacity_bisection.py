"""Which rate to try next, and where the highest one that meets a bound lies: pure decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .capacity_rule import Verdict

FIRST = 0.7
"""Of the closed loop's throughput: the rate that is tried first."""

BEYOND = 1.5
"""How far above a rate that was thought to be the highest the next one lies, if it meets."""

FLOOR = 0.05
"""Of the closed loop's throughput: below it no rates are tried."""


DOUBT = 0.5
"""Of the stretch of undecided rates: gaps beside it need not be much narrower than it is itself."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A rate that was tried.

    Attributes
    ----------
    runs
        Of all of which the verdict is.
    """

    rate: float
    verdict: Verdict
    runs: int


@dataclass(frozen=True, slots=True)
class Limits:
    """When a bisection ends.

    Attributes
    ----------
    tolerance
        Width of the gap to be left between two rates, as a share of the higher one.
    runs
        At one rate at most, while it is undecided.
    edge
        At the highest rate that meets and at the lowest that misses, at least.
    most
        Of all rates together.
    """

    tolerance: float = 0.05
    runs: int = 3
    edge: int = 2
    most: int = 24


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the highest rate that meets the bound lies.

    Attributes
    ----------
    low
        The highest rate that meets it, below all that miss it; 0 where none does.
    high
        The lowest rate that misses it; None where none does.
    doubtful
        Rates between them that stayed undecided, ascending.
    """

    low: float
    high: float | None
    doubtful: tuple[float, ...] = ()


def interval(tried: Sequence[Tried]) -> Interval:
    """What the rates that were tried say.

    Where a slow spell made a rate miss the bound and a higher one met it, the lower one counts.
    """
    high = min((t.rate for t in tried if t.verdict == "misses"), default=None)
    below = [t for t in tried if high is None or t.rate < high]
    low = max((t.rate for t in below if t.verdict == "meets"), default=0.0)
    doubtful = sorted(t.rate for t in below if t.verdict == "undecided" and t.rate > low)
    return Interval(low, high, tuple(doubtful))


def next_rate(ceiling: float, tried: Sequence[Tried], limits: Limits) -> float | None:
    """The rate to run next; None when the interval is as narrow as wanted and its edges sure.

    Undecided rates are run again first. Then the widest gap is halved: below the rates that stay
    undecided, and above them. Then the edges are run again, the upper one even if it was only
    taken from the closed loop; where that changes a verdict, the bisection goes on.

    Parameters
    ----------
    ceiling
        Throughput of the closed loop per second, which the upper edge is taken to be at first.
    """
    if sum(t.runs for t in tried) >= limits.most:
        return None
    if not tried:
        return rounded(FIRST * ceiling)
    found, runs = interval(tried), {t.rate: t.runs for t in tried}
    again = [rate for rate in found.doubtful if runs[rate] < limits.runs]
    if again:
        return again[0]
    top = _top(ceiling, found)
    doubt = found.doubtful[-1] - found.doubtful[0] if found.doubtful else 0.0
    least = max(limits.tolerance * top, DOUBT * doubt)
    wide = [gap for gap in _gaps(found, top) if _is_wide(gap, ceiling, least)]
    for low, high in sorted(wide, key=lambda gap: gap[0] - gap[1]):
        middle = rounded((low + high) / 2)
        if middle not in runs:
            return middle
    if top not in runs:
        return top
    edges = [rate for rate in (found.low, found.high) if rate and runs[rate] < limits.edge]
    return edges[0] if edges else None


def rounded(rate: float) -> float:
    """Three digits: what a person would type."""
    return float(f"{rate:.3g}")


def _top(ceiling: float, found: Interval) -> float:
    if found.high is not None:
        return found.high
    known = max(found.low, *found.doubtful, 0.0) if found.doubtful else found.low
    return rounded(ceiling if known < ceiling * 0.999 else BEYOND * known)


def _gaps(found: Interval, top: float) -> Iterator[tuple[float, float]]:
    """Stretches in which nothing was tried, below and above the doubtful rates."""
    if not found.doubtful:
        yield found.low, top
        return
    yield found.low, found.doubtful[0]
    yield found.doubtful[-1], top


def _is_wide(gap: tuple[float, float], ceiling: float, least: float) -> bool:
    low, high = gap
    return high - low > (least if low else FLOOR * ceiling)


def ascending(tried: Sequence[Tried]) -> bool:
    """Whether every rate that meets the bound lies below all that do not."""
    others = min((t.rate for t in tried if t.verdict != "meets"), default=float("inf"))
    return all(t.rate < others for t in tried if t.verdict == "meets")
