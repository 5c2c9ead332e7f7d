"""`hilum bench load`: a deployment under load, and where the time went.

Lanes of a closed loop (concurrency sweep) and of an open one (arrival rates, or a recorded file),
for each system or for mixed traffic of several, in interleaved rounds against one server.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..catalog.errors import InputError
from .instrument.arrivals import Recorded, fixed, poisson, replay
from .instrument.counters import Watch
from .instrument.deployment import Choice, Deployment, Progress, deployed
from .instrument.loops import WarmUp, Way, interleave, warmed
from .instrument.machine import machine
from .instrument.record import Arrivals, Lane, Record, Round
from .instrument.record import write as write_record
from .instrument.statistics import summarise
from .instrument.subject import Subject, closed_way, open_way, subjects
from .instrument.where import by_system, where
from .instrument.workloads import Workload, workload
from .pages.page import write_page
from .pages.tables import markdown

SHARE = 0.7
"""Of what the warm-up bore: the arrival rate of the open loop where none is given. A server that
is loaded more has queues that a run of this length does not tell from a growing one."""

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
        `DEFAULT_CONCURRENCIES` and an open one at `SHARE` of what they bear.
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


@dataclass(frozen=True, slots=True)
class Drive:
    """One lane before it is measured."""

    name: str
    subject: Subject
    concurrency: int
    way: Way
    warm_up: WarmUp
    arrivals: Arrivals | None = None
    rate: float | None = None
    notes: tuple[str, ...] = ()


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
        drives = [d for s in found for d in _drives(plan, s, recorded, progress)]
        models = tuple(dict.fromkeys(m for load in loads for m in load.counted))
        watch = Watch(there.client, models, there.metrics_url)
        ways = {d.name: watch.over(d.name, d.way) for d in drives}
        measured = interleave(ways, plan.rounds, progress)
        lanes = tuple(_lane(plan, d, measured[d.name], watch, there) for d in drives)
        tables = {
            "where": tuple(where(lane) for lane in lanes),
            "by_system": tuple(row for lane in lanes for row in by_system(lane)),
            "server_metrics": tuple(watch.gauges()),
        }
    return Record(
        kind="load",
        title=f"{' and '.join(s.name for s in found)} under load",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=importlib.metadata.version("hilum"),
        machine=before,
        server=there.server,
        lanes=lanes,
        tables={name: rows for name, rows in tables.items() if rows},
        notes=_notes(plan, loads),
    )


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md`` and the page with its figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    write_page(record, folder)
    return text


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

    def at(self, concurrency: int) -> WarmUp:
        """What the warm-up took; no tasks for any but the first to ask, whose they are."""
        if concurrency in self.found:
            return dataclasses.replace(self.found[concurrency], tasks=0)
        self.progress(f"warm-up: {self.subject.name}, {concurrency} in work")
        task, _ = self.subject.turn(self.plan.seed)
        self.found[concurrency] = warmed(
            task, concurrency=concurrency, most_seconds=self.plan.warm_up_seconds
        )
        return self.found[concurrency]

    @property
    def borne(self) -> float:
        """Tasks per second of the fastest."""
        return max(found.per_second for found in self.found.values())


def _drives(
    plan: Plan, subject: Subject, recorded: Recorded | None, progress: Progress
) -> Iterator[Drive]:
    """The lanes of a subject, each warmed up."""
    warmth = _Warmth(subject, plan, progress)
    for c in plan.concurrencies or (DEFAULT_CONCURRENCIES if plan.default_loops else ()):
        way = closed_way(subject, c, plan.seconds, plan.seed)
        yield Drive(f"{subject.name}, closed loop, {c} in work", subject, c, way, warmth.at(c))
    if recorded is None and not plan.rates and not plan.default_loops:
        return
    most = min(max((*warmth.found, *DEFAULT_CONCURRENCIES)), subject.workers)
    warm, rates, notes = warmth.at(most), tuple(plan.rates), ()
    if plan.default_loops:
        rates = (float(f"{SHARE * warmth.borne:.2g}"),)
        notes = (f"the rate is {SHARE:.0%} of what the server bore in the warm-up",)
    for rate in rates:
        way = open_way(subject, _schedule(plan, rate), plan.seed)
        name = f"{subject.name}, open loop, {plan.arrivals}, {rate:g}/s"
        yield Drive(name, subject, subject.workers, way, warm, plan.arrivals, rate, notes)
        warm = warmth.at(most)
    if recorded is not None:
        way = open_way(subject, lambda _: recorded.seconds, plan.seed, recorded.systems)
        name = f"{subject.name}, open loop, replayed"
        yield Drive(name, subject, subject.workers, way, warm, "replay", recorded.rate)


def _schedule(plan: Plan, rate: float) -> Callable[[int], tuple[float, ...]]:
    seconds = max(plan.seconds, min(LEAST_ARRIVALS / rate, LONGEST * plan.seconds))
    if plan.arrivals == "fixed":
        return lambda _: fixed(rate, seconds)
    return lambda number: poisson(rate, seconds, plan.seed + number)


def _lane(
    plan: Plan, drive: Drive, rounds: tuple[Round, ...], watch: Watch, there: Deployment
) -> Lane:
    subject, notes = drive.subject, list(drive.notes)
    first = dataclasses.replace(rounds[0], warm_up=drive.warm_up.tasks)
    rounds = (first, *rounds[1:])
    if drive.warm_up.tasks:
        notes.append(f"tasks of warm-up, left out: {drive.warm_up.tasks}")
    if not drive.warm_up.steady:
        notes.append(
            f"latencies were not steady by the rule MSER-5 after {drive.warm_up.seconds:.0f} s of "
            "warm-up"
        )
    if restarts := watch.restarts_of(drive.name):
        notes.append(
            f"in {restarts} of {len(rounds)} rounds the server was restarted or did not tell its "
            "counts; these rounds are not in the server's counts"
        )
    bytes_ = subject.moved
    return Lane(
        name=drive.name,
        systems=subject.shares,
        loop="closed" if drive.arrivals is None else "open",
        unit=subject.unit,
        units=subject.units,
        concurrency=drive.concurrency,
        transport=there.client.transport or "grpc",
        weights=there.weights,
        precision=there.precision,
        rounds=rounds,
        summary=summarise(rounds, subject.units),
        rate=drive.rate,
        arrivals=drive.arrivals,
        seed=plan.seed if drive.arrivals == "poisson" or plan.mix else None,
        sent_bytes=bytes_ and bytes_.sent_bytes,
        received_bytes=bytes_ and bytes_.received_bytes,
        counters=watch.counts_of(drive.name),
        notes=tuple(notes),
    )


def _notes(plan: Plan, loads: Sequence[Workload]) -> tuple[str, ...]:
    notes = [f"Inputs are generated: {', '.join(load.describe for load in loads)}."]
    if plan.quick:
        notes.append("Quick setting: short rounds, small studies.")
    return tuple(notes)
