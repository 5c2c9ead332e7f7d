"""Sections through the body on a sheet: placed in proportion, labels tinted, sides named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.lungmask import LEFT, RIGHT

from .canvas import AMBER, CYAN, Colour
from .sheet import Sheet

Rgb = NDArray[np.uint8]

ORANGE: Colour = (255, 148, 72)

LUNG_COLOURS: Mapping[int, Colour] = {RIGHT: CYAN, LEFT: ORANGE}
"""Right and left lung in all pictures."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels of a sheet's drawing area."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column beyond it."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + self.height


def fit(size: tuple[float, float], into: Rect) -> Rect:
    """The largest rectangle of the proportions `size` (height, width) in the middle of `into`."""
    scale = min(into.height / size[0], into.width / size[1])
    height, width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    left, top = into.left + (into.width - width) // 2, into.top + (into.height - height) // 2
    return Rect(left, top, width, height)


def enlarge(image: NDArray[Any], rect: Rect) -> NDArray[np.uint8]:
    """Resize a picture [h, w] or [h, w, 3] to the size of `rect`, smoothly."""
    shrink = rect.width < image.shape[1]
    rule = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    sized = cv2.resize(np.ascontiguousarray(image), (rect.width, rect.height), interpolation=rule)
    return np.asarray(sized, np.uint8)


def grey_to_rgb(grey: NDArray[np.uint8]) -> Rgb:
    """A grey picture [H, W] as [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def paint_labels(
    picture: Rgb,
    labels: NDArray[np.uint8],
    *,
    colours: Mapping[int, Colour] = LUNG_COLOURS,
    strength: float = 0.28,
    line: int = 2,
) -> None:
    """Tint labels [h, w] over a picture [H, W, 3] of the same field, with their contours."""
    height, width = picture.shape[:2]
    for label, colour in colours.items():
        soft = cv2.resize((labels == label).astype(np.float32), (width, height))
        mask = soft > 0.5
        under = picture[mask].astype(np.float32)
        picture[mask] = np.rint(under * (1 - strength) + np.array(colour, np.float32) * strength)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, colour, line, cv2.LINE_AA)


def plain(text: str) -> str:
    """A text without the signs that the typeface lacks."""
    return text.replace("×", "x").replace("−", "-").replace("–", "-").replace("≥", ">=")


def name_sides(sheet: Sheet, rect: Rect, sides: str, *, size: int = 18) -> None:
    """Write which sides of the patient (``"RL"``, ``"AP"``) a section's left and right are."""
    middle = rect.top + rect.height // 2
    for x, letter, anchor in ((rect.left + 10, sides[0], "lm"), (rect.right - 10, sides[1], "rm")):
        sheet.text((x, middle), letter, size=size, anchor=anchor, plate=True)


def banner(sheet: Sheet, rect: Rect, text: str, *, size: int = 20) -> None:
    """Write a warning across the top of a section."""
    height = size + 18
    sheet.rectangle((rect.left, rect.top, rect.right, rect.top + height), fill=AMBER)
    at = (rect.left + rect.width / 2, rect.top + height / 2)
    sheet.text(at, text, size=size, colour=(0, 0, 0), anchor="mm")
