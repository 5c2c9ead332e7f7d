"""`hilum bench load`: a deployment under load, and where the time went.

Lanes of a closed loop (concurrency sweep) and of an open one (arrival rates, or a recorded file),
for each system or for mixed traffic of several, in interleaved rounds against one server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hilum.catalog.errors import InputError

from .instrument.arrivals import Recorded, fixed, poisson, replay
from .instrument.counters import Watch
from .instrument.deployment import Choice, Deployment, Progress, deployed
from .instrument.loops import WarmUp, Way, warmed
from .instrument.machine import machine
from .instrument.record import Arrivals, Record, new_record
from .instrument.subject import Subject, closed_way, open_way, subjects
from .instrument.variant import Variant
from .instrument.variant import measure as measure_variants
from .instrument.where import by_system, where
from .instrument.workloads import Workload
from .systems import workload

SHARE = 0.7
"""Of what the warm-up bore: the arrival rate of the open loop where none is given. A server that
is loaded more has queues that a run of this length does not separate from a growing one."""

LEAST_ARRIVALS = 5
"""Of a round of an open loop, on average: rounds at low rates are longer than others."""

LONGEST = 4.0
"""By how much, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    systems
        Each is loaded on its own; none with a mix.
    mix
        Shares of mixed traffic by system.
    concurrencies, rates
        Lanes of closed and open loops; where neither is given nor a replay, closed loops with
        `DEFAULT_CONCURRENCIES` and an open one at `SHARE` of what they sustain.
    replayed
        File of recorded arrivals.
    seconds
        Of a round: tasks start that long.
    """

    systems: Sequence[str] = ()
    mix: Mapping[str, float] = field(default_factory=dict)
    concurrencies: Sequence[int] = ()
    rates: Sequence[float] = ()
    arrivals: Literal["poisson", "fixed"] = "poisson"
    replayed: Path | None = None
    seconds: float = 30.0
    rounds: int = 5
    warm_up_seconds: float = 60.0
    quick: bool = False
    seed: int = 0
    choice: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        if bool(self.systems) == bool(self.mix):
            raise InputError("name systems, or a mix of them: hilum bench load cxr-severity")
        if self.arrivals not in ("poisson", "fixed"):
            raise InputError(f"no arrivals {self.arrivals!r}; choose poisson or fixed")
        if self.seconds <= 0 or self.rounds < 1 or min(self.rates, default=1.0) <= 0:
            raise InputError("a load needs seconds and rates above 0 and at least one round")

    @property
    def command(self) -> str:
        """The command line that measures the same, without addresses and folders."""
        words = ["hilum bench load", *self.systems]
        if self.mix:
            words.append("--mix " + ",".join(f"{n}={share:g}" for n, share in self.mix.items()))
        words += [f"--concurrency {c}" for c in self.concurrencies]
        words += [f"--rate {rate:g}" for rate in self.rates]
        if self.replayed is not None:
            words.append("--replay FILE")
        words.append(f"--arrivals {self.arrivals} --transport {self.choice.transport}")
        words.append(f"--seconds {self.seconds:g} --rounds {self.rounds}")
        if self.choice.url is None:
            words.append(f"--weights {self.choice.weights}")
        return " ".join([*words, *(["--quick"] if self.quick else [])])

    @property
    def default_loops(self) -> bool:
        """Whether nothing is said about the loops."""
        return not (self.concurrencies or self.rates or self.replayed)


DEFAULT_CONCURRENCIES = (1, 4)


def setting(*, quick: bool, seconds: float | None, rounds: int | None) -> dict[str, Any]:
    """Fields of a plan: as given, else the usual ones, or quick ones for two cores."""
    usual = (8.0, 3, 10.0) if quick else (30.0, 5, 60.0)
    given = (seconds, rounds, None)
    names = ("seconds", "rounds", "warm_up_seconds")
    return {n: u if g is None else g for n, u, g in zip(names, usual, given, strict=True)}


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says.

    Raises
    ------
    InputError
        For a plan that cannot be carried out.
    RepositoryError, ServerError, ConnectionFailed
        When there is no server with the models.
    """
    before = machine()
    recorded = None if plan.replayed is None else replay(plan.replayed)
    names = list(plan.mix or dict.fromkeys(plan.systems))
    loads = [workload(name, quick=plan.quick) for name in names]
    _check_recorded(recorded, plan)
    with deployed(plan.choice, loads, progress) as there:
        found = subjects(loads, plan.mix, there, progress)
        models = tuple(dict.fromkeys(m for load in loads for m in load.counted))
        watch = Watch(there.client, models, there.metrics_url)
        how = _How(plan, recorded, there, watch)
        variants = [v for s in found for v in _variants(how, s, progress)]
        lanes = measure_variants(variants, plan.rounds, progress)
        tables = {
            "where": tuple(where(lane) for lane in lanes),
            "by_system": tuple(row for lane in lanes for row in by_system(lane)),
            "server_metrics": tuple(watch.gauges()),
        }
    return new_record(
        "load", f"{' and '.join(s.name for s in found)} under load", plan.command, before,
        server=there.server, lanes=lanes,
        tables={name: rows for name, rows in tables.items() if rows}, notes=_notes(plan, loads),
    )  # fmt: skip


def _check_recorded(recorded: Recorded | None, plan: Plan) -> None:
    named = set() if recorded is None else set(recorded.systems)
    if named and (named - set(plan.mix or plan.systems) or len(plan.systems) > 1):
        raise InputError(
            f"the recorded arrivals name {', '.join(sorted(named))}; give these systems, with "
            "--mix when there are several"
        )


@dataclass(slots=True)
class _Warmth:
    """Warms a subject up once for each concurrency, and keeps what that took."""

    subject: Subject
    plan: Plan
    progress: Progress
    found: dict[int, WarmUp] = field(default_factory=dict)

    def at(self, concurrency: int) -> tuple[WarmUp, int]:
        """What the warm-up took; its tasks belong to the first that asks, others get 0."""
        if concurrency in self.found:
            return self.found[concurrency], 0
        self.progress(f"warm-up: {self.subject.name}, {concurrency} at once")
        task, _ = self.subject.turn(self.plan.seed)
        found = warmed(task, concurrency=concurrency, most_seconds=self.plan.warm_up_seconds)
        self.found[concurrency] = found
        return found, found.tasks

    @property
    def most(self) -> float:
        """Tasks per second of the fastest."""
        return max(found.per_second for found in self.found.values())


@dataclass(frozen=True, slots=True)
class _How:
    """What the variants of all subjects have in common."""

    plan: Plan
    recorded: Recorded | None
    there: Deployment
    watch: Watch


def _variants(how: _How, subject: Subject, progress: Progress) -> Iterator[Variant]:
    """The loads of a subject, each warmed up."""
    plan, recorded = how.plan, how.recorded
    warmth = _Warmth(subject, plan, progress)
    for c in plan.concurrencies or (DEFAULT_CONCURRENCIES if plan.default_loops else ()):
        way = closed_way(subject, c, plan.seconds, plan.seed)
        name = f"{subject.name}, closed loop, {c} in flight"
        yield _variant(how, subject, name, way, warmth.at(c), concurrency=c)
    if recorded is None and not plan.rates and not plan.default_loops:
        return
    most = min(max((*warmth.found, *DEFAULT_CONCURRENCIES)), subject.workers)
    warm, rates, notes = warmth.at(most), tuple(plan.rates), ()
    if plan.default_loops:
        rates = (float(f"{SHARE * warmth.most:.2g}"),)
        notes = (f"the rate is {SHARE:.0%} of what the server did in the warm-up",)
    for rate in rates:
        way = open_way(subject, _schedule(plan, rate), plan.seed)
        name = f"{subject.name}, open loop, {plan.arrivals}, {rate:g}/s"
        yield _variant(
            how, subject, name, way, warm, arrivals=plan.arrivals, rate=rate, notes=notes
        )
        warm = warmth.at(most)
    if recorded is not None:
        way = open_way(subject, lambda _: recorded.seconds, plan.seed, recorded.systems)
        name = f"{subject.name}, open loop, replayed"
        yield _variant(how, subject, name, way, warm, arrivals="replay", rate=recorded.rate)


def _schedule(plan: Plan, rate: float) -> Callable[[int], tuple[float, ...]]:
    seconds = max(plan.seconds, min(LEAST_ARRIVALS / rate, LONGEST * plan.seconds))
    if plan.arrivals == "fixed":
        return lambda _: fixed(rate, seconds)
    return lambda number: poisson(rate, seconds, plan.seed + number)


def _variant(
    how: _How,
    subject: Subject,
    name: str,
    way: Way,
    warm: tuple[WarmUp, int],
    *,
    concurrency: int | None = None,
    arrivals: Arrivals | None = None,
    rate: float | None = None,
    notes: tuple[str, ...] = (),
) -> Variant:
    plan, moved = how.plan, subject.moved
    found, tasks = warm
    if tasks:
        notes = (*notes, f"tasks of warm-up, left out: {tasks}")
    if not found.steady:
        notes = (
            *notes,
            f"latencies were not steady by the rule MSER-5 after {found.seconds:.0f} s of warm-up",
        )
    return Variant(
        name=name, systems=subject.shares, way=way, loop="closed" if arrivals is None else "open",
        unit=subject.unit, units=subject.units, concurrency=concurrency or subject.workers,
        transport=how.there.client.transport or "grpc", weights=how.there.weights,
        precision=how.there.precision, rate=rate, arrivals=arrivals,
        seed=plan.seed if arrivals == "poisson" or plan.mix else None,
        sent_bytes=moved and moved.sent_bytes, received_bytes=moved and moved.received_bytes,
        notes=notes, warm_up=tasks, watch=how.watch,
    )  # fmt: skip


def _notes(plan: Plan, loads: Sequence[Workload]) -> tuple[str, ...]:
    notes = [f"Inputs are generated: {', '.join(load.describe for load in loads)}."]
    if plan.quick:
        notes.append("Quick setting: short rounds, small studies.")
    return tuple(notes)
