"""What is measured next: closed loops, then open ones by bisection.

All of it follows from the trials that are finished, so a run that was interrupted goes on as if
nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hilum.catalog.errors import InputError

from .capacity_bisection import Interval, Limits, Tried, interval, next_rate
from .capacity_rule import LEAD_IN, Bound, Judgement, judge, supported
from .capacity_trials import Ask, Trial
from .instrument.statistics import SAMPLES_NEEDED, latencies, percentile, throughputs

LENGTH = 20.0
"""Times the bound: the least length of a run. Shorter ones end before the queue of a rate that is
5 % above what the deployment sustains makes every twentieth task wait longer than the bound."""

USUAL_LENGTH = 60.0
"""Times the bound, where the length is not given. Queues near the limit take long to fill, so short
runs flatter: of M/D/1, p90 within ten service times, they find up to 17 % too much at 20."""

SAMPLES = 2
"""Of a run, times what the percentile needs, where its length is not given: ten are then expected
to miss at the highest rate, and half as many make it sure in a run or two."""

GAIN = 1.05
"""By how much more tasks at once must raise the closed loop's throughput for still more."""

ALONE_TASKS = 20

ALONE_LEAST = 3
"""Tasks, however long they take: one may be slow by chance."""

ALONE_SECONDS = 3600.0

CLOSED_TASKS = 5
"""Of a closed loop, times what one task takes: its least length."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a deployment is measured.

    Attributes
    ----------
    seconds
        Of an open loop; None: what the percentile needs, between `least_seconds` and
        `most_seconds`, and at least `times_bound` times the bound.
    closed_seconds
        Of a closed loop.
    workers
        Tasks at once at most.
    """

    bound: Bound
    workers: int
    limits: Limits = field(default_factory=Limits)
    seconds: float | None = None
    least_seconds: float = 30.0
    most_seconds: float = 300.0
    times_bound: float = USUAL_LENGTH
    closed_seconds: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = LENGTH * self.bound.seconds
        if self.seconds is not None and self.seconds < least:
            raise InputError(
                f"runs of {self.seconds:g} s are too short for a bound of {self.bound.seconds:g} "
                f"s: an overload would not show; give --seconds {least:g} or more"
            )

    def length(self, rate: float) -> float:
        """Seconds of a run at a rate."""
        if self.seconds is not None:
            return self.seconds
        needed = SAMPLES * self.bound.needed / rate / (1 - LEAD_IN)
        longest = min(max(needed, self.least_seconds), self.most_seconds)
        return float(math.ceil(max(longest, self.times_bound * self.bound.seconds)))


@dataclass(frozen=True, slots=True)
class State:
    """What the trials say.

    Attributes
    ----------
    alone_s
        Median latency of a task that is alone.
    ceiling
        Tasks per second of the closed loop, at the concurrency that did most.
    judged
        By rate.
    """

    alone_s: float
    ceiling: float
    tried: tuple[Tried, ...]
    judged: Mapping[float, Judgement]

    @property
    def interval(self) -> Interval:
        """Where the capacity lies."""
        return interval(self.tried)


def state(trials: Sequence[Trial], rule: Rule) -> State:
    """What the trials say."""
    closed = [t for t in trials if t.ask.kind != "open"]
    alone = [x for t in closed if t.ask.kind == "alone" for x in latencies(t.round)]
    by_rate: dict[float, list[Trial]] = {}
    for t in trials:
        if t.ask.kind == "open":
            by_rate.setdefault(t.ask.offered, []).append(t)
    judged = {r: judge([t.round for t in own], rule.bound) for r, own in by_rate.items()}
    tried = tuple(Tried(r, j.verdict, len(by_rate[r])) for r, j in judged.items())
    ceiling = max(throughputs([t.round for t in closed], 1), default=0.0)
    return State(percentile(alone, 50) if alone else math.inf, ceiling, tried, judged)


def next_ask(trials: Sequence[Trial], rule: Rule) -> Ask | None:
    """The next trial; None when the capacity is found, or the bound is out of reach.

    One task at a time, then more and more at once while that raises the throughput, then open
    loops by bisection.

    Raises
    ------
    InputError
        When every task that was alone failed.
    """
    if not trials:
        return Ask("alone", 1, rule.closed_seconds, tasks=ALONE_TASKS)
    missing = ALONE_LEAST - sum(len(t.round.intended) for t in trials if t.ask.kind == "alone")
    if missing > 0:
        return Ask("alone", 1, ALONE_SECONDS, tasks=missing)
    found = state(trials, rule)
    if found.alone_s == math.inf:
        reasons = ", ".join(sorted(set(trials[0].round.failures.values())))
        raise InputError(f"every task failed even alone ({reasons}); look at the server first")
    if found.alone_s > rule.bound.seconds:
        return None
    if (ask := _next_closed(trials, rule, found.alone_s)) is not None:
        return ask
    done = sum(t.ask.kind == "open" for t in trials)
    rate = next_rate(found.ceiling, found.tried, rule.limits)
    return None if rate is None else Ask("open", rate, rule.length(rate), rule.seed + done)


def _next_closed(trials: Sequence[Trial], rule: Rule, alone_s: float) -> Ask | None:
    closed = [t for t in trials if t.ask.kind != "open"]
    done = throughputs([t.round for t in closed], 1)
    concurrency = int(2 * closed[-1].ask.offered)
    if concurrency > rule.workers or (len(done) > 1 and done[-1] < GAIN * max(done[:-1])):
        return None
    return Ask("closed", concurrency, max(rule.closed_seconds, CLOSED_TASKS * alone_s))


def check_samples(found: State, rule: Rule) -> None:
    """Refuse a search whose runs are too short for the percentile.

    Raises
    ------
    InputError
        Names the seconds that are needed, and the percentile that the runs do support.
    """
    runs, bound = rule.limits.runs, rule.bound
    each = (1 - LEAD_IN) * rule.length(found.ceiling) * found.ceiling
    if runs * each >= bound.needed:
        return
    seconds = math.ceil(bound.needed / found.ceiling / (1 - LEAD_IN) / runs)
    fits = supported(runs * each)
    lower = [p for p in sorted(SAMPLES_NEEDED, reverse=True) if p < bound.percentile and p <= fits]
    instead = f", or --percentile {lower[0]:g}, which these runs support" if lower else ""
    raise InputError(
        f"p{bound.percentile:g} needs {bound.needed} samples; {runs} runs of "
        f"{rule.length(found.ceiling):g} s have {runs * each:.0f} at the {found.ceiling:.3g} "
        f"tasks per second that a closed loop does. Give --seconds {seconds}{instead}"
    )
