"""How much of a run's work was done at the same time, from the spans of its trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]
"""Start and end of a span."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shares of the time in which studies ran.

    Attributes
    ----------
    seconds
        That time.
    waiting
        A request was under way.
    requests
        Requests under way at once, on average over that time.
    working
        The client was at work itself.
    hidden
        Share of the client's own work that was done while a request was under way.
    idle
        Neither.
    """

    seconds: float
    waiting: float
    requests: float
    working: float
    hidden: float
    idle: float

    @classmethod
    def of(
        cls, studies: Iterable[Interval], waits: Sequence[Interval], work: Iterable[Interval]
    ) -> Overlap:
        """From the spans of studies, of waiting for answers, and of the client's own work."""
        total = length(union(studies))
        waiting, working = union(waits), union(work)
        apart = length(union([*waiting, *working]))
        both = length(waiting) + length(working) - apart
        return cls(
            total,
            _share(length(waiting), total),
            _share(length(waits), total),
            _share(length(working), total),
            _share(both, length(working)),
            max(0.0, 1 - _share(apart, total)) if total else 0.0,
        )

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s; requests under way {self.waiting:.0%} of it, "
            f"{self.requests:.1f} at once on average; the client at work {self.working:.0%}, "
            f"{self.hidden:.0%} of that while requests were under way; neither {self.idle:.0%}"
        )


def union(spans: Iterable[Interval]) -> list[Interval]:
    """The same time in spans that do not touch, in order."""
    found: list[Interval] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def length(spans: Iterable[Interval]) -> float:
    """Sum of lengths."""
    return sum(end - start for start, end in spans)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
