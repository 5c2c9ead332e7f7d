"""Pictures of COVID-MTL: the lungs in three sections with what the networks saw, and the answers.

Sections show the scan in voxels of 1 mm, upright: the patient's right is on the left, in sagittal
ones the front. Letters name the sides of the patient that are there in fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import CROP, HEADS, HU_OFFSET, WINDOW, WINDOW_START, Head
from hilum.postprocessing.covid_mtl import Answers
from hilum.preprocessing.covid_mtl.pipeline import Prepared, box_offsets
from hilum.preprocessing.windows import LUNG_WINDOW, display_window
from hilum.results.canvas import AMBER, BACKGROUND, CYAN, GREY, WHITE, Colour
from hilum.results.sections import Rect, Rgb, enlarge, grey_to_rgb, paint_labels
from hilum.results.sheet import Sheet

if TYPE_CHECKING:
    from PIL import Image

    from hilum.preprocessing.reading.volume import Geometry

    from .result import CovidMtlResult

WIDTH, GAP = 1440, 14
"""Of the three sections together in pixels, and between them."""

CAPTION, LEGEND = 26, 92
"""Heights above and below the sections in pixels."""

LUNG: Colour = CYAN
BOX: Colour = (240, 98, 146)
SEEN: Colour = AMBER
"""Colours of the lungs, the common box, and the networks' window."""

BAR_MM = 100
"""Length of the scale bar."""

LINE_LENGTH = 150
"""Characters of a line of flags and notes."""

_PATIENT = ("RL", "AP", "FH")
"""Sides at which the axes x, y, z of LPS coordinates begin and end."""

BARS, ROW, NAMES, VALUE = 560, 34, 330, 90
"""Width of a bar of probability 1, height of a row, widths of names and numbers in pixels."""

LINE, CHART_LINE_LENGTH = 28, 130
"""Height of a line below the bars in pixels, and its characters."""

SHORT = {"ct": "CT", "nat": "nucleic-acid test", "severity": "severity"}
"""The heads in a title."""

TRACK: Colour = (40, 44, 52)
TAKEN: Colour = CYAN
OTHER: Colour = (96, 104, 116)

NAMED = 3
"""Features that are named; more are counted."""


@dataclass(frozen=True, slots=True)
class Section:
    """A plane through the scan; all numbers are voxels, which measure 1 mm.

    Attributes
    ----------
    across
        Array axis that it cuts, at the index `at`.
    upright
        The last index of its rows is above.
    low, size
        First row and column of what is shown, and how many: scan and common box. Rows count
        downwards from the first index, or upwards to the last one.
    """

    title: str
    across: int
    at: int
    upright: bool
    low: tuple[int, int]
    size: tuple[int, int]

    def cut(self, volume: NDArray[Any], fill: int = 0) -> NDArray[Any]:
        """Cut a volume [z, y, x] as it is shown: [rows, columns], `fill` around the scan."""
        plane = np.take(volume, self.at, self.across)
        shown = np.full(self.size, fill, volume.dtype)
        top, left = -self.low[0], -self.low[1]
        shown[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
        return shown[::-1] if self.upright else shown

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """First row that is shown of a range of rows of the scan, and the one after the last."""
        if self.upright:
            return self.size[0] - (stop - self.low[0]), self.size[0] - (start - self.low[0])
        return start - self.low[0], stop - self.low[0]


def choose(prepared: Prepared) -> tuple[Section, Section, Section]:
    """Coronal, axial and sagittal section, each where most of the lungs is seen."""
    mask = prepared.lungs.mask
    shape = mask.shape
    at = [int(np.count_nonzero(mask, axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1))]
    starts = box_start(shape)
    low = [min(0, s) for s in starts]
    high = [max(n, s + c) for n, s, c in zip(shape, starts, CROP, strict=True)]
    z, y, x = (h - b for h, b in zip(high, low, strict=True))
    return (
        Section("coronal", 1, at[1], True, (low[0], low[2]), (z, x)),
        Section("axial", 0, at[0], False, (low[1], low[2]), (y, x)),
        Section("sagittal", 2, at[2], True, (low[0], low[1]), (z, y)),
    )


def box_start(shape: Sequence[int]) -> tuple[int, int, int]:
    """First voxel of the common box in a scan [z, y, x]; below 0 where the box is larger."""
    first, place = box_offsets(tuple(shape))
    z, y, x = (f - p for f, p in zip(first, place, strict=True))
    return z, y, x


def places(sections: Sequence[Section]) -> tuple[Rect, ...]:
    """Where the sections are drawn, in one scale, their lower edges on one line."""
    room = WIDTH - GAP * (len(sections) - 1)
    scale = room / sum(s.size[1] for s in sections)
    heights = [round(scale * s.size[0]) for s in sections]
    left, rects = 0.0, list[Rect]()
    for section, height in zip(sections, heights, strict=True):
        width = round(scale * section.size[1])
        rects.append(Rect(round(left), CAPTION + max(heights) - height, width, height))
        left += scale * section.size[1] + GAP
    return tuple(rects)


def draw_lungs(result: CovidMtlResult, note: str) -> Image.Image:
    """Draw the lungs over the scan, with the outlines of the common box and the networks' window.

    Parameters
    ----------
    note
        The weights note.
    """
    prepared = result.prepared
    sections = choose(prepared)
    rects = places(sections)
    bottom = max(r.bottom for r in rects)
    low, high = (LUNG_WINDOW.level + s * LUNG_WINDOW.width // 2 for s in (-1, 1))
    sheet = Sheet(
        WIDTH,
        bottom + LEGEND,
        title=f"Lungs {result.lung_ml:.0f} ml",
        subtitle=f"{result.study}; {result.mode}; voxels of 1 mm, black {low:g} HU, white "
        f"{high:g} HU",
        note=note,
        accent=WHITE if result.status == "ok" else AMBER,
    )
    sides = _sides(prepared.geometry)
    for section, rect in zip(sections, rects, strict=True):
        sheet.paste((rect.left, rect.top), paint(prepared, section, rect))
        _letters(sheet, rect, section, sides)
        caption = f"{section.title}, voxel {section.at} of {prepared.stored.shape[section.across]}"
        sheet.text((rect.left, rect.top - CAPTION + 6), caption, size=15, colour=GREY)
    _scale_bar(sheet, rects[1], rects[1].width / sections[1].size[1])
    _legend(sheet, prepared, bottom + 14)
    _doubts(sheet, result, bottom + 44)
    return sheet.picture


def paint(prepared: Prepared, section: Section, rect: Rect) -> Rgb:
    """Paint one section without any text: uint8 [height, width, 3] of `rect`."""
    stored = section.cut(prepared.stored, round(LUNG_WINDOW.level) + HU_OFFSET)
    hu = stored.astype(np.int32) - HU_OFFSET
    inside = section.cut(np.ones(prepared.stored.shape, np.uint8))
    picture = grey_to_rgb(enlarge(display_window(hu), rect))
    picture[enlarge(inside, rect) == 0] = BACKGROUND
    paint_labels(picture, section.cut(prepared.lungs.mask), colours={1: LUNG})
    start = box_start(prepared.stored.shape)
    window = tuple(a + b for a, b in zip(start, WINDOW_START, strict=True))
    for first, size, colour in ((start, CROP, BOX), (window, WINDOW, SEEN)):
        _frame(picture, section, first, size, colour)
    return picture


def draw_answers(result: CovidMtlResult, note: str) -> Image.Image:
    """Draw the probabilities of every head that was answered, and whether the answers agree.

    Parameters
    ----------
    note
        The weights note.
    """
    heads = [HEADS[name] for name in result.probabilities]
    lines = [_agreement(result.answers), *_features(result)]
    if result.flags:
        lines.append((_flags(result), AMBER))
    rows = sum(len(head.classes) + 2 for head in heads)
    title = "; ".join(f"{SHORT[head.name]} {result.classes[head.name]}" for head in heads)
    sheet = Sheet(
        NAMES + BARS + VALUE,
        rows * ROW + len(lines) * LINE,
        title=title[0].upper() + title[1:],
        subtitle=f"{result.study}; network {result.network}, {result.mode}",
        note=note,
        accent=WHITE if result.status == "ok" else AMBER,
    )
    top = 0
    for head in heads:
        _head(sheet, head, result.probabilities[head.name], top)
        top += (len(head.classes) + 2) * ROW
    for number, (text, colour) in enumerate(lines):
        at = (0, top + number * LINE)
        sheet.text(at, text[:CHART_LINE_LENGTH], size=16, colour=colour)
    return sheet.picture


def _frame(
    picture: Rgb, section: Section, first: Sequence[int], size: Sequence[int], colour: Colour
) -> None:
    """Outline a box of the scan where a section shows it; inside its own edge."""
    rows, columns = (axis for axis in range(3) if axis != section.across)
    if not first[section.across] <= section.at < first[section.across] + size[section.across]:
        return
    top, bottom = section.rows(first[rows], first[rows] + size[rows])
    left = first[columns] - section.low[1]
    down, along = (n / s for n, s in zip(picture.shape[:2], section.size, strict=True))
    corners = (left * along, top * down), ((left + size[columns]) * along, bottom * down)
    (x0, y0), (x1, y1) = ((round(x), round(y)) for x, y in corners)
    cv2.rectangle(picture, (x0 + 1, y0 + 1), (x1 - 2, y1 - 2), colour, 2)


def _sides(geometry: Geometry | None) -> tuple[str, str, str] | None:
    """Sides of the patient at the first and the last index of each array axis."""
    if geometry is None:
        return None
    z, y, x = (_ends(direction) for direction in geometry.direction)
    return z, y, x


def _ends(direction: Sequence[float]) -> str:
    axis = int(np.abs(direction).argmax())
    return _PATIENT[axis] if direction[axis] > 0 else _PATIENT[axis][::-1]


def _letters(
    sheet: Sheet, rect: Rect, section: Section, sides: tuple[str, str, str] | None
) -> None:
    """Name the sides of the patient at the edges of a section; nothing where they are unknown."""
    if sides is None:
        return
    down, along = (sides[axis] for axis in range(3) if axis != section.across)
    above, below = down[::-1] if section.upright else down
    x, y = rect.left + rect.width // 2, rect.top + rect.height // 2
    for at, letter, anchor in (
        ((rect.left + 10, y), along[0], "lm"), ((rect.right - 10, y), along[1], "rm"),
        ((x, rect.top + 10), above, "mt"), ((x, rect.bottom - 10), below, "mb"),
    ):  # fmt: skip
        sheet.text(at, letter, size=18, anchor=anchor, plate=True)


def _scale_bar(sheet: Sheet, rect: Rect, scale: float) -> None:
    left, y = rect.left + 14, rect.bottom - 16
    right = left + BAR_MM * scale
    sheet.rectangle((left, y, right, y + 4), fill=WHITE)
    sheet.text(((left + right) / 2, y - 4), f"{BAR_MM} mm", size=14, anchor="mb", plate=True)


def _legend(sheet: Sheet, prepared: Prepared, top: int) -> None:
    box, window = (" x ".join(str(n) for n in size) for size in (CROP, WINDOW))
    at = 0
    for colour, text in (
        (LUNG, "lungs"),
        (BOX, f"common box, {box} mm: {_share(prepared.box_share)} of the lungs"),
        (SEEN, f"window of the networks, {window} mm: {_share(prepared.window_share)} of those"),
    ):
        sheet.rectangle((at, top, at + 14, top + 14), outline=colour, thickness=3)
        at = 26 + sheet.text((at + 22, top + 7), text, size=16, colour=GREY, anchor="lm")


def _share(value: float) -> str:
    """A share in per cent that is 100 only when all of it is meant."""
    return f"{np.floor(1000 * value) / 10:g} %"


def _doubts(sheet: Sheet, result: CovidMtlResult, top: int) -> None:
    sheet.text((0, top), _flags(result)[:LINE_LENGTH], size=17, colour=AMBER)
    sheet.text((0, top + 24), "; ".join(result.notes)[:LINE_LENGTH], size=15, colour=GREY)


def _head(sheet: Sheet, head: Head, values: NDArray[np.float32], top: int) -> None:
    """The bars of one head, below its name."""
    sheet.text((0, top + ROW / 2), head.title, size=18, anchor="lm")
    for number, (name, value) in enumerate(zip(head.classes, values, strict=True), 1):
        taken, y = number - 1 == int(values.argmax()), top + number * ROW
        ink = WHITE if taken else GREY
        sheet.text((NAMES - 14, y + ROW / 2), name, size=17, colour=ink, anchor="rm")
        sheet.rectangle((NAMES, y + 5, NAMES + BARS, y + ROW - 5), fill=TRACK)
        if (length := round(BARS * float(value))) > 0:
            colour = TAKEN if taken else OTHER
            sheet.rectangle((NAMES, y + 5, NAMES + length, y + ROW - 5), fill=colour)
        at = (NAMES + BARS + 12, y + ROW / 2)
        sheet.text(at, f"{float(value):.3f}", size=17, colour=ink, anchor="lm")


def _flags(result: CovidMtlResult) -> str:
    return "; ".join(result.flags).replace("_", " ")


def _agreement(answers: Answers | None) -> tuple[str, Colour]:
    if answers is None:
        return "one question only: nothing to compare the answer with", GREY
    if answers.notes:
        return "; ".join(answers.notes), AMBER
    return "nucleic-acid test and severity agree", WHITE


def _features(result: CovidMtlResult) -> list[tuple[str, Colour]]:
    """What is to be said about the radiomic features, line by line."""
    if result.scaled is None:
        return [("this network takes no radiomic features", GREY)]
    count = len(result.scaled.values)
    found = [
        (f"{len(names)} {what}: {_some(names)}", AMBER)
        for names, what in (
            (result.scaled.replaced, "not computable, means of the published cases instead"),
            (result.scaled.clipped, "far outside the published cases, limited"),
        )
        if names
    ]
    return [(f"{count} radiomic features, computed by the {result.placement}", GREY), *found]


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
