"""Two scans of one patient side by side, at equal relative heights, each in its own window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import ENHANCED_RANGE, HU_SCALE
from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.extent import extent
from hilum.postprocessing.dlpe.quantities import ENHANCED_SETS
from hilum.results.canvas import AMBER, GREY, RED
from hilum.results.sections import Rect, enlarge, fit, grey_to_rgb, name_sides, paint_labels
from hilum.results.sheet import Sheet

from .overlay import enhanced_grey, to_8_bits
from .stored import Comparison, Stored

LEVELS = (0.85, 0.65, 0.5, 0.35, 0.2)
"""Heights of the sections as shares of the lungs' height."""

_CELL, _GAP = Rect(0, 0, 420, 300), 8


def draw_comparison(found: Comparison, note: str) -> Sheet:
    """Draw the enhanced volumes of both scans with their lesions, from the head down."""
    columns = (("earlier", found.earlier), ("later", found.later))
    height = len(LEVELS) * (_CELL.height + _GAP) + 60
    sheet = Sheet(
        2 * _CELL.width + _GAP, height, title="Two scans of one patient", note=note,
        subtitle=(
            "enhanced, black 40 HU below each scan's own baseline, white 280 HU above; lesions red;"
            " equal relative heights, not registered"
        ),
    )  # fmt: skip
    for column, (title, one) in enumerate(columns):
        left = column * (_CELL.width + _GAP)
        baseline = one.entry.get("severity_reference_hu")
        text = title if baseline is None else f"{title}, baseline {baseline:.0f} HU"
        sheet.text((left, 4), text, size=18)
        _draw_column(sheet, one, left)
    changed = found.report["sets"].get("all")
    if changed is not None:
        counts = ", ".join(f"{changed[f'{f}_lesions']} {f}" for f in _FATES)
        colour = AMBER if found.report["flags"] else GREY
        lines = [f"lesions: {counts}", *found.report["flags"]]
        sheet.text((0, height - 26), "; ".join(lines), size=16, colour=colour)
    return sheet


_FATES = ("resolved", "persisting", "new")


def _draw_column(sheet: Sheet, one: Stored, left: int) -> None:
    masks, mm = one.masks()
    lung = masks["lung"]
    box = extent(lung) or tuple(slice(0, n) for n in lung.shape)
    grey = _enhanced(one, lung.shape)
    lesions = [masks[n] for n in ("visible", *ENHANCED_SETS) if n in masks]
    x, y, z = box
    for row, share in enumerate(LEVELS):
        level = min(z.stop - 1, z.start + int(share * (z.stop - z.start)))
        cell = Rect(left, 34 + row * (_CELL.height + _GAP), _CELL.width, _CELL.height)
        rect = fit(((x.stop - x.start) * mm[0], (y.stop - y.start) * mm[1]), cell)
        picture = grey_to_rgb(enlarge(to_8_bits(enhanced_grey(grey[x, y, level])), rect))
        if lesions:
            there = np.logical_or.reduce([mask[x, y, level] > 0 for mask in lesions])
            inside = (there & (lung[x, y, level] > 0)).astype(np.uint8)
            paint_labels(picture, inside, colours={1: RED}, strength=0.15, line=1)
        sheet.paste((rect.left, rect.top), picture)
        name_sides(sheet, rect, "RL", size=13)
        at = (cell.left + 8, cell.bottom - 8)
        sheet.text(at, f"{share:.0%} of the height", size=13, anchor="lb", plate=True)


def _enhanced(one: Stored, shape: tuple[int, ...]) -> NDArray[Any]:
    """The enhanced volume, normalised; the darkest where none was written."""
    try:
        volume, _ = one.volume("enhanced")
    except InputError:
        return np.full(shape, ENHANCED_RANGE[0], np.float32)
    return (volume / HU_SCALE).astype(np.float32)
