"""Figures of a whole study: a title, a drawing area, a legend, and what every picture says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .canvas import AMBER, BACKGROUND, DISCLAIMER, GREY, WHITE, Colour, font, spelled

MARGIN = 24
_HEAD, _FOOT, _NOTE = 88, 34, 26


class Sheet:
    """A dark sheet with title above and disclaimer below a drawing area.

    Parameters
    ----------
    width, height
        Of the drawing area in pixels; coordinates below start at its upper left corner.
    title, subtitle
        Written above it.
    note
        Whose weights made the result; may be empty.
    accent
        Colour of the title.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        title: str,
        subtitle: str,
        note: str,
        accent: Colour = WHITE,
    ) -> None:
        title, subtitle, note = spelled(title), spelled(subtitle), spelled(note)
        needed = [_length(title, 34), _length(subtitle, 18), _length(DISCLAIMER, 17)]
        self.width = max(width, *needed, _length(note, 17))
        foot = _FOOT + (_NOTE if note else 0) + MARGIN // 2
        whole = (self.width + 2 * MARGIN, _HEAD + height + foot)
        self._image = Image.new("RGB", whole, BACKGROUND)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._draw.text((MARGIN, 14), title, font=font(34), fill=accent)
        self._draw.text((MARGIN, 56), subtitle, font=font(18), fill=GREY)
        below = _HEAD + height + 10
        self._draw.text((MARGIN, below), DISCLAIMER, font=font(17), fill=GREY)
        if note:
            self._draw.text((MARGIN, below + _NOTE), note, font=font(17), fill=AMBER)

    def paste(self, at: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        """Put a picture, uint8 [h, w, 3] (R, G, B), with its upper left corner `at` x, y."""
        self._image.paste(Image.fromarray(pixels), (MARGIN + at[0], _HEAD + at[1]))

    def rectangle(
        self,
        box: tuple[float, float, float, float],
        *,
        fill: Colour | None = None,
        outline: Colour | None = None,
        thickness: int = 1,
    ) -> None:
        """Draw a rectangle: left, top, right, bottom, the last two not included."""
        left, top, right, bottom = box
        self._draw.rectangle(
            (MARGIN + left, _HEAD + top, MARGIN + right - 1, _HEAD + bottom - 1),
            fill=fill, outline=outline, width=thickness,
        )  # fmt: skip

    def line(
        self, points: list[tuple[float, float]], colour: Colour, *, thickness: int = 1
    ) -> None:
        """Draw a line through `points` x, y."""
        moved = [(MARGIN + x, _HEAD + y) for x, y in points]
        self._draw.line(moved, fill=colour, width=thickness)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: int = 16,
        colour: Colour = WHITE,
        anchor: str = "lt",
        plate: bool = False,
    ) -> int:
        """Write at x, y, on a dark plate if asked for.

        Returns
        -------
        The x at which the text ends.
        """
        text = spelled(text)
        spot = (MARGIN + at[0], _HEAD + at[1])
        left, top, right, bottom = self._draw.textbbox(spot, text, font=font(size), anchor=anchor)
        if plate:
            self._draw.rounded_rectangle(
                (left - 4, top - 3, right + 4, bottom + 3), radius=4, fill=(0, 0, 0, 165)
            )
        self._draw.text(spot, text, font=font(size), fill=colour, anchor=anchor)
        return int(right) - MARGIN

    @property
    def picture(self) -> Image.Image:
        """The sheet as it is so far."""
        return self._image

    def save(self, path: Path) -> None:
        """Write the sheet as PNG."""
        self._image.save(path, format="PNG", compress_level=4)


def _length(text: str, size: int) -> int:
    return int(np.ceil(font(size).getlength(text)))
