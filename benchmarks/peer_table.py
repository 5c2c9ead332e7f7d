"""The peers as Markdown: a table of lanes for each network, and what Triton adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..client.pictures.canvas import DISCLAIMER
from . import overhead
from .instrument.machine import described
from .instrument.record import Record
from .instrument.record import write as write_record
from .pages.page import write_page
from .pages.tables import RANDOM, number

Row = Mapping[str, Any]


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md``, ``bench.html`` and figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text)
    write_page(record, folder)
    return text


def markdown(record: Record) -> str:
    """The record for people."""
    load = record.machine.load_before
    busy = "" if load is None else f", load average {load:.1f} before"
    versions = ", ".join(f"{name} {told}" for name, told in record.machine.versions.items())
    rounds = max((len(lane.rounds) for lane in record.lanes), default=0)
    lines = [
        f"# {record.title}",
        "",
        f"{described(record.machine)}{busy}; {versions}. {rounds} interleaved rounds; ratios are "
        "medians over rounds of throughput (tables of peers) or of latency (what Triton adds), "
        f"with 95 % intervals. `{record.command}`",
    ]
    peers = record.tables["peers"]
    for name in dict.fromkeys(row["network"] for row in peers):
        lines += ["", f"## {name}", "", *_peers([r for r in peers if r["network"] == name])]
    lines += ["", "## What Triton adds to ONNX Runtime in process", "", ADDED, ""]
    lines += overhead.markdown(record.tables["overhead"])
    if record.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in record.notes)]
    random = any(lane.weights == "random" for lane in record.lanes)
    return "\n".join([*lines, "", *([f"{RANDOM}  "] if random else []), DISCLAIMER]) + "\n"


ADDED = (
    "The same session on both sides: one instance, all cores, threads that do not spin, one task "
    "at a time; in process with ONNX Runtime's memory arena. MB are those of the tensors of one "
    "task. In the server: queue, copies and computing by Triton's own statistics, a mean."
)


def _peers(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        f"| lane | in flight | {rows[0]['unit']}s/s | p50 ms | ÷ ONNX Runtime | precision "
        "| decisions that differ | largest deviation | threads |"
    )
    yield "|---" * 9 + "|"
    for r in rows:
        interval = (
            "" if r["ratio_low"] is None else f" ({r['ratio_low']:.2f}…{r['ratio_high']:.2f})"
        )
        yield (
            f"| {r['lane']} | {r['in_flight']} | {number(r['per_second'])} | {r['p50_ms']:.1f} "
            f"| {r['ratio']:.2f}{interval} | {r['precision']} "
            f"| {r['differing']} of {r['decisions']} | {r['largest_deviation']:.1e} "
            f"| {r['threads']} |"
        )
