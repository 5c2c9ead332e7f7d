"""When a rate meets a bound on latency: the rule of `hilum bench capacity`, and its statistics."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betaincinv

from hilum.catalog.errors import InputError

from .instrument.loops import NOT_STARTED
from .instrument.record import Round
from .instrument.statistics import SAMPLES_NEEDED, percentile

Verdict = Literal["meets", "misses", "undecided"]

LEAD_IN = 0.1
"""Share of a run, at its front, that is sent and not judged: the queue begins empty, which the
queue of a deployment does not."""

LEVEL = 0.95
"""Of the one-sided bounds of the share of tasks that miss."""

APART = 5
"""Misses with fewer tasks than these between them are of one busy spell, and count as one event."""

OVERLOAD = 0.5
"""Share of tasks: when more miss, and more than twice as many as may, that is no single event by
chance, even if it is a single busy spell."""

_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0}


@dataclass(frozen=True, slots=True)
class Bound:
    """What users accept: so many of a hundred tasks within so many seconds.

    Raises
    ------
    InputError
        For a percentile that the instrument does not give, or a time that is not above 0.
    """

    seconds: float
    percentile: float = 99.0

    def __post_init__(self) -> None:
        if self.percentile not in SAMPLES_NEEDED:
            known = ", ".join(f"{p:g}" for p in SAMPLES_NEEDED)
            raise InputError(f"no percentile {self.percentile:g}; choose one of {known}")
        if not 0 < self.seconds < math.inf:
            raise InputError(f"a bound of {self.seconds:g} s; give one above 0")

    @property
    def allowed(self) -> float:
        """Share of tasks that may take longer."""
        return 1 - self.percentile / 100

    @property
    def needed(self) -> int:
        """Samples that support the percentile."""
        return SAMPLES_NEEDED[self.percentile]

    def __str__(self) -> str:
        return f"p{self.percentile:g} ≤ {duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What runs at one rate say of a bound.

    Attributes
    ----------
    tasks, missed
        That were judged, and that took longer than the bound or failed.
    events
        Busy spells that the misses fell into.
    share_low, share_high
        One-sided bounds of the share that misses.
    latency_s
        The bound's percentile; None where so many failed that it is one of those.
    """

    verdict: Verdict
    tasks: int
    missed: int
    events: int
    share_low: float
    share_high: float
    latency_s: float | None
    given_up: bool = False


def parse_duration(text: str) -> float:
    """Seconds of ``500ms``, ``2s`` or ``5min``.

    Raises
    ------
    InputError
        For anything else, a time without a unit included.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|min)\s*", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise InputError(f"{text!r} is no time above 0 with a unit; write 500ms, 2s or 5min")
    return seconds


def duration(seconds: float) -> str:
    """A time as `parse_duration` reads it."""
    return f"{seconds:g}s" if seconds >= 1 else f"{1e3 * seconds:g}ms"


def judge(rounds: Sequence[Round], bound: Bound) -> Judgement:
    """Whether the runs at one rate, taken together, meet the bound.

    A failure is a miss. Misses come in busy spells, in which tasks wait for the same cause, so
    they are no independent events: the share that misses is estimated as that of `events` among
    so many tasks as make the same share (the runs estimator of the extremal index; Smith and
    Weissman, J. R. Statist. Soc. B 56, 1994), with Clopper's and Pearson's exact bounds. The rate
    meets the bound when the upper one is at most what the percentile allows, misses it when the
    lower one is above, and else is undecided. A backlog that was given up misses,
    and so does an `OVERLOAD`.
    """
    own = [_judged(r, bound) for r in rounds]
    missed = sum(sum(m) for m, _ in own)
    tasks = sum(len(m) for m, _ in own)
    events = sum(_events(m) for m, _ in own)
    low, high = _share(events, missed, tasks)
    given_up = any(NOT_STARTED in r.failures.values() for r in rounds)
    verdict: Verdict = "undecided"
    overloaded = missed > max(OVERLOAD, 2 * bound.allowed) * tasks
    if given_up or overloaded or low > bound.allowed:
        verdict = "misses"
    elif high <= bound.allowed:
        verdict = "meets"
    found = percentile([x for _, times in own for x in times], bound.percentile) if tasks else None
    latency = found if found is not None and math.isfinite(found) else None
    return Judgement(verdict, tasks, missed, events, low, high, latency, given_up)


def _judged(found: Round, bound: Bound) -> tuple[list[bool], list[float]]:
    """Of each task after the lead-in whether it missed, and its latency: endless of a failure."""
    start = LEAD_IN * (found.intended[-1] if found.intended else 0.0)
    times = [
        math.inf if n in found.failures else end - due
        for n, (due, end) in enumerate(zip(found.intended, found.finished, strict=True))
        if due >= start
    ]
    return [t > bound.seconds for t in times], times


def _events(missed: Sequence[bool]) -> int:
    places = np.flatnonzero(missed)
    return 0 if not len(places) else 1 + int((np.diff(places) > APART).sum())


def _share(events: int, missed: int, tasks: int) -> tuple[float, float]:
    """One-sided bounds of the share that misses."""
    if not tasks:
        return 0.0, 1.0
    effective = tasks * events / missed if missed else float(tasks)
    low = float(betaincinv(events, effective - events + 1, 1 - LEVEL)) if events else 0.0
    full = effective <= events
    high = 1.0 if full else float(betaincinv(events + 1, effective - events, LEVEL))
    return low, high


def supported(samples: float) -> float:
    """The highest percentile that so many samples support; 0 for none."""
    return max((p for p, needed in SAMPLES_NEEDED.items() if samples >= needed), default=0.0)
