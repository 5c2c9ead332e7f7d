"""How all figures look."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
)  # fmt: skip
"""Okabe and Ito (jfly.uni-koeln.de/color), without the yellow that vanishes on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

HATCHES = ("", "//", "", "..", "")
"""Of stacked bars, so that neighbours also differ in print."""

WIDTH = 7.2
"""Of a figure in inches: a page of A4 between its margins."""

STYLE: Any = {  # matplotlib's own type of it names every key
    "axes.axisbelow": True, "axes.grid": True, "axes.linewidth": 0.8, "axes.spines.right": False,
    "axes.spines.top": False, "figure.dpi": 150, "font.size": 9.5, "grid.color": "0.88",
    "hatch.linewidth": 0.6, "legend.fontsize": 8.5, "legend.frameon": False, "lines.linewidth": 1.6,
    "lines.markersize": 5, "savefig.facecolor": "white",
}  # fmt: skip


def figure(height: float) -> tuple[Figure, Axes]:
    """A figure of the page's width, `height` inches high, and its axes."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots()


def legend(found: Figure, axes: Axes, columns: int = 1) -> None:
    """Below the axes, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        found.legend(handles, labels, loc="outside lower left", ncols=columns)
