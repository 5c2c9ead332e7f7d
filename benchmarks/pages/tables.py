"""Tables of a record, for Markdown and for the page: lanes, the server's counts, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum.results.canvas import DISCLAIMER
from hilum.results.provenance import REFERENCE

from ..instrument.machine import described
from ..instrument.record import Counters, Estimate, Lane, Record

BLIND = (
    "¹ Closed loop: nothing is sent while the server stalls, so these latencies hide stalls and "
    "queues. Only an open loop's percentiles are those of studies that come when they come."
)

RANDOM = (
    "RANDOM WEIGHTS: not the published networks. Speed is that of the real ones, results are not."
)

NOTHING = "–"

TITLES: Mapping[str, str] = {
    "capacity": "Capacity", "trials": "Rates that were tried",
    "where": "Where the time goes: mean per task",
    "overhead": "What Triton adds to ONNX Runtime in process", "targets": "Documented figures",
    "ratios": "Throughput as a ratio to others", "server_metrics": "What the server's machine bore",
}  # fmt: skip
"""Of tables whose name alone says too little."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table ready for printing; every row is as long as the head."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def markdown(record: Record) -> str:
    """The record as Markdown: what was measured on what, tables, notes."""
    lines = [f"# {_sentence(record.title)}", "", *(f"- {line}" for line in about(record)), ""]
    for grid in grids(record):
        lines += [f"## {grid.title}", "", *grid_markdown(grid), ""]
        lines += [x for note in grid.notes for x in (note, "")]
    if record.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in record.notes), ""]
    return "\n".join([*lines, "  \n".join(warnings(record))]) + "\n"


def grid_markdown(grid: Grid) -> list[str]:
    """The lines of a table."""
    return [_row(grid.head), "|" + "---|" * len(grid.head), *(_row(row) for row in grid.rows)]


def about(record: Record) -> list[str]:
    """What a reader must know of a run before its figures, a line each."""
    found = record.machine
    load = "" if found.load_before is None else f", load average {found.load_before:.1f} before"
    lines = [f"Machine: {described(found)}{load}"]
    if found.versions:
        lines.append("Versions: " + ", ".join(f"{n} {v}" for n, v in found.versions.items()))
    if record.server:
        facts = ", ".join(f"{k.replace('_', ' ')} {text(v)}" for k, v in record.server.items())
        lines.append(f"Server: {facts}")
    for what in ("weights", "precision"):
        values = sorted({str(getattr(lane, what)) for lane in record.lanes})
        if values:
            lines.append(f"{what.capitalize()}: {', '.join(values)}")
    if record.lanes:
        rounds = sorted({len(lane.rounds) for lane in record.lanes})
        lines.append(
            f"Rounds of each lane: {', '.join(map(str, rounds))}; medians, with 95 % intervals "
            "by bootstrap where there are three rounds or more"
        )
    lines.append(f"Measured {record.date} with Hilum {record.hilum_version}: {record.command}")
    return lines


def warnings(record: Record) -> list[str]:
    """What has to stand beside every figure."""
    weights = [lane.weights for lane in record.lanes]
    weights += [str(row.get("weights")) for row in record.tables.get("measured", ())]
    random = any("random" in one.lower() for one in weights)
    reference = any("reference" in one.lower() for one in weights)
    notes = [*([RANDOM] if random else []), *([REFERENCE] if reference else [])]
    return [*notes, DISCLAIMER]


def grids(record: Record) -> list[Grid]:
    """Every table of a record."""
    found: list[Grid] = []
    if record.lanes:
        found.append(lane_grid(record.lanes))
        if any(lane.counters for lane in record.lanes):
            found.append(counter_grid(record.lanes))
    found += [table_grid(name, rows) for name, rows in record.tables.items() if rows]
    return found


def lane_grid(lanes: Sequence[Lane]) -> Grid:
    """Throughput, latency percentiles, bytes and deviation of each lane."""
    percents = sorted({p for lane in lanes for p in lane.summary.latency_s}, key=float)
    scale, unit = time_unit(lanes)
    columns = [
        "lane", "offered", "done", *(f"p{p} ({unit})" for p in percents),
        f"longest ({unit})", "tasks", "failed", "transport", "sent (MB)", "received (MB)",
        "deviation",
    ]  # fmt: skip
    rows = [_lane_cells(lane, percents, scale) for lane in lanes]
    kept = [i for i in range(len(columns)) if any(row[i] != NOTHING for row in rows)]
    notes = [BLIND] if any(lane.blind_to_stalls for lane in lanes) else []
    notes += [f"{lane.name}: {'; '.join(lane.notes)}" for lane in lanes if lane.notes]
    return Grid(
        "Throughput and latency",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        tuple(notes),
    )


def counter_grid(lanes: Sequence[Lane]) -> Grid:
    """What the server counted: requests, batches, and where their time went."""
    head = (
        "lane", "model", "requests", "failed", "executions", "batches (size × executions)",
        "queue (ms)", "copies in (ms)", "compute (ms)", "copies out (ms)",
    )  # fmt: skip
    rows = [
        (lane.name, model, *_counter_cells(found))
        for lane in lanes
        for model, found in lane.counters.items()
    ]
    note = (
        "Times are means per request: the server keeps sums only. An ensemble's are those of its "
        "steps, counted once more."
    )
    return Grid("What the server counted", head, tuple(rows), (note,))


def table_grid(name: str, rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Rows of a record's own table; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    milli = {c for c in columns if _is_short(c, rows)}
    head = tuple(_words(f"{c.removesuffix('_s')}_ms" if c in milli else c) for c in columns)
    cells = tuple(
        tuple(text(_scaled(row.get(c), 1e3) if c in milli else row.get(c)) for c in columns)
        for row in rows
    )
    return Grid(TITLES.get(name) or _sentence(_words(name)), head, cells)


def plural(unit: str) -> str:
    """What several of a unit are called."""
    return f"{unit.removesuffix('y')}ies" if unit.endswith("y") else f"{unit}s"


def time_unit(lanes: Sequence[Lane]) -> tuple[float, str]:
    """What to multiply seconds by, and the unit: ms unless every median is a second or more."""
    medians = [x.summary.latency_s["50"].value for x in lanes if x.summary.latency_s]
    return (1.0, "s") if medians and min(medians) >= 1 else (1e3, "ms")


def text(value: Any) -> str:
    """A value of JSON for a cell: four digits, percentiles as text, lists with commas."""
    if value is None or value == "" or value == {} or value == []:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text(v) for v in value)
    return str(value)


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent where a reader can do without."""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def estimate(found: Estimate | None, scale: float = 1.0) -> str:
    """A figure and its interval: ``12.3 (11.9–12.8)``."""
    if found is None:
        return NOTHING
    value = number(scale * found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} ({number(scale * found.low)}–{number(scale * found.high)})"


def _lane_cells(lane: Lane, percents: Sequence[str], scale: float) -> list[str]:
    found = lane.summary
    offered = f"{lane.concurrency} at once" if lane.rate is None else f"{number(lane.rate)}/s"
    failed = ", ".join(f"{n} {why}" for why, n in found.failures.items()) or "0"
    deviation = NOTHING
    if lane.deviation is not None:
        off = lane.deviation
        deviation = f"{number(off.largest, 2)}; {off.differing} of {off.of} decisions differ"
    return [
        lane.name + (" ¹" if lane.blind_to_stalls else ""),
        offered,
        f"{estimate(found.per_second)} {plural(lane.unit)}/s",
        *(estimate(found.latency_s.get(p), scale) for p in percents),
        number(scale * found.longest_s),
        str(found.samples),
        failed,
        lane.transport,
        *(
            NOTHING if n is None else number(n / 1e6)
            for n in (lane.sent_bytes, lane.received_bytes)
        ),
        deviation,
    ]


def _counter_cells(found: Counters) -> Iterator[str]:
    yield str(found.requests)
    yield str(found.failures)
    yield str(found.executions)
    yield ", ".join(f"{size} × {n}" for size, n in sorted(found.batches.items())) or NOTHING
    for seconds in (found.queue_s, found.input_s, found.infer_s, found.output_s):
        yield number(1e3 * seconds / found.requests) if found.requests else NOTHING


def _is_short(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column of seconds is better read in milliseconds: all are below 1 s."""
    values = [x for row in rows for x in _numbers(row.get(column))]
    return column.endswith("_s") and bool(values) and max(values) < 1


def _numbers(value: Any) -> list[float]:
    """The numbers in a cell; none in a cell that holds anything else."""
    inside = value.values() if isinstance(value, Mapping) else [value]
    return [float(x) for x in inside if isinstance(x, (int, float))]


def _scaled(value: Any, by: float) -> Any:
    if isinstance(value, Mapping):
        return {k: _scaled(v, by) for k, v in value.items()}
    return by * value if isinstance(value, (int, float)) else value


_UNITS = {"s": "s", "ms": "ms", "bytes": "bytes", "gib": "GiB", "mb": "MB"}


def _words(name: str) -> str:
    """A column's name in words: ``latency_s`` is "latency (s)"."""
    stem, _, unit = name.rpartition("_")
    if stem and unit in _UNITS:
        return f"{stem.replace('_', ' ')} ({_UNITS[unit]})"
    return name.replace("_", " ")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
