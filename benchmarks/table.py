"""The rows of a benchmark, and how they are written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .load import Lane, Samples, percentile, ratio

PUBLISHED, IN_PROCESS = "PyTorch, as published", "ONNX Runtime in process"
GRPC, SHM = "Triton, gRPC", "Triton, shared memory"


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


def rows(
    lanes: Sequence[Lane],
    samples: Mapping[tuple[str, int], Samples],
    deviations: Mapping[str, tuple[int, float]],
) -> list[dict[str, Any]]:
    """One row for each lane, ready for JSON."""
    in_process = max(
        (s for (name, _), s in samples.items() if name.startswith(IN_PROCESS)),
        key=lambda s: statistics.median(s.throughputs),
    )
    found = []
    for lane in lanes:
        own = samples[lane.name, lane.concurrency]
        p50, p95, p99 = (1e3 * percentile(own.latencies, p) for p in (50, 95, 99))
        row = Row(
            lane.name,
            lane.concurrency,
            statistics.median(own.throughputs),
            p50,
            p95,
            p99,
            len(own.latencies),
            ratio(own, samples[PUBLISHED, 1]),
            ratio(own, in_process),
            *deviations[lane.name],
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
