"""What Triton adds to ONNX Runtime, by transport: from paired rounds of the same session."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .instrument.record import Lane, Round
from .instrument.statistics import latencies, ratio


def median_latencies(rounds: Sequence[Round]) -> list[float]:
    """Seconds, one figure for each round.

    Rounds in which nothing succeeded are left out.
    """
    return [statistics.median(found) for r in rounds if (found := latencies(r))]


def row(lane: Lane, in_process: Lane, network: str, model: str) -> dict[str, Any]:
    """One row: a served lane beside ONNX Runtime in process, both one task at a time.

    Figures are medians over the rounds of what the rounds' median latencies give.
    """
    served, own = median_latencies(lane.rounds), median_latencies(in_process.rounds)
    times = ratio(served, own)
    return {
        "network": network,
        "transport": lane.transport,
        "unit": f"{lane.units} {lane.unit}{'s' * (lane.units > 1)}",
        "in_process_ms": 1e3 * statistics.median(own),
        "served_ms": 1e3 * statistics.median(served),
        "added_ms": 1e3 * statistics.median(a - b for a, b in zip(served, own, strict=True)),
        "times": times.value,
        "times_low": times.low,
        "times_high": times.high,
        "sent_bytes": lane.sent_bytes,
        "received_bytes": lane.received_bytes,
        **_inside(lane, model),
    }


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


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    head = (
        "| network | one task | transport | in process ms | through Triton ms | added ms | ratio "
        "| MB sent | MB received | in the server ms |"
    )
    lines = [head, "|---" * 10 + "|"]
    for r in rows:
        interval = (
            "" if r["times_low"] is None else f" ({r['times_low']:.2f}…{r['times_high']:.2f})"
        )
        server = "" if r["server_ms"] is None else f"{r['server_ms']:.1f}"
        lines.append(
            f"| {r['network']} | {r['unit']} | {r['transport']} | {r['in_process_ms']:.1f} "
            f"| {r['served_ms']:.1f} | {r['added_ms']:+.1f} | {r['times']:.2f}{interval} "
            f"| {_mb(r['sent_bytes'])} | {_mb(r['received_bytes'])} | {server} |"
        )
    return lines


def _mb(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.3f}"
