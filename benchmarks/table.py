"""The rows of a benchmark, and how they are written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..catalog.errors import InferenceFailed
from .instrument.loops import Task, closed_loop, interleave
from .instrument.record import Round
from .instrument.statistics import latencies, percentile, ratio, throughputs

PUBLISHED, IN_PROCESS = "PyTorch, as published", "ONNX Runtime in process"
GRPC, SHM = "Triton, gRPC", "Triton, shared memory"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is measured: a way of doing the work at one concurrency.

    Attributes
    ----------
    units
        Images or slices that one call of `task` does: its batch.
    """

    way: str
    concurrency: int
    task: Task
    units: int = 1

    @property
    def name(self) -> str:
        """Of the entry, unlike all others of its table."""
        return f"{self.way}, concurrency {self.concurrency}"


Samples = Mapping[str, tuple[Round, ...]]
"""Rounds by the name of an entry."""


@dataclass(frozen=True, slots=True)
class Row:
    """One lane at one concurrency.

    Attributes
    ----------
    per_second
        Median over the rounds.
    to_published, to_in_process
        Median over the rounds of the throughput's ratio to PyTorch, and to ONNX Runtime in this
        process at the concurrency at which that is fastest.
    differing
        Decisions (scores, masks, calls) that differ from ONNX Runtime's.
    deviation
        Largest difference of a number from ONNX Runtime's.
    """

    lane: str
    concurrency: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    samples: int
    to_published: float
    to_in_process: float
    differing: int
    deviation: float


def measured(
    entries: Sequence[Entry], *, rounds: int, tasks: int, progress: Callable[[str], None]
) -> Samples:
    """Measure all entries in turn, `rounds` times, each after one unmeasured warm-up.

    Parameters
    ----------
    tasks
        Units of work of one entry in one round, at least.

    Raises
    ------
    InferenceFailed
        When a task failed: what is compared here must do the same work.
    """

    def once(entry: Entry, count: int) -> Round:
        done = closed_loop(entry.task, concurrency=entry.concurrency, tasks=count)
        if done.failures:
            reasons = ", ".join(sorted(set(done.failures.values())))
            raise InferenceFailed(
                f"{entry.name}: {len(done.failures)} of {count} tasks failed ({reasons}); look at "
                "the log of the server, and run the system on one study to see the whole message"
            )
        return done

    for entry in entries:
        progress(f"warm-up: {entry.name}")
        once(entry, entry.concurrency)
    ways = {
        e.name: lambda _, e=e: once(e, max(tasks // e.units, 2 * e.concurrency)) for e in entries
    }
    return interleave(ways, rounds, progress)


def rows(
    entries: Sequence[Entry],
    samples: Samples,
    deviations: Mapping[str, tuple[int, float]],
) -> list[dict[str, Any]]:
    """One row for each entry, ready for JSON."""
    speeds = {e.name: throughputs(samples[e.name], e.units) for e in entries}
    published = next(e for e in entries if e.way == PUBLISHED)
    in_process = max(
        (e for e in entries if e.way.startswith(IN_PROCESS)),
        key=lambda e: statistics.median(speeds[e.name]),
    )
    found = []
    for entry in entries:
        own = speeds[entry.name]
        waited = [seconds for round_ in samples[entry.name] for seconds in latencies(round_)]
        p50, p95, p99 = (1e3 * percentile(waited, p) for p in (50, 95, 99))
        row = Row(
            entry.way,
            entry.concurrency,
            statistics.median(own),
            p50,
            p95,
            p99,
            len(waited),
            ratio(own, speeds[published.name]).value,
            ratio(own, speeds[in_process.name]).value,
            *deviations[entry.way],
        )
        found.append(asdict(row))
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    unit = report["unit"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# {report['title']}",
        "",
        f"{report['hardware']}; {versions}; weights: {report['weights']}; {report['rounds']} "
        f"interleaved rounds; ratios are medians over rounds, of throughput. `{report['command']}`",
    ]
    for part in report["parts"]:
        batching = part["batching"]
        lines += [
            "",
            f"## {part['title']}",
            "",
            f"{part['note']} On the server {batching['model']} ran {batching['executions']} times "
            f"for {batching['inferences']} {unit}s.",
            "",
            f"| lane | in flight | {unit}s/s | p50 ms | p95 ms | p99 ms | ÷ PyTorch as published "
            "| ÷ best in process | decisions that differ | largest deviation |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['lane']} | {r['concurrency']} | {r['per_second']:.2f} "
            f"| {r['p50_ms']:.0f} | {r['p95_ms']:.0f} | {r['p99_ms']:.0f} "
            f"| {r['to_published']:.2f} | {r['to_in_process']:.2f} "
            f"| {r['differing']} | {r['deviation']:.1e} |"
            for r in part["rows"]
        ]
    return "\n".join(lines) + "\n"


def write(
    report: Mapping[str, Any],
    folder: Path,
    as_markdown: Callable[[Mapping[str, Any]], str] = markdown,
) -> str:
    """Write ``bench.json`` and ``bench.md``; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    text = as_markdown(report)
    (folder / "bench.md").write_text(text)
    return text
