"""Pictures of what DLPE measures: severity, distribution, zones, lesions, branching map (§8.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog import dlpe as catalog
from hilum.catalog.dlpe_quantities import (
    LEVELS,
    PERIPHERAL_LEVEL,
    SEVERITY_HU,
    SIDES,
    ZONES,
)
from hilum.postprocessing.dlpe.distribution import Distribution
from hilum.postprocessing.dlpe.lesions import severity_edges
from hilum.postprocessing.dlpe.quantities import Quantities
from hilum.preprocessing.arrays import to_host
from hilum.results.canvas import AMBER, CYAN, GREY, RED, WHITE, heat_colours
from hilum.results.sections import Rect, enlarge, fit, grey_to_rgb, name_sides
from hilum.results.sheet import Sheet

from .overlay import ct_grey, to_8_bits
from .pictures import GREEN, WIDTH, Layer, Scale, draw_scale, montage, sheet_of
from .result import DlpeResult
from .sections import Section, choose_sections, sides_of

HEAT_HU = (0.0, 240.0)
"""Severities that the heat map of lesions spans: the range of the published lesion pictures."""

LARGEST, AROUND_MM = 5, 25.0
"""Lesions that are drawn one by one, and what is shown around them."""

_LESION = Rect(0, 0, 260, 240)

_PROJECTION = 460
"""Largest height of a projection, in pixels."""

RARE = 0.005
"""A bin with less than this share of parenchyma has no bar."""

_CHART = Rect(70, 0, 500, 250)
_CHARTS: Mapping[str, str] = {
    "pleura": "distance to the surface of the lungs, mm",
    "vessel": "distance to the nearest vessel, mm",
    "branching": "branching level (1: widest vessel)",
    "height": "height, tenths from the bottom",
}


def draw_quantities(result: DlpeResult, note: str) -> Iterator[tuple[str, Sheet]]:
    """Draw all pictures of what was measured: file names and sheets.

    Parameters
    ----------
    note
        Note on the weights that made the result.
    """
    published = result.published_branching
    if published is not None:
        shown = "vessel branching map as published, faults included"
        yield "branching-published.png", draw_levels(result, published.level, note, shown)
    found = result.quantities
    if found is None:
        return
    yield "severity.png", draw_severity(result, found, note)
    if "all" in found.sets:
        yield "distribution.png", draw_distribution(result, found, note)
        yield "zones.png", draw_zones(result, found, note)
        yield "lesions.png", draw_lesions(result, found, note)
        yield "projection.png", draw_projections(result, found, note)
    if found.lesions:
        yield "largest.png", draw_largest(result, found, note)
    if found.branching.level is not None:
        yield "branching.png", draw_branching(result, found, note)


def draw_severity(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw histograms of severity in lesions and in the other parenchyma."""
    plot = Rect(80, 20, WIDTH - 120, 380)
    shown = f"HU above the baseline of {found.baseline_hu:.0f} HU, 5 HU to a bin"
    sheet = sheet_of(result, note, WIDTH, plot.bottom + 80, shown)
    _axis(sheet, plot, [(v, f"{v:.0f}") for v in np.arange(-100, 401, 50)], SEVERITY_HU)
    sheet.text((plot.left, plot.top - 4), "share of each, in %", size=14, colour=GREY, anchor="lb")
    shares = {name: counts / max(1, counts.sum()) for name, counts in found.severity_counts.items()}
    top = max(float(share.max()) for share in shares.values()) or 1.0
    for share, of_top in ((top, 1.0), (top / 2, 0.5)):
        y = plot.bottom - of_top * plot.height
        sheet.text((plot.left - 8, y), f"{100 * share:.1f}", size=13, colour=GREY, anchor="rm")
    for name, colour in (("parenchyma", CYAN), ("lesions", AMBER)):
        sheet.line(_steps(plot, shares[name] / top), colour, thickness=2)
    everything = found.sets.get("all")
    median = None if everything is None else everything.median_severity_hu
    x = plot.left
    if median is not None:
        at = plot.left + plot.width * _part(median, SEVERITY_HU)
        _dashed(sheet, (at, plot.top), (at, plot.bottom))
        sheet.text((at + 6, plot.top + 4), f"median of lesions {median:.0f} HU", size=14)
    lesions = "lesions" if everything is None else f"lesions, {everything.volume_ml:.1f} ml"
    for text, colour in ((lesions, AMBER), ("parenchyma without lesions", CYAN)):
        sheet.rectangle((x, plot.bottom + 48, x + 14, plot.bottom + 62), fill=colour)
        x = 26 + sheet.text((x + 22, plot.bottom + 55), text, colour=GREY, anchor="lm")
    return sheet


def draw_distribution(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw how lesions are spread over distance, branching level and height."""
    charts = {n: found.distributions["all"].get(n) for n in _CHARTS}
    height = 2 * (_CHART.height + 130)
    shown = "bars: lesions of the parenchyma there, %; line: multiple of their share anywhere"
    sheet = sheet_of(result, note, WIDTH, height, shown)
    for number, (name, one) in enumerate(charts.items()):
        left = _CHART.left + (number % 2) * (WIDTH // 2)
        top = 50 + (number // 2) * (_CHART.height + 130)
        plot = Rect(left, top, _CHART.width, _CHART.height)
        sheet.text((left, top - 34), _CHARTS[name], size=17)
        if one is None:
            middle = (left + plot.width / 2, top + plot.height / 2)
            sheet.text(middle, "not known", colour=GREY, anchor="mm")
        else:
            _bars(sheet, plot, one)
    return sheet


def draw_zones(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw share and score of the six zones, the patient's right on the left."""
    zones, box = found.zones["all"], Rect(0, 0, 435, 104)
    shown = f"lesions by zone; scores by volume, together {zones['score_0_24']} of 24"
    sheet = sheet_of(result, note, 2 * box.width + 20, 3 * (box.height + 10) + 40, shown)
    for column, side in enumerate(SIDES):
        left = column * (box.width + 20)
        sheet.text((left + box.width / 2, 4), side, size=18, anchor="ma")
        for row, zone in enumerate(reversed(ZONES)):
            entry, top = zones[f"{side}_{zone}"], 34 + row * (box.height + 10)
            corner = (left, top, left + box.width, top + box.height)
            share, heat = entry["share"], np.array([[(entry["score"] or 0) * 45]], np.uint8)
            red, green, blue = heat_colours(heat)[0, 0].tolist()
            sheet.rectangle(corner, fill=(red, green, blue), outline=GREY)
            text = "no lung" if share is None else f"{share:.1%}   score {entry['score']}"
            sheet.text((left + 16, top + 16), f"{zone}:  {text}", size=24, plate=True)
            size = f"{entry['lesion_ml']:.1f} of {entry['lung_ml']:.0f} ml"
            sheet.text((left + 16, top + 62), size, size=17, colour=WHITE, plate=True)
    return sheet


def draw_lesions(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw lesions over the CT, coloured by severity."""
    pixels = _by_severity(result, found)
    shown = f"lesions by severity, {HEAT_HU[0]:.0f} to {HEAT_HU[1]:.0f} HU above the baseline"
    return montage(result, note, shown, pixels, {"lung": Layer("lungs", GREEN)}, _scale())


def draw_projections(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw the highest severity of lesions along the rays from the front and from the side.

    Each over the shadow of the lungs, grey where a ray meets lung.
    """
    _, (front, side, *_) = choose_sections(
        result.masks["lung"], result.voxel_mm, sides_of(result.normalised)
    )
    room = (WIDTH - 20) // 2
    views = [
        (section, fit(section.size, Rect(column * (room + 20), 0, room, _PROJECTION)))
        for column, section in enumerate((front, side))
    ]
    bottom = max(rect.bottom for _, rect in views)
    shown = "highest severity of lesions along each ray"
    sheet = sheet_of(result, note, WIDTH, bottom + 70, shown)
    for (section, rect), (severity, depth), name in zip(
        views, _projected(result, found), ("from the front", "from the side"), strict=True
    ):
        spans = tuple(span for span in section.index if isinstance(span, slice))
        rays, shadow = severity[spans].T[::-1], depth[spans].T[::-1]
        dim = (90 * np.sqrt(shadow / max(1, int(shadow.max())))).astype(np.uint8)
        picture = grey_to_rgb(np.ascontiguousarray(dim))
        lesions = np.isfinite(rays)
        picture[lesions] = _heat(np.where(lesions, rays, 0))[lesions]
        sheet.paste((rect.left, rect.top), enlarge(picture, rect))
        name_sides(sheet, rect, section.sides, size=15)
        sheet.text((rect.left + 8, rect.bottom - 8), name, size=14, anchor="lb", plate=True)
    draw_scale(sheet, _scale(), bottom + 30)
    return sheet


def _projected(
    result: DlpeResult, found: Quantities
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Along axes 0 and 1 of normalised space: the highest severity, and voxels of lung.

    float32 in HU, −∞ where no lesion lies, and int64; [y, z] and [x, z].
    """
    masks, voxels = result.masks, result.normalised.voxels
    rows, columns, slices = voxels.shape
    severity = [np.full((n, slices), -np.inf, np.float32) for n in (columns, rows)]
    depth = [np.zeros((n, slices), np.int64) for n in (columns, rows)]
    lesions = [masks[name] for name in found.sets if name in masks]
    for z in range(slices):
        lung = to_host(masks["lung"][:, :, z]) > 0
        inside = np.logical_or.reduce([to_host(mask[:, :, z]) > 0 for mask in lesions]) & lung
        for name in ("airway", "vessel"):
            inside &= to_host(masks[name][:, :, z]) == 0
        hu = to_host(voxels[:, :, z]) * catalog.HU_SCALE + catalog.HU_OFFSET - found.baseline_hu
        hu = np.where(inside, hu, -np.inf)
        for axis in (0, 1):
            severity[axis][:, z] = hu.max(axis=axis)
            depth[axis][:, z] = lung.sum(axis=axis)
    return list(zip(severity, depth, strict=True))


def _scale() -> Scale:
    low, high = HEAT_HU
    return Scale(_heat(np.linspace(low, high, 200)[None])[0], f"{low:.0f}", f"{high:.0f} HU")


def draw_largest(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw the largest lesions, one axial section through the middle of each, with its number."""
    pixels, sides = _by_severity(result, found), sides_of(result.normalised)
    shown = "the largest lesions by severity, with their number in the table"
    sheet = sheet_of(result, note, LARGEST * (_LESION.width + 8), _LESION.height + 64, shown)
    for column, lesion in enumerate(found.lesions[:LARGEST]):
        z = int(lesion.centroid[2] + 0.5)
        spans = [
            slice(max(0, low - round(AROUND_MM / mm)), min(n, high + round(AROUND_MM / mm)))
            for (low, high), mm, n in zip(
                lesion.box[:2], result.voxel_mm, found.crop.whole, strict=False
            )
        ]
        size = [(s.stop - s.start) * mm for s, mm in zip(spans, result.voxel_mm, strict=False)]
        section = Section((spans[0], spans[1], z), (size[0], size[1]), sides[1], "")
        left = column * (_LESION.width + 8)
        rect = fit(section.size, Rect(left, 0, _LESION.width, _LESION.height))
        sheet.paste((rect.left, rect.top), enlarge(pixels(section), rect))
        name_sides(sheet, rect, section.sides, size=13)
        text = f"{lesion.lesion_id}: {lesion.volume_ml:.2f} ml, {lesion.side} {lesion.zone}"
        sheet.text((left, _LESION.height + 8), text, size=15)
        more = f"{lesion.median_severity_hu:.0f} HU above the baseline, z {z}"
        sheet.text((left, _LESION.height + 30), more, size=13, colour=GREY)
    return sheet


def _by_severity(result: DlpeResult, found: Quantities) -> Callable[[Section], NDArray[np.uint8]]:
    """Make the function that draws a section of the CT with lesions coloured by severity."""
    masks = result.masks
    lesions = [masks[name] for name in found.sets if name in masks]

    def pixels(section: Section) -> NDArray[np.uint8]:
        values = section.cut(result.normalised.voxels)
        picture = grey_to_rgb(to_8_bits(ct_grey(values)))
        inside = section.cut(masks["lung"]) > 0
        for name in ("airway", "vessel"):
            inside &= section.cut(masks[name]) == 0
        inside &= np.logical_or.reduce([section.cut(mask) > 0 for mask in lesions])
        severity = values * catalog.HU_SCALE + (catalog.HU_OFFSET - found.baseline_hu)
        picture[inside] = _heat(severity)[inside]
        return picture

    return pixels


def _heat(severity: NDArray[Any]) -> NDArray[np.uint8]:
    """Severities [h, w] in HU as colours, uint8 [h, w, 3]; the lowest is not black."""
    low, high = HEAT_HU
    heat = np.clip((severity - low) / (high - low), 0, 1) * 215 + 40
    return heat_colours(heat.astype(np.uint8))


def draw_branching(result: DlpeResult, found: Quantities, note: str) -> Sheet:
    """Draw the vessel branching map, see `draw_levels`."""
    share = found.shares_above_9.get("parenchyma") or 0.0
    shown = f"vessel branching map, {share:.0%} of parenchyma above {PERIPHERAL_LEVEL:.0f}"
    return draw_levels(result, found.crop.uncut(found.branching.level), note, shown)


def draw_levels(result: DlpeResult, volume: NDArray[Any], note: str, shown: str) -> Sheet:
    """Draw branching levels [x, y, z] of parenchyma: 0 to 12 in viridis, red above 9."""
    masks = result.masks

    def pixels(section: Section) -> NDArray[np.uint8]:
        inside = section.cut(masks["lung"]) > 0
        for name in ("airway", "vessel"):
            inside &= section.cut(masks[name]) == 0
        levels = section.cut(volume)
        picture = np.where(inside[..., None], level_colours(levels), 0).astype(np.uint8)
        picture[inside & (levels > PERIPHERAL_LEVEL)] = RED
        return picture

    low, high = LEVELS
    shown += f"; level {low:.0f} to {high:.0f}, red above {PERIPHERAL_LEVEL:.0f}"
    levels = np.linspace(low, high, 200)
    colours = level_colours(levels[None])[0]
    colours[levels > PERIPHERAL_LEVEL] = RED
    scale = Scale(colours, f"level {low:.0f}", f"{high:.0f}")
    return montage(result, note, shown, pixels, {"lung": Layer("lungs", GREEN)}, scale)


def level_colours(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Branching levels [h, w] in viridis, uint8 [h, w, 3]."""
    low, high = LEVELS
    values = np.rint(255 * (np.clip(levels, low, high) - low) / (high - low)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return np.asarray(colours, np.uint8)


def _bars(sheet: Sheet, plot: Rect, one: Distribution) -> None:
    """One chart: bars of the ratio, a line of the enrichment, dashes at 1, voxels under each."""
    bins, whole = len(one.lesion), sum(one.parenchyma) or 1
    shown = [
        (k, ratio, more)
        for k, (ratio, more) in enumerate(zip(one.ratio, one.enrichment, strict=True))
        if ratio is not None and one.parenchyma[k] >= RARE * whole
    ]
    top = max([ratio for _, ratio, _ in shown], default=0.0) or 1.0
    scale = max([more or 0.0 for _, _, more in shown], default=0.0) * 1.1 or 2.0
    step, points = plot.width / bins, list[tuple[float, float]]()
    for k, ratio, more in shown:
        left = plot.left + k * step
        high = plot.bottom - plot.height * ratio / top * 0.9
        sheet.rectangle((left + 3, min(high, plot.bottom - 1), left + step - 3, plot.bottom),
                        fill=(70, 86, 104))  # fmt: skip
        if more is not None:
            points.append((left + step / 2, plot.bottom - plot.height * min(1.0, more / scale)))
    one_high = plot.bottom - plot.height / scale
    if plot.top <= one_high <= plot.bottom and points:
        _dashed(sheet, (plot.left, one_high), (plot.right, one_high))
        sheet.text((plot.right + 4, one_high), "1", size=13, colour=AMBER, anchor="lm")
    if len(points) > 1:
        sheet.line(points, AMBER, thickness=2)
    for k, ratio, _ in shown:  # over the line, at the foot of the bar
        foot = (plot.left + (k + 0.5) * step, plot.bottom - 6)
        sheet.text(foot, f"{100 * ratio:.1f}", size=12, anchor="mb", plate=True)
    ticks = [(float(k), f"{e:g}" if np.isfinite(e) else "∞") for k, e in enumerate(one.edges)]
    ticks = [(k, text if text != "∞" else "") for k, text in ticks]
    _axis(sheet, plot, ticks, (0.0, float(bins)))
    for k, lesion in enumerate(one.lesion):
        at = (plot.left + (k + 0.5) * step, plot.bottom + 30)
        sheet.text(at, _short(lesion), size=11, colour=GREY, anchor="ma")


def _axis(
    sheet: Sheet, plot: Rect, ticks: Sequence[tuple[float, str]], span: tuple[float, float]
) -> None:
    sheet.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], GREY)
    for value, text in ticks:
        x = plot.left + plot.width * _part(float(value), span)
        sheet.line([(x, plot.bottom), (x, plot.bottom + 6)], GREY)
        sheet.text((x, plot.bottom + 9), text, size=13, colour=GREY, anchor="ma")


def _steps(plot: Rect, shares: NDArray[np.float64]) -> list[tuple[float, float]]:
    """A histogram as a line of steps; shares of the plot's height."""
    edges = severity_edges()
    points = list[tuple[float, float]]()
    for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
        y = plot.bottom - plot.height * float(share)
        for edge in (low, high):
            points.append((plot.left + plot.width * _part(float(edge), SEVERITY_HU), y))
    return points


def _dashed(sheet: Sheet, start: tuple[float, float], end: tuple[float, float]) -> None:
    a, b = np.array(start), np.array(end)
    length = float(np.hypot(*(b - a)))
    for begin in np.arange(0.0, length, 12.0):
        p, q = (a + (b - a) * min(t, length) / length for t in (begin, begin + 6.0))
        sheet.line([(float(p[0]), float(p[1])), (float(q[0]), float(q[1]))], AMBER)


def _part(value: float, span: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (value - span[0]) / (span[1] - span[0])))


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)
