"""The overlay of a severity result: lungs in cyan, disease in red, zone lines, shares, score."""

from __future__ import annotations

import numpy as np

from hilum.catalog import cxr_severity as cxr
from hilum.postprocessing.cxr_severity.lung_pair import LungRegion
from hilum.postprocessing.cxr_severity.zones import zone_lines
from hilum.results.canvas import AMBER, CYAN, DISCLAIMER, GREY, RED, WHITE, Canvas

from .result import CxrResult

FOOTER = 146


def draw(result: CxrResult, note: str) -> Canvas:
    """Draw the overlay over the whole X-ray.

    Parameters
    ----------
    note
        The weights note.
    """
    pixels = result.xray.pixels
    height, width = pixels.shape[:2]
    canvas = Canvas(pixels, footer=FOOTER)
    canvas.tint(canvas.place(result.disease512, result.box_original), RED)
    canvas.outline(canvas.place(result.lung, (0, 0, width, height)), CYAN)
    lungs = _lungs(result)
    for lung, _ in lungs:
        for row in lung.cuts:
            _cut(canvas, result, lung, row)
    for lung, shares in lungs:
        _shares(canvas, result, lung, shares)
    _footer(canvas, result, note)
    return canvas


def _lungs(result: CxrResult) -> list[tuple[LungRegion, tuple[float | None, ...]]]:
    """The lungs that are there, each with the shares of its zones, bottom first."""
    left, right = zone_lines(
        result.lung512, mode=result.mode, box=np.array(result.box), side=result.lung.shape[0]
    )
    if left is not None and right is not None and left.box == right.box:
        right = None  # parity scores a single component as both lungs
    pairs = ((left, result.fractions[:3]), (right, result.fractions[3:]))
    return [(lung, shares) for lung, shares in pairs if lung is not None]


def _point(result: CxrResult, x: float, y: float) -> tuple[float, float]:
    """A point of the crop frame in pixels of the X-ray."""
    left, top, right, bottom = result.box_original
    return left + x * (right - left) / cxr.FRAME, top + y * (bottom - top) / cxr.FRAME


def _extent(result: CxrResult, lung: LungRegion, rows: slice) -> tuple[float, float] | None:
    """First and last column of the lung's pixels in `rows` of the crop frame."""
    left, _, right, _ = lung.box
    columns = np.flatnonzero(result.lung512[rows, left:right].any(axis=0))
    return (left + float(columns[0]), left + float(columns[-1]) + 1) if columns.size else None


def _cut(canvas: Canvas, result: CxrResult, lung: LungRegion, row: int) -> None:
    if extent := _extent(result, lung, slice(max(row - 1, 0), row + 1)):
        canvas.line(_point(result, extent[0], row), _point(result, extent[1], row), CYAN)


def _shares(
    canvas: Canvas, result: CxrResult, lung: LungRegion, shares: tuple[float | None, ...]
) -> None:
    _, top, _, bottom = lung.box
    middle, lower = lung.cuts
    zones = (slice(lower, bottom), slice(middle, lower), slice(top, middle))
    for rows, share in zip(zones, shares, strict=True):
        extent = _extent(result, lung, rows)
        if share is None or extent is None:
            continue
        counts = share > result.zone_threshold
        canvas.label(
            _point(result, sum(extent) / 2, (rows.start + rows.stop) / 2),
            f"{share:.0%}",
            colour=AMBER if counts else WHITE,
            size=26,
        )


def _footer(canvas: Canvas, result: CxrResult, note: str) -> None:
    score = "no score" if result.score is None else f"Severity {result.score} / 6"
    end = canvas.write((16, 12), score, size=40, colour=AMBER if result.score else WHITE)
    unusual = ", ".join(result.flags).replace("_", " ")
    if unusual:
        canvas.write((end + 24, 26), unusual, size=22, colour=AMBER)
    facts = cxr.DISEASE[result.network]
    gate = ", gate closed" if result.gated else ""
    canvas.write(
        (16, 64),
        f"{facts.title}, {result.mode}; zone counts above {result.zone_threshold:.0%}; "
        f"p(disease) {result.disease_probability:.2f}{gate}",
        size=19,
    )
    canvas.write((16, 90), DISCLAIMER, size=17, colour=GREY)
    canvas.write((16, 114), note, size=17, colour=AMBER)
