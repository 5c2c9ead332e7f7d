"""One network, several ways of running it, in one run: same weights, same inputs, by turns.

PyTorch eager (as the publications' programs run it) and compiled, ONNX Runtime and OpenVINO in this
process, and Triton as Hilum serves it over gRPC, shared memory and HTTP.
Every variant is compared with ONNX Runtime in FP32, so that no speed is bought with another result.
Each may use all cores, and rests while another is measured.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.catalog import Network, System
from hilum.catalog.errors import InferenceFailed
from hilum.export.certificate import MODEL_FILE
from hilum.export.recipes import Arrays, recipe

from .accuracy import compare
from .instrument.counters import Watch
from .instrument.loops import Task, warmed
from .instrument.machine import machine
from .instrument.record import Lane, Record, Round, new_record
from .instrument.statistics import latencies, ratio, throughputs
from .instrument.variant import IN_PROCESS, Variant, closed
from .instrument.variant import measure as measure_variants
from .peer_networks import Subject, chosen_networks, subject
from .peer_runs import ORT, ORT_AS_SERVED, LeftOut, Peer, in_process, reference_run
from .peer_served import Served, servers
from .runs import Progress, Run, exported
from .systems import described

ADDED = (
    "Overhead: the same session on both sides, one instance, all cores, threads that do not spin, "
    "one task at a time; in process with ONNX Runtime's memory arena. Bytes are those of the "
    "tensors of one task. In the server: queue, copies and computing by Triton's own statistics, "
    "a mean. Ratios are medians over rounds with 95 % intervals: of throughput in the table of "
    "peers, of latency in that of the overhead."
)

REFERENCE = "ONNX Runtime, FP32"


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
        "random", "reference" or "store": where the PyTorch lanes, and an export, take weights from.
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
    about = described(plan.system)
    if about is not None and about.procedure:
        found.notes.append(
            f"The published procedure, from file to result: `hilum bench {plan.system}`."
        )
    return new_record(
        "peers", f"{system.title}: peers", plan.command, before, server=found.server,
        lanes=tuple(found.lanes),
        tables={"peers": tuple(found.rows), "overhead": tuple(found.overhead)},
        notes=(ADDED, *dict.fromkeys(found.notes)),
    )  # fmt: skip


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
        started = stack.enter_context(servers(chosen, repository, shapes))
        found.server = {k: v for k, v in started[0].about.items() if k in ("name", "version")}
        if started[0].on_gpu:
            found.notes.append(
                "The server computed on a GPU, the variants in this process on the CPU: their "
                "ratio is that of the devices, not of Triton."
            )
        measured = _lanes(plan, chosen, peers, started, wanted, found.notes, progress)
    _add(chosen, measured, found)


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
    ready: dict[str, Variant] = {}
    for peer in (*peers, *(p for s in started for p in s.peers)):
        progress(f"{name}: compare and warm up {peer.name}")
        try:
            ready[peer.name] = _prepare(plan, chosen, peer, wanted, watches.get(peer.name), notes)
        except InferenceFailed as error:
            if peer.name in (ORT, ORT_AS_SERVED):
                raise  # all others are compared with it
            notes.append(f"{name}, {peer.name} is left out: {error}.")
    return dict(
        zip(ready, measure_variants(list(ready.values()), plan.rounds, progress), strict=True)
    )


def _prepare(
    plan: Plan,
    chosen: Subject,
    peer: Peer,
    wanted: Sequence[Arrays],
    watch: Watch | None,
    notes: list[str],
) -> Variant:
    """Compare a peer with the reference, and warm it up."""
    name = f"{chosen.network.name}: {peer.name}"
    unbounded = recipe(chosen.system).core_signature(chosen.network).unbounded
    given = [peer.run(inputs) for inputs in chosen.inputs]
    found = compare(chosen.network, unbounded, given, wanted, REFERENCE)
    if found.other_result:
        notes.append(
            f"{name} GIVES ANOTHER RESULT than the reference, beyond what rounding explains; its "
            "speed is no comparison."
        )
    seconds, most = (2.0, 20) if plan.quick else (20.0, 100)
    task, c = _task(peer, chosen), peer.concurrency
    warm = warmed(task, concurrency=c, most_tasks=most, most_seconds=seconds)
    served = peer.transport != IN_PROCESS
    return Variant(
        name=name, systems={chosen.system.name: 1.0},
        way=closed(task, concurrency=c, tasks=max(plan.tasks, 2 * c)), unit=chosen.unit,
        units=chosen.units, concurrency=c, transport=peer.transport, weights=plan.weights,
        precision=peer.precision, sent_bytes=chosen.sent_bytes if served else None,
        received_bytes=sum(array.nbytes for array in given[0].values()) if served else None,
        deviation=found.deviation, notes=(peer.threads, f"weights: {chosen.weights}", *peer.notes),
        warm_up=warm.tasks, watch=watch,
    )  # fmt: skip


def _task(peer: Peer, chosen: Subject) -> Task:
    def task(number: int) -> None:
        peer.run(chosen.inputs[number % len(chosen.inputs)])

    return task


def _add(chosen: Subject, lanes: dict[str, Lane], found: _Collected) -> None:
    """Add lanes and rows of one network."""
    network, best = chosen.network, lanes[ORT]
    own = throughputs(best.rounds, best.units)
    for name, lane in lanes.items():
        found.lanes.append(lane)
        times = ratio(throughputs(lane.rounds, lane.units), own)
        assert lane.deviation is not None  # noqa: S101 - every lane here was compared
        found.rows.append(
            {
                "network": network.name, "lane": name, "in_flight": lane.concurrency,
                "unit": lane.unit, "per_second": lane.summary.per_second.value,
                "ratio": times.value, "ratio_low": times.low, "ratio_high": times.high,
                "p50_ms": 1e3 * lane.summary.latency_s["50"].value, "precision": lane.precision,
                "largest_deviation": lane.deviation.largest, "differing": lane.deviation.differing,
                "decisions": lane.deviation.of, "threads": lane.notes[0],
            }
        )  # fmt: skip
        if lane.transport != IN_PROCESS and lane.concurrency == 1:
            found.overhead.append(overhead(lane, lanes[ORT_AS_SERVED], network.name, network.model))


def median_latencies(rounds: Sequence[Round]) -> list[float]:
    """Seconds, one figure for each round.

    Rounds in which nothing succeeded are left out.
    """
    return [statistics.median(found) for r in rounds if (found := latencies(r))]


def overhead(lane: Lane, in_process: Lane, network: str, model: str) -> dict[str, Any]:
    """One row: a served lane beside ONNX Runtime in process, both one task at a time.

    Figures are medians over the rounds of what the rounds' median latencies give.
    """
    served, own = median_latencies(lane.rounds), median_latencies(in_process.rounds)
    times = ratio(served, own)
    return {
        "network": network, "transport": lane.transport,
        "unit": f"{lane.units} {lane.unit}{'s' * (lane.units > 1)}",
        "in_process_ms": 1e3 * statistics.median(own), "served_ms": 1e3 * statistics.median(served),
        "added_ms": 1e3 * statistics.median(a - b for a, b in zip(served, own, strict=True)),
        "times": times.value, "times_low": times.low, "times_high": times.high,
        "sent_bytes": lane.sent_bytes, "received_bytes": lane.received_bytes,
        **_inside(lane, model),
    }  # fmt: skip


def _inside(lane: Lane, model: str) -> Mapping[str, float | None]:
    """Where the server says that the time of a request went."""
    counted = lane.counters.get(model)
    if counted is None or not counted.requests:
        return {"server_ms": None, "queue_ms": None}
    inside = counted.queue_s + counted.input_s + counted.infer_s + counted.output_s
    return {
        "server_ms": 1e3 * inside / counted.requests,
        "queue_ms": 1e3 * counted.queue_s / counted.requests,
    }
