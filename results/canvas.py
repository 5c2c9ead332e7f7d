"""What all result pictures share: a grey image, tinted masks, outlines, text, a footer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

CYAN: Colour = (0, 229, 255)
RED: Colour = (255, 45, 45)
WHITE: Colour = (255, 255, 255)
GREY: Colour = (170, 176, 182)
AMBER: Colour = (255, 193, 7)
BACKGROUND: Colour = (16, 18, 22)

DISCLAIMER = "Not a medical device. For research only."

MAX_SIDE, MIN_SIDE = 1400, 900
"""Longer side of a picture's image in pixels: large X-rays shrink, small ones grow."""


HEAT_STRENGTH = 0.8
"""Share of the colour where a heat map is strongest."""


def heat_colours(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of a heat map, uint8 [h, w] → [h, w, 3] (R, G, B)."""
    colours = cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.asarray(colours, np.uint8)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface of all pictures (the one that Pillow ships) at `size` pixels."""
    return ImageFont.load_default(size)


SMALLEST = 7
"""Pixels of text that is made to fit."""

_SPELLED = str.maketrans({"−": "-", "×": "x", "≥": ">=", "≤": "<=", "→": "to"})


def spelled(text: str) -> str:
    """Text in characters that the typeface has."""
    return text.translate(_SPELLED)


class Canvas:
    """An RGB picture of an image at display size, in the image's own coordinates.

    Parameters
    ----------
    image
        uint8 [H, W] or [H, W, 3] (B, G, R).
    footer
        Height in pixels of the strip below the image.
    """

    def __init__(self, image: NDArray[np.uint8], *, footer: int = 0) -> None:
        height, width = image.shape[:2]
        side = min(max(height, width, MIN_SIDE), MAX_SIDE)
        self.scale = side / max(height, width)
        self.width = max(1, round(width * self.scale))
        self.height = max(1, round(height * self.scale))
        shrink = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        shown = cv2.resize(image, (self.width, self.height), interpolation=shrink)
        grey = shown if shown.ndim == 2 else cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY)
        self._rgb = np.repeat(grey[:, :, None], 3, axis=2)
        self._footer = footer
        self._image: Image.Image | None = None

    def place(
        self, mask: NDArray[np.uint8], box: tuple[float, float, float, float]
    ) -> NDArray[np.bool_]:
        """A 0/1 mask that covers `box` (left, top, right, bottom in image pixels), as shown.

        Returns
        -------
        ndarray
            bool [height, width] of the picture, False outside the box.
        """
        left, top, right, bottom = (round(v * self.scale) for v in box)
        placed = np.zeros((self.height, self.width), bool)
        if right > left and bottom > top:
            soft = cv2.resize(
                mask.astype(np.float32),
                (right - left, bottom - top),
                interpolation=cv2.INTER_LINEAR,
            )
            inside = soft[: self.height - top, : self.width - left] > 0.5
            placed[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return placed

    def tint(self, mask: NDArray[np.bool_], colour: Colour, strength: float = 0.45) -> None:
        """Blend `colour` over the pixels of `mask` (bool, as shown)."""
        under = self._rgb[mask].astype(np.float32)
        self._rgb[mask] = np.rint(under * (1 - strength) + np.array(colour, np.float32) * strength)

    def outline(self, mask: NDArray[np.bool_], colour: Colour, thickness: int = 2) -> None:
        """Draw the contours of `mask` (bool, as shown)."""
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self._rgb, contours, -1, colour, thickness, cv2.LINE_AA)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: Colour) -> None:
        """Draw a dashed line between two points (x, y) in image pixels."""
        a, b = (np.array(point) * self.scale for point in (start, end))
        length, dash = float(np.hypot(*(b - a))), 12.0
        for begin in np.arange(0.0, length, 2 * dash):
            p, q = (a + (b - a) * (min(t, length) / length) for t in (begin, begin + dash))
            cv2.line(
                self._rgb, tuple(np.rint(p).astype(int)), tuple(np.rint(q).astype(int)),
                colour, 2, cv2.LINE_AA,
            )  # fmt: skip

    def rectangle(
        self, box: tuple[float, float, float, float], colour: Colour, thickness: int = 2
    ) -> None:
        """Draw a rectangle around `box` (left, top, right, bottom in image pixels)."""
        left, top, right, bottom = (round(v * self.scale) for v in box)
        grow = thickness // 2
        cv2.rectangle(
            self._rgb, (left - grow, top - grow), (right - 1 + grow, bottom - 1 + grow),
            colour, thickness,
        )  # fmt: skip

    def heat(self, values: NDArray[np.uint8], box: tuple[float, float, float, float]) -> None:
        """Lay a heat map over `box` (left, top, right, bottom in image pixels).

        Parameters
        ----------
        values
            uint8 [h, w]; 0 is transparent, 255 the strongest.
        """
        left, top, right, bottom = (round(v * self.scale) for v in box)
        size = (max(1, right - left), max(1, bottom - top))
        soft = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        soft = soft[: self.height - top, : self.width - left]
        under = self._rgb[top : top + soft.shape[0], left : left + soft.shape[1]]
        share = HEAT_STRENGTH * np.sqrt(soft[:, :, None].astype(np.float32) / 255)
        under[:] = np.rint(under * (1 - share) + heat_colours(soft) * share)

    @property
    def picture(self) -> Image.Image:
        """The picture so far with its footer; drawing of pixels ends, text begins."""
        if self._image is None:
            self._image = Image.new("RGB", (self.width, self.height + self._footer), BACKGROUND)
            self._image.paste(Image.fromarray(self._rgb), (0, 0))
        return self._image

    def label(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: int = 24,
        colour: Colour = WHITE,
        anchor: str = "mm",
    ) -> None:
        """Write `text` at a point (x, y) in image pixels on a dark plate, inside the picture."""
        text = spelled(text)
        draw = ImageDraw.Draw(self.picture, "RGBA")
        x, y = at[0] * self.scale, at[1] * self.scale
        left, top, right, bottom = draw.textbbox((x, y), text, font=font(size), anchor=anchor)
        dx = max(6 - left, 0) + min(self.width - 6 - right, 0)
        dy = max(4 - top, 0) + min(self.height - 4 - bottom, 0)
        plate = (left + dx - 6, top + dy - 4, right + dx + 6, bottom + dy + 4)
        draw.rounded_rectangle(plate, radius=5, fill=(0, 0, 0, 165))
        draw.text((x + dx, y + dy), text, font=font(size), fill=colour, anchor=anchor)

    def write(
        self, at: tuple[int, int], text: str, *, size: int = 20, colour: Colour = WHITE
    ) -> int:
        """Write `text` into the footer, at (x, y) pixels from its upper left corner.

        It becomes smaller than `size` where the picture is too narrow for it: a warning that is cut
        off is none.

        Returns
        -------
        int
            The x at which the text ends.
        """
        text = spelled(text)
        draw = ImageDraw.Draw(self.picture)
        spot = (at[0], self.height + at[1])
        while size > SMALLEST and draw.textbbox(spot, text, font=font(size))[2] > self.width - 8:
            size -= 1
        draw.text(spot, text, font=font(size), fill=colour)
        return int(draw.textbbox(spot, text, font=font(size))[2])

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        self.picture.save(path, format="PNG", compress_level=4)
