"""Latency against load, with the bound of a capacity search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .style import COLOURS, figure, legend

Row = Mapping[str, Any]

CAPTION = (
    "The bound's percentile of the latency at each rate that was tried. "
    "Filled circles surely meet the bound, crosses surely miss it, rings are undecided. The green "
    "stretch is sustained; between it and the red one the runs do not decide."
)

_MARKS: Mapping[str, Mapping[str, Any]] = {
    "meets": {"marker": "o", "color": COLOURS[2], "label": "meets the bound"},
    "misses": {"marker": "X", "color": COLOURS[1], "label": "misses it"},
    "undecided": {"marker": "o", "mfc": "none", "color": COLOURS[0], "label": "undecided"},
}


def latency_against_rate(best: Row, trials: Sequence[Row]) -> Figure:
    """The percentile of the latency at each rate, beside the bound.

    Parameters
    ----------
    best
        Row of the table "capacity".
    trials
        Rows of the table "trials"; those without a latency, since too many tasks
        failed, are left out.
    """
    found, axes = figure(height=3.6)
    own = [t for t in trials if t["latency_s"] is not None]
    scale, unit = (1.0, "s") if best["bound_s"] >= 1 else (1e3, "ms")
    for verdict, look in _MARKS.items():
        points = [t for t in own if t["verdict"] == verdict]
        if points:
            axes.plot([t["per_second"] for t in points], [scale * t["latency_s"] for t in points],
                      linestyle="none", markersize=7, **look)  # fmt: skip
    bound, closed = scale * best["bound_s"], best["closed_loop_per_second"]
    axes.axhline(bound, color="black", linewidth=1.2, label=f"bound, {bound:g} {unit}")
    axes.axvline(closed, color="0.5", linestyle=":", label="closed loop's throughput")
    right = 1.05 * max([closed, *(t["per_second"] for t in own)])
    axes.set_xlim(0, right)
    if best["per_second"]:
        axes.axvspan(0, best["per_second"], color=COLOURS[2], alpha=0.1, linewidth=0)
    if best["misses_from"]:
        axes.axvspan(best["misses_from"], right, color=COLOURS[1], alpha=0.1, linewidth=0)
    values = [scale * t["latency_s"] for t in own] + [bound]
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("arrivals per second (open loop, Poisson)")
    axes.set_ylabel(f"p{best['percentile']:g} of the latency ({unit})")
    legend(found, axes, columns=3)
    return found


def of_best(tables: Mapping[str, Sequence[Row]]) -> tuple[Row, Sequence[Row]] | None:
    """The answer and the rates that were tried; None in a record without them."""
    if not (capacity := tables.get("capacity")):
        return None
    own = tables.get("trials", ())
    return (capacity[0], own) if any(t["latency_s"] is not None for t in own) else None
