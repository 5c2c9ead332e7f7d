"""The picture of a lung segmentation: one axial, one coronal and two sagittal sections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.lungmask import LEFT, RIGHT
from hilum.preprocessing.windows import display_window
from hilum.results.canvas import AMBER, GREY, WHITE
from hilum.results.sections import (
    LUNG_COLOURS,
    Rect,
    enlarge,
    fit,
    grey_to_rgb,
    name_sides,
    paint_labels,
    plain,
)
from hilum.results.sheet import Sheet

from .result import LungmaskResult

PANEL_WIDTH, PANEL_HEIGHT, GAP, TITLE = 600, 480, 14, 26

MIN_HEIGHT_MM = 25
"""A series that is less high is shown in one axial section."""

LINE_LENGTH = 130
"""Characters of a line of notes below the sections."""

Section = tuple[str, NDArray[np.uint8], NDArray[np.uint8], tuple[float, float], str]
"""Title, picture, labels, height and width in mm, sides."""


def draw(result: LungmaskResult, note: str) -> Sheet:
    """Draw sections through the middle of the lungs.

    Parameters
    ----------
    note
        The weights note.
    """
    sections = _sections(result)
    heights = [
        max(min(PANEL_HEIGHT, round(PANEL_WIDTH * s[3][0] / s[3][1])) for s in row)
        for row in (sections[:2], sections[2:])
        if row
    ]
    bottom = sum(heights) + len(heights) * (TITLE + GAP)
    across = 2 if len(sections) > 1 else 1
    sheet = Sheet(
        across * PANEL_WIDTH + (across - 1) * GAP,
        bottom + 24,
        title="Lungs" if result.lung.any() else "No lung found",
        subtitle=plain(result.series.description)
        + ("" if result.clean else "; volume not cleaned"),
        note=note,
        accent=WHITE if result.status == "ok" else AMBER,
    )
    for number, (title, image, labels, size, sides) in enumerate(sections):
        row = number // 2
        left = (number % 2) * (PANEL_WIDTH + GAP)
        top = sum(heights[:row]) + row * (TITLE + GAP)
        sheet.text((left, top + 4), title, size=16, colour=GREY)
        rect = fit(size, Rect(left, top + TITLE, PANEL_WIDTH, heights[row]))
        picture = grey_to_rgb(enlarge(image, rect))
        paint_labels(picture, labels)
        sheet.paste((rect.left, rect.top), picture)
        name_sides(sheet, rect, sides)
    _volumes(sheet, result)
    unusual = plain("; ".join([*(f.replace("_", " ") for f in result.flags), *result.notes]))
    colour = AMBER if result.flags else GREY
    sheet.text((0, bottom), unusual[: LINE_LENGTH // 2 * across], size=15, colour=colour)
    return sheet


def _volumes(sheet: Sheet, result: LungmaskResult) -> None:
    """The lungs' volumes in their colours, beside the title."""
    if not result.lung.any():
        return
    at = 130
    for name, volume, label in zip(
        ("right", "left"), result.volumes_ml, (RIGHT, LEFT), strict=True
    ):
        text = f"{name} {volume:.0f} ml"
        at = 34 + sheet.text((at, -68), text, size=28, colour=LUNG_COLOURS[label])


def _sections(result: LungmaskResult) -> list[Section]:
    lung, preview = result.lung, result.preview
    z, y, *columns = _middle(lung)
    step = -(-lung.shape[1] // preview.shape[1])
    high, deep, wide = (
        n * s for n, s in zip(lung.shape, result.series.geometry.spacing, strict=True)
    )
    axial = display_window(result.series.slice(z))
    title = f"axial, {result.series.where(z)} ({len(lung)} slices)"
    across = (title, axial, lung[z], (deep, wide), "RL")
    if high < MIN_HEIGHT_MM:
        return [across]
    return [
        across,
        ("coronal", preview[::-1, y // step], lung[::-1, y], (high, wide), "RL"),
        *(
            (
                f"sagittal, {side} lung",
                preview[::-1, :, x // step],
                lung[::-1, :, x],
                (high, deep),
                "AP",
            )
            for side, x in zip(("right", "left"), columns, strict=True)
        ),
    ]


def _middle(lung: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Slice, row, and a column of each lung in which most of it is seen."""
    depth, height, width = lung.shape
    slices, rows = np.zeros(depth, np.int64), np.zeros(height, np.int64)
    columns = np.zeros((2, width), np.int64)
    for k, plane in enumerate(lung):  # one by one: a mask of the whole takes as much again
        inside = plane > 0
        slices[k], rows = inside.sum(), rows + inside.sum(1)
        columns += [(plane == label).sum(0) for label in (RIGHT, LEFT)]
    places = [
        int(counts.argmax()) if counts.any() else otherwise
        for counts, otherwise in (
            (slices, depth // 2),
            (rows, height // 2),
            (columns[0], width // 4),
            (columns[1], 3 * width // 4),
        )
    ]
    return places[0], places[1], places[2], places[3]
