"""Pictures of a DLPE result: the published three panels, tissues, and the enhanced volume.

All of them show normalised space upright: in axial and coronal sections the patient's right is on
the left, in sagittal ones the front. Letters name the sides of the patient that are seen in fact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import dlpe as catalog
from hilum.preprocessing.arrays import to_host
from hilum.results.canvas import AMBER, GREY, RED, WHITE, Colour
from hilum.results.sections import Rect, enlarge, fit, grey_to_rgb, name_sides, paint_labels
from hilum.results.sheet import Sheet

from .overlay import ct_grey, enhanced_grey, panels, to_8_bits
from .result import DlpeResult
from .sections import Section, choose_sections, sides_of

GREEN: Colour = (64, 214, 104)
BLUE: Colour = (72, 140, 255)
PURPLE: Colour = (206, 120, 255)
YELLOW: Colour = (255, 236, 130)
PINK: Colour = (255, 130, 170)

TILE, ACROSS, GAP = 300, 4, 8
"""Width of an axial section in pixels, how many there are in a row, and what separates them."""

WIDTH = ACROSS * TILE + (ACROSS - 1) * GAP

LONG_HEIGHT, LEAST = 420, 60
"""Largest height of coronal and sagittal sections in pixels, and the smallest side of any cell."""

PANEL = 460
"""Side of a panel on the captioned sheet in pixels."""


@dataclass(frozen=True, slots=True)
class Layer:
    """How a mask is drawn: tinted with its outline, or the outline alone.

    Attributes
    ----------
    line
        Width of the outline in large sections; in small ones it is 1.
    """

    title: str
    colour: Colour
    tint: float = 0.0
    line: int = 1


@dataclass(frozen=True, slots=True)
class Scale:
    """What colours mean: uint8 [n, 3] from the lowest to the highest, and their names."""

    colours: NDArray[np.uint8]
    low: str
    high: str


TISSUES: Mapping[str, Layer] = {
    "lung": Layer("lungs", GREEN),
    "heart": Layer("heart", YELLOW),
    "vessel": Layer("vessels", RED, 0.7),
    "airway": Layer("airways", BLUE, 0.7),
    "artery": Layer("arteries", PINK, 0.7),
    "vein": Layer("veins", PURPLE, 0.7),
    "visible": Layer("visible lesions", AMBER),
}
"""In the order in which they are drawn."""

LESIONS: Mapping[str, Layer] = {
    "in_patient": Layer("lesions (in-patients)", RED, 0.25, line=2),
    "follow_up": Layer("lesions (follow-up)", RED, 0.25, line=2),
    "lesion": Layer("lesions (earlier network)", RED, 0.25, line=2),
    "visible": Layer("visible lesions", AMBER),
}


def panel_pixels(result: DlpeResult) -> NDArray[np.uint8]:
    """The published picture of the chosen slice, uint8 [H, 3 W, 3], without text (spec dlpe §10).

    Rows are axis 0 of normalised space, columns axis 1.
    """
    z = result.picture_slice
    ct = to_host(result.normalised.voxels[:, :, z])
    nothing = np.zeros(ct.shape, np.uint8)
    masks = [result.masks.get(name) for name in ("vessel", "airway")]
    vessel, airway = (nothing if m is None else to_host(m[:, :, z]) for m in masks)
    enhanced = np.full(ct.shape, catalog.ENHANCED_RANGE[0], np.float32)
    if result.enhancement is not None:
        enhanced = to_host(result.enhancement.volume[:, :, z])
    return to_8_bits(panels(ct, vessel, airway, enhanced))


def draw_panels(result: DlpeResult, note: str) -> Sheet:
    """Draw the three panels with captions.

    Parameters
    ----------
    note
        The weights note.
    """
    pixels = panel_pixels(result)
    height, width = pixels.shape[0], pixels.shape[1] // 3
    z, depth = result.picture_slice, result.normalised.voxels.shape[2]
    sides = sides_of(result.normalised)
    field = height * result.voxel_mm[0], width * result.voxel_mm[1]
    shown = f"slice {depth - z} of {depth} of normalised space from the head (--slice {z})"
    sheet = sheet_of(result, note, 3 * PANEL + 2 * GAP, PANEL + 34, shown)
    captions = (
        "CT, level −600 HU, width 1600 HU",
        "vessels red, airways blue",
        "enhanced: black 40 HU below the baseline, white 280 HU above",
    )
    for number, caption in enumerate(captions):
        rect = fit(field, Rect(number * (PANEL + GAP), 0, PANEL, PANEL))
        part = pixels[:, number * width : (number + 1) * width]
        sheet.paste((rect.left, rect.top), enlarge(part, rect))
        name_sides(sheet, rect, sides[1], size=15)
        sheet.text((rect.left, PANEL + 8), caption, size=15, colour=GREY)
    return sheet


def draw_tissues(result: DlpeResult, note: str) -> Sheet:
    """Draw lungs, airways and vessels over the CT: axial sections from the head, then long ones.

    Parameters
    ----------
    note
        The weights note.
    """

    def grey(section: Section) -> NDArray[np.uint8]:
        return to_8_bits(ct_grey(section.cut(result.normalised.voxels)))

    layers = _present(result, TISSUES)
    return montage(result, note, "CT, level −600 HU, width 1600 HU", grey, layers)


def draw_enhanced(result: DlpeResult, note: str) -> Sheet | None:
    """Draw lesions over the enhanced volume, in the same sections; None where there is none.

    Parameters
    ----------
    note
        The weights note.
    """
    if result.enhancement is None:
        return None
    volume = result.enhancement.volume

    def grey(section: Section) -> NDArray[np.uint8]:
        return to_8_bits(enhanced_grey(section.cut(volume)))

    layers = _present(result, LESIONS)
    if result.cohort == "both" and "follow_up" in layers:
        layers["follow_up"] = Layer(layers["follow_up"].title, PURPLE, line=2)
    shown = "enhanced volume, black 40 HU below the baseline, white 280 HU above"
    return montage(result, note, shown, grey, layers)


def _present(result: DlpeResult, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    return {name: layer for name, layer in layers.items() if name in result.masks}


def montage(
    result: DlpeResult,
    note: str,
    shown: str,
    pixels: Callable[[Section], NDArray[np.uint8]],
    layers: Mapping[str, Layer],
    scale: Scale | None = None,
) -> Sheet:
    """Sections of the lungs, uint8 [h, w] or [h, w, 3] each, with layers over them."""
    axial, long = choose_sections(
        result.masks["lung"], result.voxel_mm, sides_of(result.normalised)
    )
    tiles = _tiles(axial)
    row = _row(long, below=tiles[-1].bottom + GAP)
    bottom = row[-1].bottom
    sheet = sheet_of(result, note, WIDTH, bottom + 40, shown)
    for section, cell in zip((*axial, *long), (*tiles, *row), strict=True):
        rect = fit(section.size, cell)
        shown_pixels = enlarge(pixels(section), rect)
        picture = grey_to_rgb(shown_pixels) if shown_pixels.ndim == 2 else shown_pixels
        for name, layer in layers.items():
            mask, line = section.cut(result.masks[name]), layer.line if cell in row else 1
            paint_labels(picture, mask, colours={1: layer.colour}, strength=layer.tint, line=line)
        sheet.paste((rect.left, rect.top), picture)
        name_sides(sheet, rect, section.sides, size=13)
        at = (cell.left + 8, cell.bottom - 8)
        sheet.text(at, section.caption, size=13, anchor="lb", plate=True)
    _legend(sheet, result, layers, bottom + 14)
    if scale is not None:
        draw_scale(sheet, scale, bottom + 14)
    return sheet


def draw_scale(sheet: Sheet, scale: Scale, y: int) -> None:
    """Draw a strip of a scale's colours at the right, with what its ends mean."""
    width, height = len(scale.colours), 14
    left = WIDTH - width - 80
    sheet.paste((left, y), np.tile(scale.colours, (height, 1, 1)))
    ends = ((left - 8, scale.low, "rm"), (left + width + 8, scale.high, "lm"))
    for x, text, anchor in ends:
        sheet.text((x, y + height / 2), text, size=15, colour=GREY, anchor=anchor)


def _tiles(axial: Sequence[Section]) -> list[Rect]:
    """Cells of one size in rows; odd lungs get a cell that is not as odd."""
    height = _limited(TILE * axial[0].size[0] / axial[0].size[1], LEAST, 2 * TILE)
    return [
        Rect((n % ACROSS) * (TILE + GAP), (n // ACROSS) * (height + GAP), TILE, height)
        for n in range(len(axial))
    ]


def _row(long: Sequence[Section], below: int) -> list[Rect]:
    """Cells of one height side by side, in the middle."""
    shapes = [s.size[1] / s.size[0] for s in long]
    room = WIDTH - (len(long) - 1) * GAP
    height = _limited(room / sum(shapes), LEAST, LONG_HEIGHT)
    widths = [_limited(height * shape, LEAST, room // len(long)) for shape in shapes]
    if height * sum(shapes) <= room:
        widths = [max(LEAST, round(height * shape)) for shape in shapes]
    left, rects = max(0, (room - sum(widths)) // 2), list[Rect]()
    for width in widths:
        rects.append(Rect(left, below, width, height))
        left += width + GAP
    return rects


def _limited(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))


def sheet_of(result: DlpeResult, note: str, width: int, height: int, shown: str) -> Sheet:
    """A sheet with the window as its title and everything that limits the result in its note."""
    title = f"No window: {result.status.replace('_', ' ')}"
    if result.window is not None:
        level, window = result.window
        title = f"Optimal window: level {level} HU, width {window} HU".replace("-", "−")
    return Sheet(
        width, height, title=title, subtitle=f"{shown}; {result.source}; {result.mode}",
        note="   ".join(part for part in (result.preview_note, note) if part),
        accent=WHITE if result.status == "ok" else AMBER,
    )  # fmt: skip


def _legend(sheet: Sheet, result: DlpeResult, layers: Mapping[str, Layer], top: int) -> None:
    x, volumes = 0, result.volumes_ml
    for name, layer in layers.items():
        box = (x, top, x + 14, top + 14)
        if layer.tint:
            sheet.rectangle(box, fill=layer.colour)
        else:
            sheet.rectangle(box, outline=layer.colour, thickness=2)
        text = f"{layer.title} {volumes[name]:.{0 if volumes[name] >= 100 else 1}f} ml"
        if (share := result.lesion_shares.get(name)) is not None:
            text += f", {share:.1%} of the lungs"
        x = 26 + sheet.text((x + 22, top + 7), text, size=16, colour=GREY, anchor="lm")
    if not layers:
        sheet.text((0, top + 7), "no lesion network ran", size=16, colour=GREY, anchor="lm")
