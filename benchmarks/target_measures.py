"""Measuring, on this machine, what the systems' publications documented of speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..catalog import covid_mtl, cxr_severity, dlpe
from ..client import Client
from ..client.pipelines import PIPELINES, Source
from ..server.assemble import networks_use_gpus
from ..server.find import find_server
from ..server.launcher import TritonServer
from ..server.machine import cores
from .instrument.deployment import Choice, deployed
from .instrument.loops import Task, closed_loop, interleave, warmed
from .instrument.machine import described
from .instrument.record import Lane, Machine
from .instrument.statistics import summarise
from .instrument.workloads import Make, Workload, workload
from .peer_served import DEADLINE_S
from .runs import Progress, exported
from .target_rows import EXTRAPOLATED, LABELS, Measured

THROUGHPUT, SCAN_TIME = "throughput", "time per scan"
VOLUME_TIME, CPU_MEMORY = "time per volume", "CPU memory, at least"
REFINEMENT = "connectivity refinement of"

QUICK_NETWORKS = ("pspnet", "manet")
"""Of the X-ray system: the two with figures in the abstract."""

STUDY_SLICES = 200
"""Of the generated volume for DeCoVNet, in millimetres: an adult's lungs."""

_OTHERS = ("COVID-Net-S", "BS-net")

_TIME = "time per image"

REMEDIES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (cxr_severity.SYSTEM.name, THROUGHPUT): "leave out --quick",
        (cxr_severity.SYSTEM.name, _TIME): "the authors' hardware is not documented",
        **{
            (cxr_severity.SYSTEM.name, f"{what} of {other}"): "a program that Hilum does not serve"
            for what in (THROUGHPUT, _TIME)
            for other in _OTHERS
        },
        (dlpe.SYSTEM.name, "GPU memory in batches of 4, about"): "no GPU was used",
        **{
            (dlpe.SYSTEM.name, f.quantity): "`hilum bench dlpe --steps` and --from its bench.json"
            for f in dlpe.SYSTEM.published
            if f.quantity.startswith(REFINEMENT)
        },
        (dlpe.SYSTEM.name, SCAN_TIME): "`hilum bench dlpe --grid 512` and --from its bench.json",
        (dlpe.SYSTEM.name, CPU_MEMORY): "`hilum bench dlpe --grid 512` and --from its bench.json",
        (dlpe.SYSTEM.name, "GPU memory, at least"): "no GPU was used",
        **{(covid_mtl.SYSTEM.name, f.quantity): LABELS for f in covid_mtl.SYSTEM.published},
    }
)
"""How to measure what a run did not, by system and quantity."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is measured.

    Attributes
    ----------
    quick
        Few networks and small studies.
    rounds, seconds
        Of each lane; a round ends with the task that is in work then.
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


def xrays(setting: Setting, progress: Progress) -> Figures:
    """Images per second from file to score, over shared memory where it can be had."""
    names = QUICK_NETWORKS if setting.quick else tuple(cxr_severity.DISEASE)
    loads = {n: workload("cxr-severity", quick=setting.quick, network=n) for n in names}
    lanes = _pipelines(setting, loads, cores(), progress)
    found = []
    for name, lane in lanes.items():
        how = f"{loads[name].describe}, {lane.concurrency} at once, {lane.transport}"
        speed = lane.summary.per_second.value
        found.append(_measured(setting, lane, name, THROUGHPUT, speed, "images/s", how))
    return Figures(tuple(found), tuple(lanes.values()))


def slices(system: str) -> Measure:
    """Slices per second from voxels to result; no publication documents one."""

    def measure(setting: Setting, progress: Progress) -> Figures:
        load = workload(system, quick=setting.quick)
        lane = _pipelines(setting, {"": load}, 1, progress)[""]
        speed, how = lane.summary.per_second.value, f"{load.describe}, {lane.transport}"
        own = _measured(setting, lane, "", THROUGHPUT, speed, "slices/s", how)
        return Figures((own,), (lane,))

    return measure


def scans(setting: Setting, progress: Progress) -> Figures:
    """Minutes per scan from voxels to result; on a smaller grid than the published, in proportion.

    The part that is not the networks' grows with the scan and not with the grid, so the
    extrapolation is none to be judged by.
    """
    load = workload("dlpe", quick=setting.quick)
    lane = _pipelines(setting, {"": load}, 1, progress)[""]
    grid, median = load.options.grid, lane.summary.latency_s["50"].value
    times = (dlpe.SIDE / grid) ** 3
    limits = ""
    if grid < dlpe.SIDE:
        limits = (
            f"{EXTRAPOLATED} from {median:.2f} s on a grid of {grid}³ by the number of voxels; "
            f"measure with `hilum bench dlpe --grid {dlpe.SIDE}` on a GPU server"
        )
    how = f"{load.describe}, {lane.transport}" + (f", × {times:.0f}" if limits else "")
    own = _measured(setting, lane, "", SCAN_TIME, median * times / 60, "min", how)
    return Figures((replace(own, limits=limits),), (lane,))


def volumes(setting: Setting, progress: Progress) -> Figures:
    """Seconds per volume of DeCoVNet, the only time that COVID-MTL's sources document."""
    network, system = covid_mtl.DECOVNET, covid_mtl.SYSTEM
    shape = (1, 2, STUDY_SLICES, *covid_mtl.DECOVNET_PLANE)
    rng = np.random.default_rng(7)
    outputs = [t.name for t in network.outputs]
    with (
        exported(system, [network.name], setting.repository, setting.weights, progress) as folder,
        TritonServer(folder, models=[network.model], grace=0) as server,
        Client(server.grpc_url, deadline_s=DEADLINE_S) as client,
    ):
        wanted = client.model(network.model).inputs["study"].dtype
        dtype = np.float16 if wanted == "FP16" else np.float32
        study = rng.random(shape, np.float32).astype(dtype)

        def task(_number: int) -> Any:
            return client.infer(network.model, {"study": study}, outputs)

        about = (client.about() or {"models": {}})["models"].get(network.model, {})
        subject = _Subject(
            system.name, "volume", 1, setting.weights, about.get("precision", "fp32")
        )
        name = "covid-mtl, decovnet"
        lane = _measure({name: (task, subject)}, 1, setting, client, progress)[name]
    how = f"the network alone, {STUDY_SLICES} slices of 224 × 336, {lane.transport}"
    median = lane.summary.latency_s["50"].value
    own = _measured(setting, lane, network.name, VOLUME_TIME, median, "s", how)
    return Figures((own,), (lane,))


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "cxr-severity": xrays,
        "ct-angel": slices("ct-angel"),
        "ct-classifier": slices("ct-classifier"),
        "dlpe": scans,
        "covid-mtl": volumes,
    }
)
"""By system, what measures it."""

NOT_QUICK = ("ct-angel",)
"""Systems without documented figures of speed whose export takes long: left out when quick."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a lane says of its task."""

    system: str
    unit: str
    units: int
    weights: str
    precision: str


def _pipelines(
    setting: Setting, loads: Mapping[str, Workload], concurrency: int, progress: Progress
) -> dict[str, Lane]:
    """Lanes of whole studies, by the names of the loads."""
    choice = Choice(repository=setting.repository, weights=setting.weights)
    with deployed(choice, list(loads.values()), progress) as there:
        names = {k: ", ".join(filter(None, (load.system, k))) for k, load in loads.items()}
        tasks: dict[str, tuple[Task, _Subject]] = {}
        studies: dict[Make, Sequence[Source]] = {}
        for key, load in loads.items():
            if load.make not in studies:
                progress(f"generate studies of {load.system}")
                studies[load.make] = load.make()
            subject = _Subject(load.system, load.unit, load.units, there.weights, there.precision)
            task = load.task(there.client, studies[load.make])
            tasks[names[key]] = (task, subject)
        lanes = _measure(tasks, concurrency, setting, there.client, progress)
    return {key: lanes[name] for key, name in names.items()}


def _measure(
    tasks: Mapping[str, tuple[Task, _Subject]],
    concurrency: int,
    setting: Setting,
    client: Client,
    progress: Progress,
) -> dict[str, Lane]:
    warm = {}
    for name, (task, _) in tasks.items():
        progress(f"warm up {name}")
        task(0)  # what fails, fails here, with its own message
        warm[name] = (
            1
            + warmed(
                task, concurrency=concurrency, most_tasks=20, most_seconds=setting.seconds
            ).tasks
        )
    ways = {name: _way(task, concurrency, setting.seconds) for name, (task, _) in tasks.items()}
    rounds = interleave(ways, setting.rounds, progress)
    lanes = {}
    for name, (_, subject) in tasks.items():
        first = replace(rounds[name][0], warm_up=warm[name])
        lanes[name] = Lane(
            name=name,
            systems={subject.system: 1.0},
            loop="closed",
            unit=subject.unit,
            units=subject.units,
            concurrency=concurrency,
            transport=client.transport or "grpc",
            weights=subject.weights,
            precision=subject.precision,
            rounds=(first, *rounds[name][1:]),
            summary=summarise(rounds[name], subject.units),
        )
    return lanes


def _way(task: Task, concurrency: int, seconds: float) -> Callable[[int], Any]:
    return lambda number: closed_loop(
        task, concurrency=concurrency, seconds=seconds, first=1000 * number
    )


def _measured(
    setting: Setting, lane: Lane, network: str, quantity: str, value: float, unit: str, how: str
) -> Measured:
    return Measured(
        system=next(iter(lane.systems)),
        network=network,
        quantity=quantity,
        value=value,
        unit=unit,
        hardware=described(setting.machine),
        gpu=networks_use_gpus(find_server()),
        weights=lane.weights,
        precision=lane.precision,
        how=how,
        command=setting.command,
    )


def measurable(systems: Sequence[str], quick: bool) -> tuple[str, ...]:
    """Those of the systems, all when none is named, that a run measures."""
    wanted = [s for s in MEASURES if s in PIPELINES and (not systems or s in systems)]
    return tuple(s for s in wanted if not (quick and s in NOT_QUICK and not systems))
