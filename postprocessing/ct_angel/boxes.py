"""From lesion masks to boxes, valid region and quadrants (spec ct-angel §6).

Left and right are those of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.ct_angel import (
    MIN_BOX_AREA,
    MIN_VALID_SHARE,
    PARITY_BOXES,
    VALID_OVERLAP,
    QuadrantMode,
    SizeMode,
    ValidMode,
)
from hilum.preprocessing.arrays import Array, to_host

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BoxRules:
    """How a mask becomes boxes.

    Attributes
    ----------
    parity
        As the published program does: the three components with the most contour vertices, in that
        order, of any size. Otherwise all components above the size limit, largest first.
    size_mode
        What the limit of 25 pixels is compared with: the box's area or the mask's.
    valid_mode
        When a lesion lies inside the valid region: its centroid does, or half its pixels do.
    quadrant_mode
        Which quadrants a lesion flags: those of its pixels, or that of its centroid.
    """

    parity: bool = False
    size_mode: SizeMode = "box"
    valid_mode: ValidMode = "centroid"
    quadrant_mode: QuadrantMode = "pixels"


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """One component of a lesion mask, in pixels of the mask.

    Attributes
    ----------
    box
        Smallest upright rectangle around it.
    area
        Its pixels.
    centroid
        Mean x and y of its pixels.
    mean_probability, max_probability
        Over its pixels; NaN without a probability map.
    pixels
        bool [height, width] of the box.
    quadrants
        What it flags, see `catalog.ct_angel.QUADRANTS`; set by `assess_slice`.
    """

    box: Rectangle
    area: int
    centroid: tuple[float, float]
    mean_probability: float
    max_probability: float
    pixels: NDArray[np.bool_] = field(repr=False)
    quadrants: tuple[int, ...] = ()

    @property
    def box_area(self) -> int:
        """Pixels of the box."""
        return self.box[2] * self.box[3]


@dataclass(frozen=True, slots=True)
class SliceFinding:
    """What one slice shows.

    Attributes
    ----------
    lesions
        Those that count.
    dropped
        How many lay outside the valid region.
    valid
        The valid region's rectangle; None when it was not looked for or not found.
    valid_missing
        It was looked for and not found, so that nothing counts.
    """

    lesions: tuple[Lesion, ...]
    dropped: int = 0
    valid: Rectangle | None = None
    valid_missing: bool = False

    @property
    def positive(self) -> bool:
        """At least one lesion counts."""
        return bool(self.lesions)

    @property
    def quadrants(self) -> frozenset[int]:
        """Quadrants flagged by any lesion."""
        return frozenset(q for lesion in self.lesions for q in lesion.quadrants)


def assess_slice(
    mask: Array,
    probability: Array | None = None,
    valid: Array | None = None,
    rules: BoxRules | None = None,
) -> SliceFinding:
    """Find what counts on one slice; runs on the host.

    Parameters
    ----------
    mask
        uint8 [H, W], lesion where not 0; NumPy or CuPy, as the others are.
    probability
        [H, W] of any floating type, or None.
    valid
        uint8 [H, W], valid region where not 0; None to take every lesion.
    rules
        None: the defaults.
    """
    rules, mask = rules or BoxRules(), to_host(mask)
    probability = None if probability is None else to_host(probability)
    lesions = (
        parity_lesions(mask, probability)
        if rules.parity
        else find_lesions(mask, probability, rules.size_mode)
    )
    height, width = mask.shape
    rectangle, kept = None, lesions
    if valid is not None and rules.valid_mode != "off":
        rectangle = valid_rectangle(to_host(valid))
        if rectangle is None:
            return SliceFinding((), len(lesions), valid_missing=True)
        kept = tuple(found for found in lesions if _inside(found, rectangle, rules.valid_mode))
    x, y, w, h = rectangle or (0, 0, width, height)
    centre = (x + w / 2, y + h / 2)
    flagged = tuple(
        Lesion(
            found.box, found.area, found.centroid, found.mean_probability, found.max_probability,
            found.pixels, quadrants_of(found, centre, rules.quadrant_mode),
        )
        for found in kept
    )  # fmt: skip
    return SliceFinding(flagged, len(lesions) - len(kept), rectangle)


def find_lesions(
    mask: Mask,
    probability: NDArray[np.floating] | None = None,
    size_mode: SizeMode = "box",
) -> tuple[Lesion, ...]:
    """8-connected components above 25 pixels, the largest first (ties: upper, then left)."""
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(
        (mask > 0).astype(np.uint8), connectivity=8
    )
    measured = stats[:, cv2.CC_STAT_AREA]
    if size_mode == "box":
        measured = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    lesions = []
    for label in (np.flatnonzero(measured[1:] > MIN_BOX_AREA) + 1).tolist():
        x, y, w, h, area = (int(v) for v in stats[label])
        pixels = labels[y : y + h, x : x + w] == label
        centre = (float(centroids[label][0]), float(centroids[label][1]))
        lesions.append(_lesion((x, y, w, h), area, centre, pixels, probability))
    return tuple(sorted(lesions, key=lambda found: (-found.area, found.box[1], found.box[0])))


def parity_lesions(
    mask: Mask, probability: NDArray[np.floating] | None = None
) -> tuple[Lesion, ...]:
    """Take the three outermost components whose polygonal contours have the most vertices."""
    binary = (mask > 0).astype(np.uint8)
    contours = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[-2]
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(binary, connectivity=8)
    lesions = []
    for contour in sorted(contours, key=len, reverse=True)[:PARITY_BOXES]:
        column, row = (int(v) for v in contour[0][0])
        label = int(labels[row, column])
        x, y, w, h, area = (int(v) for v in stats[label])
        centre = (float(centroids[label][0]), float(centroids[label][1]))
        pixels = labels[y : y + h, x : x + w] == label
        lesions.append(_lesion((x, y, w, h), area, centre, pixels, probability))
    return tuple(lesions)


def valid_rectangle(valid: Mask) -> Rectangle | None:
    """Box of the largest component of the valid region [H, W]; None below 1 % of the slice."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        (valid > 0).astype(np.uint8), connectivity=8
    )
    if count < 2:
        return None
    x, y, w, h, area = (int(v) for v in stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())])
    return (x, y, w, h) if area >= MIN_VALID_SHARE * valid.size else None


def quadrants_of(
    lesion: Lesion, centre: tuple[float, float], mode: QuadrantMode = "pixels"
) -> tuple[int, ...]:
    """Quadrants that a lesion flags: 0 upper left, 1 upper right, 2 lower left, 3 lower right.

    Parameters
    ----------
    centre
        x and y; pixels of a smaller index are left and upper.
    """
    if mode == "centroid":
        x, y = lesion.centroid
        return (2 * (y >= centre[1]) + (x >= centre[0]),)
    x0, y0, w, h = lesion.box
    column = min(max(math.ceil(centre[0] - x0), 0), w)
    row = min(max(math.ceil(centre[1] - y0), 0), h)
    parts = (
        lesion.pixels[:row, :column], lesion.pixels[:row, column:],
        lesion.pixels[row:, :column], lesion.pixels[row:, column:],
    )  # fmt: skip
    return tuple(q for q, part in enumerate(parts) if part.any())


def scale_rectangle(box: Rectangle, side: int, source: tuple[int, int]) -> Rectangle:
    """Bring a rectangle from a mask to the slice it was made from.

    Parameters
    ----------
    side
        Side of the mask, which is square.
    source
        Height and width of the slice; one that is not square was padded on its right or lower side
        (`preprocessing.square.fit_square`).

    Returns
    -------
    The near edges rounded down and the far ones up, within the slice.
    """
    x, y, w, h = box
    height, width = source
    full = max(source)
    left, right = min(width, x * full // side), min(width, -(-(x + w) * full // side))
    top, bottom = min(height, y * full // side), min(height, -(-(y + h) * full // side))
    return left, top, right - left, bottom - top


def _lesion(
    box: Rectangle,
    area: int,
    centroid: tuple[float, float],
    pixels: NDArray[np.bool_],
    probability: NDArray[np.floating] | None,
) -> Lesion:
    mean = highest = math.nan
    if probability is not None:
        x, y, w, h = box
        values = probability[y : y + h, x : x + w][pixels].astype(np.float64)
        mean, highest = float(values.mean()), float(values.max())
    return Lesion(box, area, centroid, mean, highest, pixels)


def _inside(lesion: Lesion, rectangle: Rectangle, mode: ValidMode) -> bool:
    x, y, w, h = rectangle
    if mode == "centroid":
        cx, cy = lesion.centroid
        return x <= cx <= x + w - 1 and y <= cy <= y + h - 1
    x0, y0, _, _ = lesion.box
    inside = lesion.pixels[max(0, y - y0) : max(0, y + h - y0), max(0, x - x0) : max(0, x + w - x0)]
    return int(inside.sum()) >= VALID_OVERLAP * lesion.area
