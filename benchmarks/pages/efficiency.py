"""The efficiency curve: what more servers or instances bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import COLOURS, figure


def efficiency_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Throughput against the number of servers, measured, predicted and in proportion.

    Parameters
    ----------
    rows
        With ``servers`` (or ``instances``), ``per_second``, ``efficiency`` (share of growth in
        proportion, 1 is all of it), and optionally ``predicted`` (per second).
    """
    counted = "servers" if all("servers" in row for row in rows) else "instances"
    ordered = sorted(rows, key=lambda row: row[counted])
    numbers = [row[counted] for row in ordered]
    made, axes = figure(height=3.4)
    first = ordered[0]
    each = first["per_second"] / (first[counted] * (first["efficiency"] or 1.0))
    axes.plot([0, numbers[-1]], [0, each * numbers[-1]], color="0.6", linewidth=1,
              label="in proportion")  # fmt: skip
    told = [(row[counted], row["predicted"]) for row in ordered if row.get("predicted")]
    if told:
        axes.plot(*zip(*told, strict=True), linestyle="--", marker="s", mfc="none",
                  color=COLOURS[1], label="predicted by the model")  # fmt: skip
    axes.plot(numbers, [row["per_second"] for row in ordered], marker="o", color=COLOURS[0],
              label="measured")  # fmt: skip
    for row in ordered:
        axes.annotate(f"{row['efficiency']:.0%}", (row[counted], row["per_second"]), (0, -18),
                      textcoords="offset points", ha="center", color=COLOURS[0])  # fmt: skip
    axes.set_xlim(0, numbers[-1] * 1.05)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"number of {counted}")
    axes.set_ylabel("done per second")
    made.legend(loc="outside lower left", ncols=3)
    return made
