"""Figures of a record, as PNG: latencies, throughput against load, where time goes.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; lines also
differ in marker and style. Every axis names its unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from ..instrument.record import Estimate, Lane, Record
from ..instrument.statistics import SAMPLES_NEEDED, latencies, supported
from .bars import latency_points, named, throughput, units_of, where_time_goes
from .capacity import CAPTION, latency_against_rate, of_best
from .style import COLOURS, MARKERS, STYLE, figure, legend
from .tables import time_unit

MOST_LINES = 7
"""In one panel; more lanes get more figures."""

_LOAD = re.compile(r",? (closed|open) loop.*$|,? concurrency \d+.*$")
"""What a lane's name says of its load."""

_TAIL = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
"""Percentiles on the axis of a latency distribution."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure and what it shows, in words.

    Attributes
    ----------
    name
        Of the file, without extension.
    """

    name: str
    caption: str
    figure: Figure


def draw(record: Record) -> list[Drawn]:
    """Every figure that the record has the numbers for."""
    with matplotlib.rc_context(STYLE):
        found = [*_distributions(record.lanes), *_against_load(record.lanes)]
        if not any(_sweeps(record.lanes)) and len(record.lanes) > 1:
            found.append(Drawn("throughput", _THROUGHPUT, throughput(record.lanes)))
        if best := of_best(record.tables):
            found.insert(0, Drawn("capacity", CAPTION, latency_against_rate(*best)))
        if rows := record.tables.get("where"):
            found.append(Drawn("where", _WHERE, where_time_goes(rows)))
        return found


def save(drawn: Sequence[Drawn], folder: Path) -> list[Path]:
    """Write each figure as ``NAME.png``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in drawn:
        paths.append(folder / f"{one.name}.png")
        with matplotlib.rc_context(STYLE):
            one.figure.savefig(paths[-1])
    return paths


def latency_distribution(lanes: Sequence[Lane]) -> Figure:
    """Latency by percentile, on an axis that stretches the tail; one line per lane.

    A line ends at the last percentile that its samples support; a ring marks the longest latency.
    """
    found, axes = figure(height=3.6)
    scale, unit = time_unit(lanes)
    last = 50.0
    for number, lane in enumerate(lanes):
        samples = np.sort([x for r in lane.rounds for x in latencies(r)])
        top = supported(len(samples))[-1]
        last = max(last, top)
        share = (np.arange(len(samples)) + 1) / len(samples)
        kept = (share >= 0.5) & (share <= max(top / 100, 0.5))
        if not kept.any():
            kept = share == share[share >= 0.5][0]
        label = named(lane)
        x = _tail(100 * share[kept])
        axes.step(x, scale * samples[kept], where="pre", label=label, **_look(number, marks=False))
        axes.plot(_tail(np.array([top])) + 0.03, [scale * samples[-1]], "o", mfc="none",
                  color=COLOURS[number], markersize=5)  # fmt: skip
    ticks = [p for p in _TAIL if p <= last]
    axes.xaxis.set_major_locator(FixedLocator(list(_tail(np.array(ticks)))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"p{p:g}" for p in ticks])
    axes.set_xlim(0, _tail(np.array([last]))[0] + 0.1)
    axes.set_xlabel("percentile of requests (the axis stretches the slowest ones)")
    axes.set_ylabel(f"latency ({unit})")
    _latency_scale(axes)
    legend(found, axes)
    return found


def throughput_against_load(series: Mapping[str, Sequence[Lane]]) -> Figure:
    """Units done per second against what was offered: requests at once, or arrivals per second."""
    found, axes = figure(height=3.4)
    lanes = [lane for one in series.values() for lane in one]
    for number, (name, own) in enumerate(series.items()):
        x = [_load(lane) for lane in own]
        done = [lane.summary.per_second for lane in own]
        _line(axes, x, done, number, name)
    if lanes[0].loop == "open":
        offered = sorted({_load(lane) for lane in lanes})
        axes.plot([0, offered[-1]], [0, offered[-1]], color="0.6", linewidth=1, zorder=0)
        axes.annotate("all that was offered", (offered[-1], offered[-1]), color="0.4",
                      ha="right", va="bottom", fontsize=8)  # fmt: skip
    axes.set_ylim(0, 1.06 * axes.dataLim.ymax)
    _load_axis(axes, lanes)
    axes.set_ylabel(f"{units_of(lanes)} per second")
    legend(found, axes)
    return found


def latency_against_load(series: Mapping[str, Sequence[Lane]]) -> Figure:
    """Median and highest common percentile of the latency against what was offered."""
    found, axes = figure(height=3.4)
    scale, unit = time_unit([lane for one in series.values() for lane in one])
    lanes = [lane for one in series.values() for lane in one]
    common = set.intersection(*(set(lane.summary.latency_s) for lane in lanes))
    shown = sorted(common, key=float)
    for number, (name, own) in enumerate(series.items()):
        x = [_load(lane) for lane in own]
        for percent in dict.fromkeys((shown[0], shown[-1])):
            values = [_scaled(lane.summary.latency_s[percent], scale) for lane in own]
            dashed = percent != shown[0]
            _line(axes, x, values, number, f"{name}, p{percent}", dashed=dashed)
    _load_axis(axes, lanes)
    axes.set_ylabel(f"latency ({unit})")
    _latency_scale(axes)
    legend(found, axes)
    return found


_THROUGHPUT = "Units done per second. The bar through a point is its 95 % interval."
_WHERE = (
    "Where the time of a request goes, mean per request. The black line is what the client waited; "
    "where several requests of one study overlap, the parts may reach beyond it."
)
_DISTRIBUTION = (
    "How long requests took. At p95, 95 of 100 requests were as fast as the line or faster. The "
    "ring is the slowest of all. A line ends where too few requests were measured to go on."
)
_POINTS = "How long each request took, a ring each; the bar is the median. Few were measured."


def _distributions(lanes: Sequence[Lane]) -> Iterator[Drawn]:
    able = [lane for lane in lanes if lane.summary.samples >= 2]
    groups = groupby(able, key=lambda lane: (sorted(lane.systems), lane.loop))
    parts = [own[i : i + MOST_LINES] for own in (list(g) for _, g in groups)
             for i in range(0, len(own), MOST_LINES)]  # fmt: skip
    for number, part in enumerate(parts, start=1):
        name = f"latency-{number}"
        if max(lane.summary.samples for lane in part) < SAMPLES_NEEDED[75]:
            yield Drawn(name, _POINTS, latency_points(part))
        else:
            yield Drawn(name, _DISTRIBUTION, latency_distribution(part))


def _against_load(lanes: Sequence[Lane]) -> Iterator[Drawn]:
    kinds: tuple[tuple[str, str, Callable[[Mapping[str, Sequence[Lane]]], Figure]], ...] = (
        ("throughput", "Work done", throughput_against_load),
        ("latency", "Latency", latency_against_load),
    )
    for loop, series in _sweeps(lanes):
        offered = "requests in flight at once" if loop == "closed" else "arrivals per second"
        for kind, what, plot in kinds:
            caption = f"{what} against {offered}; bars are 95 % intervals."
            yield Drawn(f"{kind}-against-load-{loop}", caption, plot(series))


def _sweeps(lanes: Sequence[Lane]) -> Iterator[tuple[str, dict[str, list[Lane]]]]:
    """By loop, the series of lanes that differ in nothing but their load; two points at least."""
    for loop in ("closed", "open"):
        series: dict[str, list[Lane]] = {}
        for lane in lanes:
            if lane.loop == loop and lane.arrivals != "replay" and lane.summary.latency_s:
                series.setdefault(_stem(lane), []).append(lane)
        kept = {
            name: sorted(own, key=_load)
            for name, own in series.items()
            if len({_load(lane) for lane in own}) == len(own) > 1
        }
        if kept:
            yield loop, dict(list(kept.items())[:MOST_LINES])


def _stem(lane: Lane) -> str:
    return _LOAD.sub("", lane.name) or lane.name


def _load(lane: Lane) -> float:
    return float(lane.concurrency) if lane.rate is None else lane.rate


def _load_axis(axes: Axes, lanes: Sequence[Lane]) -> None:
    if lanes[0].loop == "closed":
        axes.set_xlabel("requests in flight at once (closed loop)")
        axes.set_xticks(sorted({lane.concurrency for lane in lanes}))
    else:
        axes.set_xlabel("arrivals per second (open loop)")
        axes.set_xlim(left=0)


def _tail(percents: Any) -> Any:
    """Place on the axis: each step to a tenth of the slower requests is as long; p50 is 0."""
    return np.log10(0.5 / np.maximum(1 - np.asarray(percents) / 100, 1e-9)).clip(min=0)


def _scaled(estimate: Estimate, by: float) -> Estimate:
    low, high = (None if x is None else by * x for x in (estimate.low, estimate.high))
    return Estimate(by * estimate.value, low, high, estimate.level)


def _look(number: int, *, marks: bool = True, dashed: bool = False) -> dict[str, Any]:
    looks: dict[str, Any] = {"color": COLOURS[number], "linestyle": "--" if dashed else "-"}
    if marks:
        looks["marker"] = MARKERS[number]
        looks["mfc"] = "white" if dashed else None
    return looks


def _line(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Estimate],
    number: int,
    label: str,
    *,
    dashed: bool = False,
) -> None:
    below = [0.0 if v.low is None else v.value - v.low for v in values]
    above = [0.0 if v.high is None else v.high - v.value for v in values]
    axes.errorbar(x, [v.value for v in values], yerr=[below, above], capsize=3, label=label,
                  **_look(number, dashed=dashed))  # fmt: skip


def _latency_scale(axes: Axes) -> None:
    """From 0, or logarithmic where the values span more than a factor of 8."""
    low, high = axes.dataLim.ymin, axes.dataLim.ymax
    if low > 0 and high / low > 8:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.06 * high)
