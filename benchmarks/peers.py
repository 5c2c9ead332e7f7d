"""One network, several ways of running it, in one run: same weights, same inputs, by turns.

PyTorch eager (as the publications' programs run it) and compiled, ONNX Runtime and OpenVINO in this
process, pytriton's Python serving, and Triton as Hilum serves it over gRPC, shared memory and HTTP.
Every lane is compared with ONNX Runtime in FP32, so that no speed is bought with another result.
Each may use all cores, and rests while another is measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..catalog import Network, System
from ..catalog.errors import InferenceFailed
from ..export.certificate import MODEL_FILE
from ..export.recipes import Arrays, recipe
from . import overhead
from .accuracy import compare
from .idle import busy_cores
from .instrument.counters import Watch
from .instrument.loops import Task, Way, closed_loop, interleave, warmed
from .instrument.machine import machine
from .instrument.record import Deviation, Lane, Record, Round
from .instrument.statistics import ratio, summarise, throughputs
from .peer_networks import Subject, chosen_networks, subject
from .peer_pytriton import PYTRITON, python_serving
from .peer_runs import IN_PROCESS, ORT, ORT_AS_SERVED, LeftOut, Peer, in_process, reference_run
from .peer_served import Served, servers
from .runs import Progress, Run, exported

REFERENCE = "ONNX Runtime, FP32"

PROCEDURES: Mapping[str, str] = {
    name: f"hilum bench {name}" for name in ("cxr-severity", "ct-angel", "ct-classifier", "dlpe")
}
"""What measures a system's published procedure from end to end."""

_IDLE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    networks
        By name; none: those that stand for the system.
    rounds, tasks
        Interleaved rounds, and tasks of each lane in each round.
    quick
        Smaller slabs, shorter warm-ups.
    repository
        Holds the exported networks; None: they are exported for the run.
    weights
        "random" or "store": where the PyTorch lanes, and an export, take weights from.
    """

    system: str
    networks: tuple[str, ...] = ()
    rounds: int = 5
    tasks: int = 8
    quick: bool = False
    repository: Path | None = None
    weights: str = "random"

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = [f"hilum bench peers {self.system}", *(f"--network {n}" for n in self.networks)]
        words += [f"--rounds {self.rounds} --tasks {self.tasks}", "--quick" * self.quick]
        return " ".join([*filter(None, words), f"--weights {self.weights}"])


@dataclass(slots=True)
class _Collected:
    """What comes together over the networks."""

    lanes: list[Lane] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    overhead: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    server: dict[str, Any] = field(default_factory=dict)


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says.

    Raises
    ------
    InputError
        For a system or a network that there is not.
    RepositoryError
        When the repository does not hold a network.
    """
    system, networks = chosen_networks(plan.system, plan.networks)
    before, found = machine(), _Collected()
    names = [n.name for n in networks]
    with exported(system, names, plan.repository, plan.weights, progress) as folder:
        for network in networks:
            _measure_one(plan, system, network, folder, found, progress)
    procedure = PROCEDURES.get(plan.system)
    if procedure is not None:
        found.notes.append(f"The published procedure, from file to result: `{procedure}`.")
    return Record(
        kind="peers",
        title=f"{system.title}: peers",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=version("hilum"),
        machine=before,
        server=found.server,
        lanes=tuple(found.lanes),
        tables={"peers": tuple(found.rows), "overhead": tuple(found.overhead)},
        notes=tuple(dict.fromkeys(found.notes)),
    )


def _measure_one(
    plan: Plan,
    system: System,
    network: Network,
    repository: Path,
    found: _Collected,
    progress: Progress,
) -> None:
    chosen = subject(system, network, repository, quick=plan.quick)
    with _reference(plan, chosen, repository, progress) as run:
        wanted = [run(inputs) for inputs in chosen.inputs]
    shapes = {name: tuple(wanted[0][name].shape) for name in chosen.outputs}
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        for name, make in in_process(chosen, plan.weights).items():
            progress(f"{network.name}: prepare {name}")
            try:
                peers.append(make())
            except LeftOut as why:
                found.notes.append(f"{name} is left out: {why}.")
        progress(f"{network.name}: start the servers")
        try:
            peers.append(stack.enter_context(python_serving(chosen)))
        except LeftOut as why:
            found.notes.append(f"{PYTRITON} is left out: {why}.")
        started = stack.enter_context(servers(chosen, repository, shapes))
        found.server = {k: v for k, v in started[0].about.items() if k in ("name", "version")}
        if started[0].on_gpu:
            found.notes.append(
                "The server computed on a GPU, the lanes in this process on the CPU: their ratio "
                "is that of the devices, not of Triton."
            )
        measured = _lanes(plan, chosen, peers, started, wanted, found.notes, progress)
    _tell(chosen, measured, found)


@contextlib.contextmanager
def _reference(plan: Plan, chosen: Subject, repository: Path, progress: Progress) -> Iterator[Run]:
    """ONNX Runtime on an FP32 file of the same weights."""
    names = [t.name for t in chosen.network.outputs]
    if chosen.precision != "fp16":
        yield reference_run(str(repository / chosen.network.model / "1" / MODEL_FILE), names)
        return
    name = chosen.network.name
    with exported(chosen.system, [name], None, plan.weights, progress) as folder:
        yield reference_run(str(folder / chosen.network.model / "1" / MODEL_FILE), names)


def _lanes(
    plan: Plan,
    chosen: Subject,
    peers: Sequence[Peer],
    started: Sequence[Served],
    wanted: Sequence[Arrays],
    notes: list[str],
    progress: Progress,
) -> dict[str, Lane]:
    """Measure all peers of one network by turns; lanes by the peer's name."""
    name = chosen.network.name
    watches = {p.name: Watch(s.client, (chosen.network.model,)) for s in started for p in s.peers}
    ready: dict[str, _Ready] = {}
    for peer in (*peers, *(p for s in started for p in s.peers)):
        progress(f"{name}: compare and warm up {peer.name}")
        try:
            ready[peer.name] = _prepare(plan, chosen, peer, wanted, watches.get(peer.name))
        except InferenceFailed as error:
            if peer.name in (ORT, ORT_AS_SERVED):
                raise  # all others are compared with it
            notes.append(f"{name}, {peer.name} is left out: {error}.")
            continue
        if ready[peer.name].other_result:
            notes.append(
                f"{name}, {peer.name} GIVES ANOTHER RESULT than the reference, beyond what "
                "rounding explains; its speed is no comparison."
            )
    busy = busy_cores(_IDLE_S)
    if busy is not None:
        notes.append(
            f"{name}: with all lanes ready and none measured, their processes kept {busy:.2f} "
            "cores busy."
        )
    ways = {peer: _way(found, chosen, plan.tasks) for peer, found in ready.items()}
    rounds = interleave(ways, plan.rounds, lambda told: progress(f"{name}, {told}"))
    return {p: _lane(chosen, found, rounds[p], plan.weights) for p, found in ready.items()}


@dataclass(frozen=True, slots=True)
class _Ready:
    """A peer that was compared and is warm; `received` are bytes, None in process."""

    peer: Peer
    deviation: Deviation
    other_result: bool
    received: int | None
    warm_up: int
    watch: Watch | None


def _prepare(
    plan: Plan, chosen: Subject, peer: Peer, wanted: Sequence[Arrays], watch: Watch | None
) -> _Ready:
    unbounded = recipe(chosen.system).core_signature(chosen.network).unbounded
    given = [peer.run(inputs) for inputs in chosen.inputs]
    found = compare(chosen.network, unbounded, given, wanted, REFERENCE)
    received = None
    if peer.transport != IN_PROCESS:
        received = sum(array.nbytes for array in given[0].values())
    seconds, most = (2.0, 20) if plan.quick else (20.0, 100)
    warm = warmed(
        _task(peer, chosen), concurrency=peer.concurrency, most_tasks=most, most_seconds=seconds
    )
    return _Ready(peer, found.deviation, found.other_result, received, warm.tasks, watch)


def _task(peer: Peer, chosen: Subject) -> Task:
    def task(number: int) -> None:
        peer.run(chosen.inputs[number % len(chosen.inputs)])

    return task


def _way(ready: _Ready, chosen: Subject, tasks: int) -> Way:
    peer, task = ready.peer, _task(ready.peer, chosen)
    count = max(tasks, 2 * peer.concurrency)

    def way(number: int) -> Round:
        return closed_loop(task, concurrency=peer.concurrency, tasks=count, first=number * count)

    return way if ready.watch is None else ready.watch.over(peer.name, way)


def _lane(chosen: Subject, ready: _Ready, rounds: Sequence[Round], weights: str) -> Lane:
    peer = ready.peer
    return Lane(
        name=f"{chosen.network.name}: {peer.name}",
        systems={chosen.system.name: 1.0},
        loop="closed",
        unit=chosen.unit,
        units=chosen.units,
        concurrency=peer.concurrency,
        transport=peer.transport,
        weights=weights,
        precision=peer.precision,
        rounds=(replace(rounds[0], warm_up=ready.warm_up), *rounds[1:]),
        summary=summarise(rounds, chosen.units),
        sent_bytes=None if ready.received is None else chosen.sent_bytes,
        received_bytes=ready.received,
        counters={} if ready.watch is None else ready.watch.counts_of(peer.name),
        deviation=ready.deviation,
        notes=(peer.threads, f"weights: {chosen.weights}", *peer.notes),
    )


def _tell(chosen: Subject, lanes: Mapping[str, Lane], found: _Collected) -> None:
    """Add lanes and rows of one network."""
    network, best = chosen.network, lanes[ORT]
    own = throughputs(best.rounds, best.units)
    for name, lane in lanes.items():
        found.lanes.append(lane)
        times = ratio(throughputs(lane.rounds, lane.units), own)
        assert lane.deviation is not None  # noqa: S101 - every lane here was compared
        found.rows.append(
            {
                "network": network.name,
                "lane": name,
                "in_flight": lane.concurrency,
                "unit": lane.unit,
                "per_second": lane.summary.per_second.value,
                "ratio": times.value,
                "ratio_low": times.low,
                "ratio_high": times.high,
                "p50_ms": 1e3 * lane.summary.latency_s["50"].value,
                "precision": lane.precision,
                "largest_deviation": lane.deviation.largest,
                "differing": lane.deviation.differing,
                "decisions": lane.deviation.of,
                "threads": lane.notes[0],
            }
        )
        if lane.transport != IN_PROCESS and lane.concurrency == 1 and name != PYTRITON:
            found.overhead.append(
                overhead.row(lane, lanes[ORT_AS_SERVED], network.name, network.model)
            )
