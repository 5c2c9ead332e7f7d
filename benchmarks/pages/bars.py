"""Figures with a row for each lane: points, intervals and stacked bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..instrument.record import Lane
from ..instrument.statistics import latencies, percentile
from .style import COLOURS, HATCHES, figure, legend
from .tables import plural, time_unit

_PARTS: Mapping[str, str] = {
    "waiting_s": "waits for a worker",
    "queue_s": "server: queue",
    "copy_s": "server: copies in and out",
    "infer_s": "server: compute",
    "rest_s": "client and transfer",
}
"""Columns of the table `where`, from the first to the last of a request's way."""


def latency_points(lanes: Sequence[Lane]) -> Figure:
    """Every latency as a point, and the median as a bar: of lanes with few requests."""
    found, axes = figure(height=1.1 + 0.36 * len(lanes))
    scale, unit = time_unit(lanes)
    for place, lane in enumerate(reversed(lanes)):
        samples = scale * np.array([x for r in lane.rounds for x in latencies(r)])
        axes.plot(samples, np.full(len(samples), place), "o", mfc="none", color=COLOURS[0])
        axes.plot([percentile(samples, 50)] * 2, [place - 0.3, place + 0.3], color=COLOURS[1])
    axes.set_yticks(range(len(lanes)), [named(lane) for lane in reversed(lanes)])
    axes.set_ylim(-0.6, len(lanes) - 0.4)
    axes.set_xlim(0, 1.06 * axes.dataLim.xmax)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"latency ({unit})")
    return found


def throughput(lanes: Sequence[Lane]) -> Figure:
    """Units per second of each lane with its interval, in the order of the record."""
    found, axes = figure(height=1.1 + 0.3 * len(lanes))
    for place, lane in enumerate(reversed(lanes)):
        done = lane.summary.per_second
        low, high = (done.value if x is None else x for x in (done.low, done.high))
        axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2)
        axes.plot([done.value], [place], "o", color=COLOURS[0])
        axes.annotate(f"{done.value:.3g}", (done.value, place), (0, 5),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(lanes)), [lane.name for lane in reversed(lanes)])
    axes.set_ylim(-0.6, len(lanes) - 0.2)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{units_of(lanes)} per second")
    return found


def where_time_goes(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean time of a request in each part of its way, one bar per lane.

    Parameters
    ----------
    rows
        Of the table `where`: lane, the columns of `_PARTS` in seconds, latency_s; None where a
        part is not known.
    """
    found, axes = figure(height=1.3 + 0.38 * len(rows))
    whole = [row.get("latency_s") or 0.0 for row in rows]
    scale, unit = (1.0, "s") if min(whole) >= 1 else (1e3, "ms")
    for place, row in enumerate(reversed(rows)):
        left = 0.0
        for number, (part, name) in enumerate(_PARTS.items()):
            width = scale * (row.get(part) or 0.0)
            axes.barh(place, width, left=left, height=0.62, color=COLOURS[number + 1],
                      hatch=HATCHES[number], edgecolor="white", linewidth=0.6,
                      label=name if place == 0 else None)  # fmt: skip
            left += width
        if row.get("latency_s") is not None:
            axes.plot([scale * row["latency_s"]] * 2, [place - 0.36, place + 0.36], color="black",
                      label="latency" if place == 0 else None)  # fmt: skip
    axes.set_yticks(range(len(rows)), [str(row["lane"]) for row in reversed(rows)])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel(f"mean per request ({unit})")
    legend(found, axes, columns=3)
    return found


def named(lane: Lane) -> str:
    """The lane's name, with a warning where its latencies hide stalls."""
    return lane.name + (" (blind to stalls)" if lane.blind_to_stalls else "")


def units_of(lanes: Sequence[Lane]) -> str:
    """What the lanes count: "images", "images or slices"."""
    return " or ".join(sorted({plural(lane.unit) for lane in lanes}))
