"""Pictures of a CT-Angel result: positive slices with boxes, contact sheet, chart of quadrants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.catalog import ct_angel as ct
from hilum.results.canvas import AMBER, CYAN, DISCLAIMER, GREY, RED, WHITE, Canvas, heat_colours
from hilum.results.sheet import Sheet

from .result import CtAngelResult, SliceResult

FOOTER = 126
DIM = (44, 48, 55)
"""Colour of a cell without a flag."""

LABELLED = 6
"""Boxes of a slice that get their probability written beside them, the largest."""

MAX_THUMBNAILS = 400
"""Slices on a contact sheet; of more, every second or third and so on is shown."""


def drawings(result: CtAngelResult, note: str) -> Iterator[tuple[str, Canvas | Sheet]]:
    """Draw all pictures of a study, one after the other, each with the name of its file.

    Parameters
    ----------
    note
        The weights note; may be empty.
    """
    shown = result.positive_slices or (result.slices if len(result.slices) == 1 else ())
    shown = sorted(shown, key=lambda found: found.shown)
    digits = max(3, len(str(len(result.slices))))
    thumbnails = _Thumbnails(len(shown))
    for number, found in enumerate(shown):
        pixels = result.source.read(found.index).pixels
        stem = f"slice-{found.shown:0{digits}d}"
        yield f"{stem}.png", draw_slice(result, found, pixels, note)
        if result.options.heat and found.heat is not None:
            yield f"{stem}-heat.png", draw_slice(result, found, pixels, note, heat=True)
        thumbnails.add(number, found, pixels)
    if result.positive_slices and len(result.slices) > 1:
        yield "contact.png", thumbnails.sheet(result, note)
    if result.source.ordered and len(result.slices) > 1:
        yield "quadrants.png", draw_quadrants(result, note)


def draw_slice(
    result: CtAngelResult,
    found: SliceResult,
    pixels: NDArray[np.uint8],
    note: str,
    *,
    heat: bool = False,
) -> Canvas:
    """Draw one slice with its boxes, or with the heat map of its probabilities under them.

    Parameters
    ----------
    pixels
        The windowed slice, uint8 [H, W].
    """
    canvas = Canvas(pixels, footer=FOOTER)
    height, width = pixels.shape
    if heat and found.heat is not None:
        side = max(height, width)
        canvas.heat(found.heat, (0, 0, side, side))
    if found.valid_original is not None:
        _dashed(canvas, found.valid_original)
    for box in found.boxes:
        x, y, w, h = box.box_original
        canvas.rectangle((x, y, x + w, y + h), RED, 1 if heat else 2)
    if result.source.sides_known:
        canvas.label((0, height / 2), "R", colour=GREY, anchor="lm")
        canvas.label((width, height / 2), "L", colour=GREY, anchor="rm")
    for box in sorted(found.boxes, key=lambda b: -b.area)[:LABELLED]:
        x, y, _, _ = box.box_original
        spot = (x, y - 16 / canvas.scale)
        canvas.label(spot, f"{box.max_probability:.2f}", size=15, colour=RED, anchor="lm")
    _footer(canvas, result, found, note, heat)
    return canvas


def _dashed(canvas: Canvas, box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
    for i in range(4):
        canvas.line(corners[i], corners[(i + 1) % 4], CYAN)


def _footer(
    canvas: Canvas, result: CtAngelResult, found: SliceResult, note: str, heat: bool
) -> None:
    total = len(result.slices)
    text = f"Slice {found.shown} of {total}" if total > 1 else "One slice"
    end = canvas.write((16, 10), text, size=34)
    if total > 1 and result.source.ordered:
        own = "" if found.file_order is None else f", no. {found.file_order} of the file"
        end = canvas.write((end + 14, 22), f"from the head{own}", size=19, colour=GREY)
    lesions = _count(len(found.boxes), "lesion")
    if found.valid_missing:
        lesions = "no valid region"
    end = canvas.write((end + 22, 18), lesions, size=24, colour=AMBER if found.boxes else GREY)
    flags = ", ".join(result.quadrant_names[q] for q in found.quadrants)
    canvas.write((end + 22, 22), flags, size=19, colour=GREY)
    line = f"{_window(result)}; lesion at p ≥ {result.options.threshold:.3f}"
    if found.valid_original is not None:
        line += "; valid region dashed"
        line += f", {found.dropped} outside it" if found.dropped else ""
    canvas.write((16, 54), line + ("; colours: probability" if heat else ""), size=17)
    canvas.write((16, 78), DISCLAIMER, size=16, colour=GREY)
    canvas.write((16, 100), note, size=16, colour=AMBER)
    if heat:
        _scale(canvas)


def _scale(canvas: Canvas) -> None:
    """The colours of 0 to 1 in the lower right corner of the footer."""
    bar = heat_colours(np.tile(np.arange(256, dtype=np.uint8)[::2], (12, 1)))
    left, top = canvas.width - 170, canvas.height + 82
    canvas.picture.paste(Image.fromarray(bar), (left, top))
    canvas.write((left - 14, 80), "0", size=15, colour=GREY)
    canvas.write((left + 134, 80), "1", size=15, colour=GREY)


class _Thumbnails:
    """Small pictures of positive slices, kept while the large ones are drawn."""

    def __init__(self, count: int) -> None:
        self._step = max(1, math.ceil(count / MAX_THUMBNAILS))
        self._count = math.ceil(count / self._step)
        self._side = 320 if self._count <= 12 else 240 if self._count <= 60 else 160
        self._kept: list[tuple[SliceResult, NDArray[np.uint8]]] = []

    def add(self, number: int, found: SliceResult, pixels: NDArray[np.uint8]) -> None:
        if number % self._step:
            return
        scale = self._side / max(pixels.shape)
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        grey = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        rgb = np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)
        for box in found.boxes:
            x, y, w, h = box.box_original
            near, far = (round(x * scale), round(y * scale)), (
                round((x + w) * scale) - 1, round((y + h) * scale) - 1
            )  # fmt: skip
            cv2.rectangle(rgb, near, far, RED, 1)
        self._kept.append((found, rgb))

    def sheet(self, result: CtAngelResult, note: str) -> Sheet:
        pitch = self._side + 8
        columns = min(len(self._kept), max(4, round(math.sqrt(1.6 * len(self._kept)))))
        rows = math.ceil(len(self._kept) / columns)
        shown = "" if self._step == 1 else f", one of {self._step} shown"
        sheet = Sheet(
            columns * pitch - 8,
            rows * pitch,
            title=_title(result),
            subtitle=f"{len(result.positive_slices)} of {len(result.slices)} slices positive"
            f"{shown}; {_window(result)}" + ("; amber: counts for the patient" * bool(result.runs)),
            note=note,
            accent=AMBER if result.positive else WHITE,
        )
        deciding = {i for run in result.runs for i in range(run.first, run.last + 1)}
        for place, (found, rgb) in enumerate(self._kept):
            x, y = pitch * (place % columns), pitch * (place // columns)
            sheet.paste((x, y), rgb)
            counts = found.index in deciding
            if counts:
                sheet.rectangle((x - 2, y - 2, x + self._side + 2, y + self._side + 2),
                                outline=AMBER, thickness=2)  # fmt: skip
            sheet.text((x + 8, y + 7), str(found.shown), size=18, plate=True,
                       colour=AMBER if counts else WHITE)  # fmt: skip
            names = [result.quadrant_names[q] for q in found.quadrants]
            flags = " ".join(_letters(name) for name in names)
            sheet.text((x + 8, y + self._side - 8), flags, size=13, plate=True, anchor="lb")
        return sheet


def draw_quadrants(result: CtAngelResult, note: str) -> Sheet:
    """Draw which quadrants each slice flags, the runs that decide, and the gaps."""
    count = len(result.slices)
    cell = min(26.0, 1320 / count)
    left, row, pitch = 118, 34, 46
    width = left + math.ceil(cell * count)
    sheet = Sheet(
        max(width, 760),
        4 * pitch + 84,
        title=_title(result),
        subtitle=f"{result.description}; positive with {result.options.run_length} slices in a row "
        "in one quadrant",
        note=note,
        accent=AMBER if result.positive else WHITE,
    )
    gap = 1 if cell >= 7 else 0
    for quadrant, title in enumerate(result.quadrant_names):
        y = quadrant * pitch
        sheet.text((0, y + row / 2), title, colour=GREY, anchor="lm")
        sheet.rectangle((left, y, left + cell * count, y + row), fill=DIM)
        for start, stop in _spans([quadrant in s.quadrants for s in result.slices], gap):
            x = left + cell * start
            sheet.rectangle((x, y, max(left + cell * stop - gap, x + 1), y + row), fill=RED)
        for run in result.runs:
            if run.quadrant == quadrant:
                x, end = left + cell * run.first, left + cell * (run.last + 1)
                sheet.rectangle((x - 2, y - 3, end + 1, y + row + 3), outline=AMBER, thickness=2)
    _axis(sheet, result, left, cell, 4 * pitch)
    return sheet


def _axis(sheet: Sheet, result: CtAngelResult, left: int, cell: float, bottom: int) -> None:
    """Slice numbers below the strips, gaps across them, and what the colours mean."""
    count = len(result.slices)
    for i in result.source.breaks:
        x = left + cell * (i + 1) - 1
        sheet.line([(x, -6), (x, bottom - 6)], CYAN, thickness=2)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if s * cell >= 34)
    second = step if (step - 1) * cell >= 34 else 2 * step
    for number in (1, *range(second, count + 1, step)):
        x = left + cell * (count - number + 0.5)
        sheet.line([(x, bottom - 8), (x, bottom - 3)], GREY)
        sheet.text((x, bottom), str(number), size=14, colour=GREY, anchor="mt")
    whose = "patient" if result.source.sides_known else "image"
    ends = f"slice, counted from the head, which is on the right; sides of the {whose}"
    sheet.text((left, bottom + 24), ends, size=14, colour=GREY)
    x = left
    legend = [(RED, "lesion in the quadrant")]
    legend += [(AMBER, "run that decides")] * bool(result.runs)
    legend += [(CYAN, "gap in the series")] * bool(result.source.breaks)
    for colour, meaning in legend:
        sheet.rectangle((x, bottom + 52, x + 14, bottom + 66), fill=colour)
        x = 28 + sheet.text((x + 22, bottom + 59), meaning, size=15, colour=GREY, anchor="lm")


def _letters(name: str) -> str:
    """A quadrant in two letters."""
    return "".join(word[0].upper() for word in name.replace("-", " ").split())


def _spans(flags: Sequence[bool], single: int) -> Iterator[tuple[int, int]]:
    """Begin and end of what is drawn as one bar: each slice where there is room, else runs."""
    start: int | None = None
    for i, flag in enumerate([*flags, False]):
        if start is not None and (single or not flag):
            yield start, i
            start = None
        if flag and start is None:
            start = i


def _title(result: CtAngelResult) -> str:
    if result.positive is None:
        return "No patient decision"
    if not result.positive:
        return "Patient negative"
    runs = _count(len(result.runs), "run")
    lengths = [r.length_mm for r in result.runs if r.length_mm is not None]
    longest = f", the longest {max(lengths):.1f} mm" if lengths else ""
    return f"Patient POSITIVE: {runs}{longest}"


def _window(result: CtAngelResult) -> str:
    if all(s.range_hu is None for s in result.slices):
        return "grey as in the picture"
    window, name = result.options.grey.window, result.options.window
    preset = f" ({name})" if name in ct.WINDOWS else ""
    return f"window {window.width:g} / {window.level:g} HU{preset}".replace("-", "−")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
