"""`hilum bench capacity`: the highest arrival rate that meets a bound on latency.

The closed loop's throughput is the first upper edge of a bisection over open loops with Poisson
arrivals. Every trial is kept the moment it is finished.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .capacity_bisection import Limits
from .capacity_record import lanes, notes, rows
from .capacity_rule import Bound, duration, judge
from .capacity_runner import Make, fingerprints, trials_on
from .capacity_search import LENGTH, USUAL_LENGTH, Rule, check_samples, next_ask, state
from .capacity_trials import Log
from .instrument.deployment import Choice, Progress
from .instrument.machine import machine
from .instrument.record import Machine, Record, new_record
from .instrument.where import where
from .instrument.workloads import Workload
from .systems import workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    seconds
        Of a run; None: as long as the percentile needs.
    """

    system: str
    bound: Bound
    seconds: float | None = None
    quick: bool = False
    seed: int = 0
    choice: Choice = field(default_factory=Choice)

    @property
    def command(self) -> str:
        """The command line that measures the same, without addresses and folders."""
        words = [
            f"hilum bench capacity {self.system} --bound {duration(self.bound.seconds)}",
            f"--percentile {self.bound.percentile:g} --transport {self.choice.transport}",
        ]
        if self.seconds is not None:
            words.append(f"--seconds {self.seconds:g}")
        if self.choice.url is None and self.choice.repository is None:
            words.append(f"--weights {self.choice.weights}")
        words += ["--quick"] * self.quick
        return " ".join([*words, f"--seed {self.seed}"])

    def rule(self, workers: int) -> Rule:
        """How it is measured."""
        limits = Limits(tolerance=0.1, most=14) if self.quick else Limits()
        how: tuple[float, ...] = (30.0, 300.0, USUAL_LENGTH, 10.0)
        if self.quick:
            how = (10.0, 60.0, LENGTH, 4.0)
        return Rule(self.bound, workers, limits, self.seconds, *how, seed=self.seed)


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
    log = Log(folder, _identity(plan, load, rule, before), resume=resume)
    if log.trials:
        progress(f"{len(log.trials)} trials are finished already")
    if not log.trials or next_ask(log.trials, rule) is not None:
        load = dataclasses.replace(load, make=functools.cache(load.make))
        seconds = 10.0 if plan.quick else 60.0
        try:
            with trials_on(plan.choice, load, plan.bound, seconds, progress) as make:
                carry_out(log, rule, make, progress)
        except KeyboardInterrupt:
            progress(f"{len(log.trials)} finished trials are in {log.path}; go on with --resume")
            raise
    return _record(plan, load, rule, log, before)


def carry_out(log: Log, rule: Rule, make: Make, progress: Progress) -> None:
    """Make the trials that are left, keeping each.

    Raises
    ------
    InputError
        When the runs cannot support the percentile, or every task fails.
    """
    while (ask := next_ask(log.trials, rule)) is not None:
        if ask.kind == "open":
            check_samples(state(log.trials, rule), rule)
        log.add(make(ask))
        progress(_line(log, rule))


def _identity(plan: Plan, load: Workload, rule: Rule, found: Machine) -> Mapping[str, Any]:
    """What must be the same for trials to be of one search."""
    return {
        "system": plan.system, "bound": str(plan.bound), "seconds": plan.seconds,
        "quick": plan.quick, "seed": plan.seed, "transport": plan.choice.transport,
        "weights": plan.choice.weights, "networks": fingerprints(plan.choice.repository, load),
        "server": "running already" if plan.choice.url else "started for the run",
        "tolerance": rule.limits.tolerance, "machine": f"{found.processor}, {found.cores} cores",
        "hilum_version": importlib.metadata.version("hilum"),
    }  # fmt: skip


def _line(log: Log, rule: Rule) -> str:
    """What the last trial found, for whoever waits."""
    trial = log.trials[-1]
    if trial.ask.kind != "open":
        found = state([trial], rule)
        alone = f", median {duration(float(f'{found.alone_s:.3g}'))}" * (trial.ask.kind == "alone")
        return f"{trial.ask}: {found.ceiling:.3g} per second{alone}"
    offered = trial.ask.offered
    own = [t.round for t in log.trials if t.ask.kind == "open" and t.ask.offered == offered]
    now = judge(own, rule.bound)
    runs = f" in {len(own)} runs" if len(own) > 1 else ""
    return f"{trial.ask}: {now.missed} of {now.tasks} missed {rule.bound}{runs}: {now.verdict}"


def _record(plan: Plan, load: Workload, rule: Rule, log: Log, before: Machine) -> Record:
    drawn = tuple(lanes(plan.system, log.trials))
    capacity, rates = rows(log.trials, rule)
    inputs = [f"Inputs are generated: {load.describe}."]
    if plan.quick:
        inputs.append("Quick setting: short runs, small studies, a wide interval.")
    return new_record(
        "capacity", f"Capacity of {plan.system} for {plan.bound}", plan.command, before,
        server=log.trials[0].served.server, lanes=drawn,
        tables={
            "capacity": (capacity,),
            "trials": tuple(rates),
            "where": tuple(where(lane) for lane in drawn),
        },
        notes=(*inputs, *notes(log.trials, rule)),
    )  # fmt: skip
