"""`hilum bench capacity`: the highest arrival rate that meets a bound on latency.

The closed loop's throughput is the first upper edge of a bisection over open loops with Poisson
arrivals. A search over settings (instances, batching delay, transport, tasks at once, precision)
halves their number as it goes. Every trial is kept the moment it is finished.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..catalog.errors import InputError
from ..server.machine import cores, gpus
from .capacity_bisection import Limits
from .capacity_record import lanes, notes, rows
from .capacity_rule import Bound, duration, judge
from .capacity_runner import Runner, by_precision, fingerprints
from .capacity_search import (
    LENGTH,
    USUAL_LENGTH,
    Rule,
    candidates,
    check_samples,
    next_trial,
    ranked,
    state,
)
from .capacity_trials import Ask, Log, Setting, Trial
from .instrument.deployment import Choice, Progress
from .instrument.machine import machine
from .instrument.record import Machine, Record
from .instrument.record import write as write_record
from .instrument.where import where
from .instrument.workloads import Workload, workload
from .pages.page import write_page
from .pages.tables import markdown

DELAYS = (None, 1.0, 5.0)
"""Milliseconds, of networks that batch; as exported they do not wait."""

MOST_SETTINGS = 16
QUICK_SETTINGS = 6
"""Of a search; a grid that has more is thinned out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    seconds
        Of a run; None: as long as the percentile needs.
    search
        Try settings of server and client, not only the default one.
    repositories
        Served in turn, one for each precision; none: the networks are exported for the run.
    """

    system: str
    bound: Bound
    seconds: float | None = None
    quick: bool = False
    search: bool = False
    seed: int = 0
    repositories: Sequence[Path] = ()
    choice: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        if self.choice.url is not None and self.repositories:
            raise InputError("--url names a running server and --repository starts one; give one")
        if len(self.repositories) > 1 and not self.search:
            raise InputError("several repositories are for --search; without it, give one")

    @property
    def command(self) -> str:
        """The command line that measures the same, without addresses and folders."""
        words = [
            f"hilum bench capacity {self.system} --bound {duration(self.bound.seconds)}",
            f"--percentile {self.bound.percentile:g} --transport {self.choice.transport}",
        ]
        if self.seconds is not None:
            words.append(f"--seconds {self.seconds:g}")
        if self.choice.url is None and not self.repositories:
            words.append(f"--weights {self.choice.weights}")
        words += ["--search"] * self.search + ["--quick"] * self.quick
        return " ".join([*words, f"--seed {self.seed}"])

    def rule(self, workers: int) -> Rule:
        """How a setting is measured."""
        limits = Limits(tolerance=0.1, most=14) if self.quick else Limits()
        how: tuple[float, ...] = (30.0, 300.0, USUAL_LENGTH, 10.0)
        if self.quick:
            how = (10.0, 60.0, LENGTH, 4.0)
        return Rule(self.bound, workers, limits, self.seconds, *how, seed=self.seed)

    def settings(self, load: Workload, precisions: Sequence[str | None]) -> tuple[Setting, ...]:
        """The settings to be tried, the default first."""
        space = _space(load, self.choice, precisions) if self.search else {
            "transport": (self.choice.transport,), "precision": tuple(precisions[:1]),
        }  # fmt: skip
        return candidates(space, QUICK_SETTINGS if self.quick else MOST_SETTINGS, self.seed)


def measure(plan: Plan, folder: Path, progress: Progress, *, resume: bool = False) -> Record:
    """Search, keeping every trial in ``folder/trials.jsonl``.

    Parameters
    ----------
    resume
        Go on with the trials that the folder holds.

    Raises
    ------
    InputError
        For a plan that cannot be carried out, or a folder that holds other trials.
    RepositoryError, ServerError, ConnectionFailed
        When there is no server with the models.
    """
    before, load = machine(), workload(plan.system, quick=plan.quick)
    rule = plan.rule(load.workers)
    repositories = by_precision(plan.repositories, load)
    settings = plan.settings(load, list(repositories))
    log = Log(folder, _identity(plan, load, rule, settings, before), resume=resume)
    if log.trials:
        progress(f"{len(log.trials)} trials are finished already")
    seconds = 10.0 if plan.quick else 60.0
    with Runner(load, plan.bound, plan.choice, repositories, seconds, progress) as runner:
        try:
            carry_out(settings, log, rule, runner.make, progress)
        except KeyboardInterrupt:
            progress(f"{len(log.trials)} finished trials are in {log.path}; go on with --resume")
            raise
    return _record(plan, rule, settings, log, before)


Make = Callable[[Setting, Ask], Trial]


def carry_out(
    settings: Sequence[Setting], log: Log, rule: Rule, make: Make, progress: Progress
) -> None:
    """Make the trials that are left, keeping each.

    Raises
    ------
    InputError
        When the runs cannot bear the percentile, or every task fails.
    """
    while (ask := next_trial(settings, log.of, rule)) is not None:
        setting, wanted = ask
        if wanted.kind == "open" and setting == settings[0]:
            check_samples(state(log.of(setting), rule), rule)
        log.add(make(setting, wanted))
        progress(_told(log.trials[-1], log.of(setting), rule))


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md`` and the page with its figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    write_page(record, folder)
    return text


def _space(
    load: Workload, choice: Choice, precisions: Sequence[str | None]
) -> dict[str, Sequence[Any]]:
    """Values by field of a setting, the default's first; of a running server only the client's."""
    transports = ("auto", "grpc") if choice.transport == "auto" else (choice.transport,)
    space: dict[str, Sequence[Any]] = {
        "transport": transports,
        "workers": (None, max(2, load.workers // 8)),
    }
    if choice.url is not None:
        return space
    models = set(load.counted)
    batches = any(n.max_batch > 1 for n in load.declared.networks if n.model in models)
    most = 4 if gpus() else cores()
    powers = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return {
        **space,
        "instances": (None, *(powers[1:] if gpus() else powers)),
        "queue_delay_ms": DELAYS if batches else (None,),
        "precision": tuple(precisions),
    }


def _identity(
    plan: Plan, load: Workload, rule: Rule, settings: Sequence[Setting], found: Machine
) -> Mapping[str, Any]:
    """What must be the same for trials to be of one search."""
    return {
        "system": plan.system,
        "bound": str(plan.bound),
        "seconds": plan.seconds,
        "quick": plan.quick,
        "seed": plan.seed,
        "weights": plan.choice.weights,
        "networks": fingerprints(plan.repositories, load),
        "server": "running already" if plan.choice.url else "started for the run",
        "tolerance": rule.limits.tolerance,
        "settings": [str(s) for s in settings],
        "machine": f"{found.processor}, {found.cores} cores",
        "hilum_version": importlib.metadata.version("hilum"),
    }


def _told(trial: Trial, trials: Sequence[Trial], rule: Rule) -> str:
    """A line for whoever waits."""
    if trial.ask.kind != "open":
        found = state([trial], rule)
        alone = f", median {duration(float(f'{found.alone_s:.3g}'))}" * (trial.ask.kind == "alone")
        return f"{trial.ask}: {found.ceiling:.3g} per second{alone}"
    own = [t.round for t in trials if t.ask.kind == "open" and t.ask.offered == trial.ask.offered]
    now = judge(own, rule.bound)
    runs = f" in {len(own)} runs" if len(own) > 1 else ""
    return f"{trial.ask}: {now.missed} of {now.tasks} missed {rule.bound}{runs}: {now.verdict}"


def _record(
    plan: Plan, rule: Rule, settings: Sequence[Setting], log: Log, before: Machine
) -> Record:
    best = ranked(settings, log.of, rule)[0]
    drawn = tuple(lanes(plan.system, best, log.of(best)))
    capacity, trials = rows(settings, log.of, rule)
    load = workload(plan.system, quick=plan.quick)
    told = [f"Inputs are generated: {load.describe}."]
    if plan.quick:
        told.append("Quick setting: short runs, small studies, a wide interval.")
    return Record(
        kind="capacity",
        title=f"Capacity of {plan.system} for {plan.bound}",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=importlib.metadata.version("hilum"),
        machine=before,
        server=log.of(best)[0].served.server,
        lanes=drawn,
        tables={
            "capacity": tuple(capacity),
            "trials": tuple(trials),
            "where": tuple(where(lane) for lane in drawn),
        },
        notes=(*told, *notes(settings, log.of, rule)),
    )
