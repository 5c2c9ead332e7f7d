"""`hilum bench scale`: throughput against instances and servers, and a model that predicts more.

All deployments run at once and are measured in turns, so that a slow spell of the machine meets
all of them alike. A server has the same cores however many there are.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..catalog.errors import InputError
from ..server.machine import gpus
from . import haproxy
from .instrument.deployment import Choice, Deployment, Progress, described
from .instrument.machine import machine
from .instrument.record import Lane, Record
from .instrument.statistics import summarise
from .instrument.where import where
from .instrument.workloads import Moved, Workload, moved, workload
from .scale_fleet import WORDS, Balance, Places, fleets, places
from .scale_runs import Run, drive
from .scale_tables import evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    instances
        Of one server, each measured; the smallest is that of several servers.
    balances
        Ways to share requests out; the model is fitted to the first.
    predict
        Numbers of servers whose throughput is told without measuring it.
    seconds
        Of a round: tasks start that long.
    """

    system: str
    instances: Sequence[int] = (1, 2, 4)
    servers: Sequence[int] = (1, 2)
    balances: Sequence[Balance] = ("round-robin",)
    predict: Sequence[int] = (8,)
    seconds: float = 10.0
    rounds: int = 5
    warm_up_seconds: float = 30.0
    quick: bool = False
    choice: Choice = field(default_factory=lambda: Choice(transport="grpc"))

    def __post_init__(self) -> None:
        counts = (*self.instances, *self.servers, *self.predict)
        if not self.instances or not self.servers or min(counts) < 1:
            raise InputError("instances and servers are counts from 1: --servers 1,2")
        if unknown := [b for b in self.balances if b not in WORDS]:
            raise InputError(f"no balancing {unknown[0]!r}; choose round-robin or haproxy")
        if self.seconds <= 0 or self.rounds < 1:
            raise InputError("scaling needs seconds above 0 and at least one round")
        if self.choice.url is not None:
            raise InputError("servers are started for this benchmark; leave --url out")
        if "haproxy" in self.balances and self.choice.transport == "shm":
            raise InputError("shared memory is of one server; with haproxy use --transport grpc")

    @property
    def deployments(self) -> list[tuple[int, int]]:
        """Servers and instances of each, without repetition: one of each first."""
        least = min(self.instances)
        found = [(1, i) for i in sorted(self.instances)] + [(s, least) for s in self.servers]
        return list(dict.fromkeys(((1, least), *found)))

    @property
    def command(self) -> str:
        """The command line that measures the same, without folders."""
        words = [f"hilum bench scale {self.system}"]
        words.append(f"--instances {_listed(self.instances)} --servers {_listed(self.servers)}")
        words += [f"--balance {balance}" for balance in self.balances]
        words.append(f"--transport {self.choice.transport} --weights {self.choice.weights}")
        words.append(f"--seconds {self.seconds:g} --rounds {self.rounds}")
        words.append(f"--predict {_listed(self.predict)}")
        return " ".join([*words, *(["--quick"] if self.quick else [])])


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says, and fit the model.

    Raises
    ------
    InputError
        For a plan that cannot be carried out.
    RepositoryError, ServerError
        When the servers cannot be started.
    """
    from .runs import exported_all  # brings PyTorch

    balances, lacks = _possible(plan.balances)
    before = machine()
    load = workload(plan.system, quick=plan.quick)
    there = places(max(plan.servers), frozenset(os.sched_getaffinity(0)), gpus())
    wanted = [(load.declared, load.networks)]
    with exported_all(wanted, plan.choice.repository, plan.choice.weights, progress) as folder:
        progress("start the servers")
        with fleets(
            folder, load.models, plan.deployments, balances, plan.choice.transport, there
        ) as ready:
            studies = load.make()
            tasks = [(f, load.task(f.client, studies)) for f in ready]
            own = moved(ready[0].each[0], load, studies[0])
            runs = drive(
                tasks, models=load.counted, seconds=plan.seconds, rounds=plan.rounds,
                warm_up_seconds=plan.warm_up_seconds, progress=progress,
            )  # fmt: skip
            told = described(ready[0].each[0], None, [load], "started for the run")
    lanes = tuple(_lane(run, told, load, own) for run in runs)
    tables, notes = evaluate(runs, balances, plan.predict, load.units)
    return Record(
        kind="scale",
        title=f"{plan.system}: what more instances and servers bring",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=importlib.metadata.version("hilum"),
        machine=before,
        server=told.server,
        lanes=lanes,
        tables={**tables, "where": tuple(where(lane) for lane in lanes)},
        notes=(f"Inputs are generated: {load.describe}.", _placed(there), *lacks, *notes),
    )


def _possible(wanted: Sequence[Balance]) -> tuple[list[Balance], list[str]]:
    """The balancers that are there, and what is to be said of others."""
    if "haproxy" not in wanted or haproxy.installed():
        return list(wanted), []
    rest: list[Balance] = [balance for balance in wanted if balance != "haproxy"]
    if not rest:
        raise InputError("haproxy is not installed; install it (apt-get install haproxy)")
    return rest, ["HAProxy is left out: it is not installed (apt-get install haproxy)."]


def _placed(there: Places) -> str:
    words = there.words
    return f"{words[:1].upper()}{words[1:]}."


def _lane(run: Run, told: Deployment, load: Workload, own: Moved) -> Lane:
    return Lane(
        name=f"{run.fleet.name}, closed loop, {run.concurrency} in work",
        systems={load.system: 1.0},
        loop="closed",
        unit=load.unit,
        units=load.units,
        concurrency=run.concurrency,
        transport=run.fleet.each[0].transport or "grpc",
        weights=told.weights,
        precision=told.precision,
        rounds=run.rounds,
        summary=summarise(run.rounds, load.units),
        sent_bytes=own.sent_bytes,
        received_bytes=own.received_bytes,
        counters=run.counters,
    )


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
