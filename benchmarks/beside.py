"""Whole tasks of a system in several ways: as published in PyTorch, ONNX Runtime, and Triton."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.catalog.errors import InferenceFailed
from hilum.client import Client
from hilum.export.certificate import read_certificate
from hilum.server.launcher import TritonServer

from .instrument.counters import Watch
from .instrument.loops import Task, closed_loop
from .instrument.record import Deviation, Lane
from .instrument.statistics import ratio, throughputs
from .instrument.variant import IN_PROCESS, Variant, closed, measure
from .runs import Progress

PUBLISHED, RUNTIME = "PyTorch, as published", "runtime in process"
GRPC, SHM = "Triton, gRPC", "Triton, shared memory"

_TRANSPORTS = {GRPC: "grpc", SHM: "shm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    networks
        By name, of systems where one is chosen.
    repository
        Holds the exported networks; None: they are exported for the run.
    weights
        "random", "reference" or "store": where PyTorch, and an export, take weights from.
    rounds, tasks
        Interleaved rounds, and units of work of each variant in one round, at least.
    concurrencies
        Tasks at once, of all but the published procedure.
    batches
        Of ONNX Runtime in this process, for systems whose tasks can be batched there.
    """

    networks: Sequence[str] = ()
    repository: Path | None = None
    weights: str = "random"
    rounds: int = 5
    tasks: int = 8
    concurrencies: Sequence[int] = (1, 2, 4, 8)
    batches: Sequence[int] = ()

    def command(self, system: str) -> str:
        """The command line that measures the same."""
        words = [f"hilum bench {system}", *(f"--network {name}" for name in self.networks)]
        words.append(f"--rounds {self.rounds} --tasks {self.tasks}")
        words += [f"--concurrency {c}" for c in self.concurrencies]
        words += [f"--batch {b}" for b in self.batches]
        return " ".join([*words, f"--weights {self.weights}"])


@contextmanager
def served(repository: Path, model: str) -> Iterator[tuple[Client, Client]]:
    """A server of a model, and clients of it over gRPC and over shared memory."""
    with (
        TritonServer(repository, models=[model]) as server,
        Client(server.grpc_url, transport="grpc") as over_grpc,
        Client(server.grpc_url, transport="shm") as over_shm,
    ):
        yield over_grpc, over_shm


def lanes(
    plan: Plan,
    tasks: Mapping[str, Task],
    deviations: Mapping[str, Deviation],
    client: Client,
    progress: Progress,
    *,
    part: str,
    system: str,
    unit: str,
    models: tuple[str, ...],
    precision: str,
    batched: Callable[[int], Task] | None = None,
) -> tuple[Lane, ...]:
    """Measure the tasks in turns, each after one warm-up that is not measured.

    Parameters
    ----------
    tasks, deviations
        By `PUBLISHED`, `RUNTIME`, `GRPC` and `SHM`.
    part
        Of the system: what the lanes' names begin with.
    models
        Of Triton, whose counts are read through `client`.
    batched
        A task of ONNX Runtime with a batch of so many; then in the plan's batches, one at a time.

    Raises
    ------
    InferenceFailed
        When a task failed: what is compared here must do the same work.
    """
    watch, variants = Watch(client, models), []
    for way, task, c, units in _settings(plan, tasks, batched):
        batch = f", batch {units}" if batched is not None and way == RUNTIME else ""
        name = f"{part}: {way}{batch}, concurrency {c}"
        progress(f"warm-up: {name}")
        closed_loop(task, concurrency=c, tasks=c)
        transport = _TRANSPORTS.get(way, IN_PROCESS)
        variants.append(
            Variant(
                name=name,
                systems={system: 1.0},
                way=closed(task, concurrency=c, tasks=max(plan.tasks // units, 2 * c)),
                weights=plan.weights,
                unit=unit,
                units=units,
                concurrency=c,
                transport=transport,
                precision="fp32" if way == PUBLISHED else precision,
                deviation=deviations[way],
                warm_up=c,
                watch=None if transport == IN_PROCESS else watch,
            )
        )
    found = measure(variants, plan.rounds, progress)
    for lane in found:
        if lane.summary.failures:
            reasons = ", ".join(f"{n} {why}" for why, n in lane.summary.failures.items())
            raise InferenceFailed(
                f"{lane.name}: some tasks failed ({reasons}); look at the log of the server, and "
                "run the system on one study to see the whole message"
            )
    return found


def _settings(
    plan: Plan, tasks: Mapping[str, Task], batched: Callable[[int], Task] | None
) -> Iterator[tuple[str, Task, int, int]]:
    """Way, task, tasks at once, and units of one task."""
    for way, task in tasks.items():
        if way == PUBLISHED:
            yield way, task, 1, 1
        elif way == RUNTIME and batched is not None:
            yield from ((way, batched(batch), 1, batch) for batch in plan.batches)
        else:
            yield from ((way, task, c, 1) for c in plan.concurrencies)


def ratios(found: Sequence[Lane]) -> Iterator[dict[str, Any]]:
    """Rows: throughput to the published procedure's and to the best of ONNX Runtime's."""
    own = {lane.name: throughputs(lane.rounds, lane.units) for lane in found}
    published = next(lane.name for lane in found if PUBLISHED in lane.name)
    runtime = [lane.name for lane in found if RUNTIME in lane.name]
    best = max(runtime, key=lambda name: statistics.median(own[name]))
    for name, speeds in own.items():
        to_published, to_runtime = (ratio(speeds, own[other]) for other in (published, best))
        yield {
            "lane": name, "to_published": to_published.value, "to_published_low": to_published.low,
            "to_published_high": to_published.high, "to_onnx_runtime": to_runtime.value,
            "to_onnx_runtime_low": to_runtime.low, "to_onnx_runtime_high": to_runtime.high,
        }  # fmt: skip


NOTES = (
    "Ratios are medians over rounds, of throughput: to PyTorch as published, and to the runtime "
    "in process at the setting at which that is fastest.",
    "Decisions and numbers are compared with those of the runtime in process: ONNX Runtime, or "
    "OpenVINO where that serves.",
)


def fastest(found: Sequence[Lane]) -> Lane:
    """The lane through Triton that did most."""
    served = [lane for lane in found if lane.transport in _TRANSPORTS.values()]
    return max(served, key=lambda lane: lane.summary.per_second.value)


def precision_of(repository: Path, model: str) -> str:
    """Of a network in a repository, as its certificate has it."""
    certificate = read_certificate(repository / model)
    return "fp32" if certificate is None else str(certificate["precision"])
