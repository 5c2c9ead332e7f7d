"""Measuring, on this machine, a figure of speed that a publication documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.client import Client
from hilum.server.backend_folder import networks_use_gpus
from hilum.server.binary import find_server

from .instrument.deployment import Choice, deployed
from .instrument.loops import Task, warmed
from .instrument.machine import described
from .instrument.record import Lane, Machine
from .instrument.variant import Variant, closed, measure
from .instrument.workloads import Make, Study, Workload
from .runs import Progress
from .target_rows import Measured

THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is measured.

    Attributes
    ----------
    quick
        Few networks and small studies.
    rounds, seconds
        Of each variant; a round ends with the task that is running then.
    machine
        On which it is measured.
    """

    quick: bool
    rounds: int
    seconds: float
    repository: Path | None
    weights: str
    machine: Machine
    command: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one system: what was measured, and the lanes it comes from."""

    measured: tuple[Measured, ...]
    lanes: tuple[Lane, ...]


Measure = Callable[[Setting, Progress], Figures]


def studies(
    setting: Setting, loads: Mapping[str, Workload], concurrency: int, progress: Progress
) -> dict[str, Lane]:
    """Lanes of whole studies in closed loops, by the names of the loads."""
    choice = Choice(repository=setting.repository, weights=setting.weights)
    with deployed(choice, list(loads.values()), progress) as there:
        made: dict[Make, Sequence[Study]] = {}
        variants = []
        for key, load in loads.items():
            if load.make not in made:
                progress(f"generate studies of {load.system}")
                made[load.make] = load.make()
            task = load.task(there.client, made[load.make])
            one = variant(
                setting, task, there.client, progress,
                name=", ".join(filter(None, (load.system, key))), system=load.system,
                unit=load.unit, units=load.units, concurrency=concurrency,
                weights=there.weights, precision=there.precision,
            )  # fmt: skip
            variants.append(one)
        lanes = measure(variants, setting.rounds, progress)
    return dict(zip(loads, lanes, strict=True))


def variant(
    setting: Setting,
    task: Task,
    client: Client,
    progress: Progress,
    *,
    name: str,
    system: str,
    unit: str,
    weights: str,
    precision: str,
    units: int = 1,
    concurrency: int = 1,
) -> Variant:
    """Warm a task up; give it as a variant."""
    progress(f"warm up {name}")
    task(0)  # what fails, fails here, with its own message
    warm = warmed(task, concurrency=concurrency, most_tasks=20, most_seconds=setting.seconds)
    return Variant(
        name=name, systems={system: 1.0},
        way=closed(task, concurrency=concurrency, seconds=setting.seconds), unit=unit, units=units,
        concurrency=concurrency, transport=client.transport or "grpc", weights=weights,
        precision=precision, warm_up=1 + warm.tasks,
    )  # fmt: skip


def figure(
    setting: Setting,
    lane: Lane,
    quantity: str,
    value: float,
    unit: str,
    how: str,
    *,
    network: str = "",
    limits: str = "",
) -> Measured:
    """What a lane says of a documented quantity; `how` and `limits` as in `Measured`."""
    return figure_of(
        setting.machine, next(iter(lane.systems)), quantity, value, unit, how, network=network,
        limits=limits, command=setting.command, weights=lane.weights, precision=lane.precision,
    )  # fmt: skip


def figure_of(
    machine: Machine,
    system: str,
    quantity: str,
    value: float,
    unit: str,
    how: str,
    *,
    command: str,
    weights: str,
    precision: str,
    network: str = "",
    limits: str = "",
) -> Measured:
    """What was measured on a machine, with the server that is found here."""
    return Measured(
        system=system, network=network, quantity=quantity, value=value, unit=unit,
        hardware=described(machine), gpu=networks_use_gpus(find_server()), weights=weights,
        precision=precision, how=how, limits=limits, command=command,
    )  # fmt: skip


def slices_per_second(load: Callable[[bool], Workload]) -> Measure:
    """Slices per second from voxels to result, for systems whose publications document none.

    Parameters
    ----------
    load
        Quick or not → what is sent.
    """

    def measure_slices(setting: Setting, progress: Progress) -> Figures:
        sent = load(setting.quick)
        lane = studies(setting, {"": sent}, 1, progress)[""]
        speed, how = lane.summary.per_second.value, f"{sent.describe}, {lane.transport}"
        return Figures((figure(setting, lane, THROUGHPUT, speed, "slices/s", how),), (lane,))

    return measure_slices
