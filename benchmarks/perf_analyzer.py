"""`hilum bench perf-analyzer`: NVIDIA's load generator and our client, side by side.

Both send the same request to the same server, as many at once, in turns. A third lane is NVIDIA's
Python client without anything of ours around it, so that a difference can be told apart: what is
Python's, and what is our own.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog.errors import InputError
from .instrument.counters import Watch
from .instrument.deployment import Choice, Progress
from .instrument.loops import Way, closed_loop, interleave, warmed
from .instrument.machine import machine
from .instrument.record import Counters, Lane, Record, Round
from .instrument.statistics import ratio, summarise, throughputs
from .instrument.where import where
from .perf_subject import IDENTITY, Subject, bare_sender, own_sender, served
from .perf_tool import Told, check_size, find_tool, run, shapes, tool_version

CLOSE = 0.1
"""By how much our client may be slower than the tool and still count as equal."""

TOOL, OURS, BARE = "perf_analyzer", "Hilum's client", "tritonclient alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    system
        Or "identity".
    model
        Of a system's Triton models, the one whose request is sent; None: the one that moves most.
    size
        Bytes of the identity model's input.
    tool
        The program; None: looked for in PATH.
    """

    system: str
    model: str | None = None
    size: int = 1024
    concurrencies: Sequence[int] = (1, 4)
    seconds: float = 10.0
    rounds: int = 5
    quick: bool = False
    tool: Path | None = None
    choice: Choice = field(default_factory=lambda: Choice(transport="grpc"))

    def __post_init__(self) -> None:
        if self.choice.transport not in ("grpc", "shm"):
            raise InputError("both must send the same way; choose --transport grpc or shm")
        if self.size < 1 or self.rounds < 1 or self.seconds <= 0:
            raise InputError("sizes, rounds and seconds are above 0")
        if self.system == IDENTITY and self.choice.url is not None:
            raise InputError("the identity model is served by a server of its own; leave --url out")

    @property
    def command(self) -> str:
        """The command line that measures the same, without addresses and folders."""
        found = [f"hilum bench perf-analyzer {self.system}"]
        found += [f"--size {self.size}"] if self.system == IDENTITY else []
        found += [f"--model {self.model}"] if self.model else []
        found += [f"--concurrency {c}" for c in self.concurrencies]
        found.append(f"--transport {self.choice.transport}")
        found.append(f"--seconds {self.seconds:g} --rounds {self.rounds}")
        return " ".join([*found, *(["--quick"] if self.quick else [])])


@dataclass(slots=True)
class Lot:
    """What the rounds of one lane took beside their samples.

    Attributes
    ----------
    processor_s
        Of the process that sends, one figure for each round.
    machine_busy
        Cores of this machine that were busy with anything, one figure for each round.
    told
        The tool's own figures.
    """

    processor_s: list[float] = field(default_factory=list)
    machine_busy: list[float] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says.

    Raises
    ------
    InputError
        When perf_analyzer is not there, or the plan cannot be carried out.
    ServerError, ConnectionFailed, RepositoryError
        When there is no server with the model, or the tool fails.
    """
    tool = find_tool(plan.tool)
    before = machine()
    with served(
        plan.system, plan.model, plan.size, plan.choice, progress, quick=plan.quick
    ) as subject:
        check_size(subject.request.bytes, subject.received_bytes)
        watch = Watch(subject.client, (subject.request.model,))
        ways: dict[str, Way] = {}
        lots: dict[str, Lot] = {}
        keys: dict[str, tuple[str, int]] = {}
        with bare_sender(subject, plan.choice.transport) as bare:
            senders = {OURS: own_sender(subject), **({BARE: bare} if bare else {})}
            for c in plan.concurrencies:
                progress(f"warm-up: {c} in work")
                warmed(senders[OURS], concurrency=c, most_seconds=plan.seconds)
                for who in (TOOL, *senders):
                    name = f"{who}, closed loop, {c} in work"
                    keys[name], lots[name] = (who, c), Lot()
                    way = (
                        _tool_way(tool, plan, subject, c, lots[name])
                        if who == TOOL
                        else _own_way(senders[who], c, plan.seconds, lots[name])
                    )
                    ways[name] = watch.over(name, way)
            measured = interleave(ways, plan.rounds, progress)
        lanes = {
            key: _lane(name, plan, subject, key[1], measured[name], watch.counts_of(name))
            for name, key in keys.items()
        }
    by_key = {key: lots[name] for name, key in keys.items()}
    return Record(
        kind="perf-analyzer",
        title=f"{plan.system}: our client beside perf_analyzer",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=importlib.metadata.version("hilum"),
        machine=before,
        server=subject.server,
        lanes=tuple(lanes.values()),
        tables={
            "difference": tuple(differences(lanes, plan.concurrencies)),
            "what_senders_take": tuple(_taken(lanes, by_key)),
            "perf_analyzer_itself": tuple(_own_figures(lanes, by_key)),
            "where": tuple(where(lane) for lane in lanes.values()),
        },
        notes=(
            f"Sent: {subject.request.model}, {shapes([subject.request])}.",
            f"perf_analyzer: {tool_version(tool)}",
            *limits(lanes, by_key, plan.concurrencies, before.cores),
        ),
    )


Lanes = dict[tuple[str, int], Lane]
"""By who sends, and how many at once."""

Lots = dict[tuple[str, int], Lot]


def differences(lanes: Lanes, concurrencies: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows for JSON: our throughput and the tool's, and ours over it in paired rounds."""
    for c in concurrencies:
        for who in (OURS, BARE):
            if (who, c) not in lanes:
                continue
            ours, theirs = lanes[who, c], lanes[TOOL, c]
            found = ratio(_rates(ours), _rates(theirs))
            own, other = (x.summary.latency_s["50"].value for x in (ours, theirs))
            yield {
                "sender": who,
                "in_work": c,
                "per_second": ours.summary.per_second.value,
                "perf_analyzer_per_second": theirs.summary.per_second.value,
                "ratio": found.value,
                "ratio_from": found.low,
                "ratio_to": found.high,
                "median_latency_s": own,
                "perf_analyzer_median_s": other,
                "difference_s": own - other,
            }


def limits(lanes: Lanes, lots: Lots, concurrencies: Sequence[int], cores: int) -> list[str]:
    """For each concurrency whether our client is as fast as the tool, or what limits it."""
    found = []
    for c in concurrencies:
        value = ratio(_rates(lanes[OURS, c]), _rates(lanes[TOOL, c])).value
        head = f"{c} in work: our client does {value:.0%} of what perf_analyzer does"
        if value >= 1 - CLOSE:
            found.append(f"{head}, which is within {CLOSE:.0%} of it.")
            continue
        own, tool = (_processor_ms(lanes[who, c], lots[who, c]) for who in (OURS, TOOL))
        says = [
            f"{head}. It takes {own:.2f} ms of processor time for a request, the tool {tool:.2f}"
        ]
        if (BARE, c) in lanes:
            bare = _processor_ms(lanes[BARE, c], lots[BARE, c])
            share = ratio(_rates(lanes[BARE, c]), _rates(lanes[TOOL, c])).value
            says.append(
                f"NVIDIA's Python client alone takes {bare:.2f} ms and does {share:.0%}: so much "
                "is Python's gRPC, the rest is ours"
            )
        busy = max(_busy(lots[who, c]) for who in (OURS, TOOL))
        if c == 1:
            says.append("with one request at a time, each millisecond of the client is waited for")
        elif busy > 0.9 * cores:
            says.append(
                f"the machine's {cores} cores are full ({busy:.1f} busy) with client and server "
                "together, so what the client takes is lost to the server; it would not be on a "
                "machine of its own"
            )
        else:
            says.append("Python runs one thread at a time, so more requests at once do not help")
        found.append("; ".join(says) + ".")
    return found


def _own_way(task: Callable[[int], Any], concurrency: int, seconds: float, lot: Lot) -> Way:
    def way(_: int) -> Round:
        with _busy_cores(lot):
            before = time.process_time()
            found = closed_loop(task, concurrency=concurrency, seconds=seconds)
            lot.processor_s.append(time.process_time() - before)
        return found

    return way


def _tool_way(tool: Path, plan: Plan, subject: Subject, concurrency: int, lot: Lot) -> Way:
    shared = subject.output_bytes if plan.choice.transport == "shm" else None

    def way(_: int) -> Round:
        with _busy_cores(lot):
            ran = run(
                tool, subject.request, subject.client.options.url, concurrency=concurrency,
                seconds=plan.seconds, output_bytes=shared,
            )  # fmt: skip
        lot.processor_s.append(ran.processor_s)
        lot.told.append(ran.told)
        return ran.round

    return way


def _lane(
    name: str, plan: Plan, subject: Subject, concurrency: int, rounds: tuple[Round, ...],
    counters: dict[str, Counters],
) -> Lane:  # fmt: skip
    return Lane(
        name=name,
        systems={plan.system: 1.0},
        loop="closed",
        unit="request",
        units=1,
        concurrency=concurrency,
        transport=plan.choice.transport,
        weights=subject.weights,
        precision=subject.precision,
        rounds=rounds,
        summary=summarise(rounds, 1),
        sent_bytes=subject.request.bytes,
        received_bytes=subject.received_bytes,
        counters=counters,
    )


def _taken(lanes: Lanes, lots: Lots) -> Iterator[dict[str, Any]]:
    for (who, c), lane in lanes.items():
        lot = lots[who, c]
        yield {
            "sender": who,
            "in_work": c,
            "processor_s": _processor_ms(lane, lot) / 1e3,
            "cores_busy_on_the_machine": _busy(lot),
        }


def _own_figures(lanes: Lanes, lots: Lots) -> Iterator[dict[str, Any]]:
    """What the tool says of its last round, whose samples are in the record."""
    for (who, c), lane in lanes.items():
        if who != TOOL:
            continue
        told = lots[who, c].told[-1]
        yield {
            "in_work": c,
            "per_second": told.per_second,
            "per_second_from_its_requests": _rates(lane)[-1],
            **{f"p{p}_s": seconds for p, seconds in told.latency_s.items()},
            **{f"{part.lower()}_s": seconds for part, seconds in told.parts_s.items()},
        }


def _rates(lane: Lane) -> list[float]:
    return throughputs(lane.rounds, 1)


def _processor_ms(lane: Lane, lot: Lot) -> float:
    """Processor time of the sending process for one request; of the tool, its start included.

    The tool tells of the requests of its last windows only; the server counted all.
    """
    counted = max((c.requests for c in lane.counters.values()), default=0)
    told = sum(len(r.started) for r in lane.rounds)
    return 1e3 * sum(lot.processor_s) / max(counted, told, 1)


def _busy(lot: Lot) -> float:
    return float(np.median(lot.machine_busy)) if lot.machine_busy else 0.0


@contextmanager
def _busy_cores(lot: Lot) -> Iterator[None]:
    """Note how many cores were busy, as the kernel counts; nothing where it does not tell."""
    before, start = _busy_s(), time.perf_counter()
    yield
    after = _busy_s()
    if before is not None and after is not None:
        lot.machine_busy.append((after - before) / (time.perf_counter() - start))


def _busy_s() -> float | None:
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *rest = map(int, line.split()[1:8])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
