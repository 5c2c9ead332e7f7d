"""Which part of a lung mask is the image-left lung and which the image-right, and their cuts.

Spec cxr §8.1 and §8.2; the corrected rules are §15, rows 3 to 7 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array

from .components import Components, column_counts, row_counts

_SPAN = 0.1
"""A component that reaches this share of the frame's width beyond its middle, on either side, may
be two merged lungs."""

_VALLEY = 0.8
"""Two merged lungs are lower between them than this share of the lower one's tallest column."""


@dataclass(frozen=True, slots=True)
class LungRegion:
    """One lung in the crop frame.

    Attributes
    ----------
    box
        Left, top, right, bottom in pixels; right and bottom excluded.
    pixels
        uint8 [box height, box width], 0 or 1: what counts as this lung inside the box.
    cuts
        First row of the middle zone and first row of the lower zone, in rows of the frame; a zone
        without rows of its own starts where the next one does.
    height
        Rows of the frame.
    """

    box: tuple[int, int, int, int]
    pixels: NDArray[Any]
    cuts: tuple[int, int]
    height: int

    def zone_areas(self) -> NDArray[np.int64]:
        """Pixels of the lower, middle and upper zone, int64 [3]."""
        return self._by_zone(self.pixels)

    def zone_counts(self, mask: NDArray[Any]) -> NDArray[np.int64]:
        """Pixels of a mask, uint8 [H, W] of 0 and 1, in each zone, int64 [3]."""
        left, top, right, bottom = self.box
        return self._by_zone(mask[top:bottom, left:right] & self.pixels)

    def _by_zone(self, pixels: NDArray[Any]) -> NDArray[np.int64]:
        rows = row_counts(pixels)
        middle, lower = (min(max(c - self.box[1], 0), len(rows)) for c in self.cuts)
        return np.array([rows[lower:].sum(), rows[middle:lower].sum(), rows[:middle].sum()])


def find_pair(
    found: Components, *, mode: Mode, box: Array, side: int
) -> tuple[LungRegion | None, LungRegion | None]:
    """Tell the image-left and the image-right lung.

    Parameters
    ----------
    found
        Components of the lung mask in the crop frame.
    mode
        ``"parity"``: labels 1 and 2, each with everything inside its bounding box; a single
        component is both lungs. ``"corrected"``: the two largest components, pixel by pixel; a
        single one is split at the mediastinum when it spans both sides, else the other lung is
        missing.
    box, side
        The crop in the stage I frame, [4], and the side of that frame in pixels.

    Returns
    -------
    The two lungs; None for one that is missing (corrected mode only).
    """
    return _parity_pair(found) if mode == "parity" else _corrected_pair(found, box, side)


def bisection_cut(below: NDArray[Any], target: int) -> int:
    """Cut a lung by the published bisection, which returns its last probe, not the best.

    Parameters
    ----------
    below
        int64 [H + 1], pixels of the lung in the lowest k rows.
    target
        Pixels that should lie below the cut.

    Returns
    -------
    Rows below the cut: the largest k with ``below[k] <= target``, or one more (spec cxr §8.2).
    """
    low, high, last = 0, len(below) - 1, 0
    while low <= high:
        last = (low + high) // 2
        if below[last] <= target:
            low = last + 1
        else:
            high = last - 1
    return last


def nearest_cut(below: NDArray[Any], third: int) -> int:
    """Cut a lung where the area below is nearest to `third` thirds of it; the lowest such row."""
    return int(np.argmin(np.abs(3 * below - third * below[-1])))


def _parity_pair(found: Components) -> tuple[LungRegion, LungRegion]:
    height, width = found.labels.shape
    if len(found) == 0:
        empty = _region(found, (0, 0, width, height), np.zeros((height, width), np.uint8), "parity")
        return empty, empty
    first, second = 0, min(1, len(found) - 1)
    if int(found.centroid_x(first)) >= int(found.centroid_x(second)):
        first, second = second, first
    regions = []
    for index in (first, second):
        left, top, right, bottom = box = _box(found, index)
        inside = (found.labels[top:bottom, left:right] > 0).astype(np.uint8)
        regions.append(_region(found, box, inside, "parity"))
    return regions[0], regions[1]


def _corrected_pair(
    found: Components, crop: Array, side: int
) -> tuple[LungRegion | None, LungRegion | None]:
    if len(found) == 0:
        return None, None
    largest = np.argsort(-found.areas, kind="stable")[:2]
    if len(largest) == 1:
        return _single(found, crop, side)
    left, right = sorted(
        largest, key=lambda i: (found.centroid_x(i), found.boxes[i, 0], found.boxes[i, 2], i)
    )
    return _of_label(found, left), _of_label(found, right)


def _single(
    found: Components, crop: Array, side: int
) -> tuple[LungRegion | None, LungRegion | None]:
    """Split merged lungs, or find on which side of the chest the only lung is."""
    left, top, right, bottom = _box(found, 0)
    pixels = (found.labels[top:bottom, left:right] == 1).astype(np.uint8)
    scale = (float(crop[2]) - float(crop[0])) / found.labels.shape[1]
    first, last = (float(crop[0]) + scale * x for x in (left, right))
    if first < (0.5 - _SPAN) * side and last > (0.5 + _SPAN) * side:
        split = _mediastinum(pixels)
        if split is not None:
            middle = left + split
            return (
                _region(found, (left, top, middle, bottom), pixels[:, :split], "corrected"),
                _region(found, (middle, top, right, bottom), pixels[:, split:], "corrected"),
            )
    lung = _region(found, (left, top, right, bottom), pixels, "corrected")
    centre = float(crop[0]) + scale * found.centroid_x(0)
    return (lung, None) if centre < side / 2 else (None, lung)


def _mediastinum(pixels: NDArray[Any]) -> int | None:
    """Column of the valley between two merged lungs, in the middle third; None without one."""
    heights = column_counts(pixels)
    width = len(heights)
    third = heights[width // 3 : width - width // 3]
    valley = np.flatnonzero(third == third.min()) + width // 3
    split = int(valley[np.argmin(np.abs(valley - width / 2))])
    if split == 0 or heights[split] > _VALLEY * min(heights[:split].max(), heights[split:].max()):
        return None
    return split


def _of_label(found: Components, index: int) -> LungRegion:
    left, top, right, bottom = box = _box(found, index)
    pixels = (found.labels[top:bottom, left:right] == index + 1).astype(np.uint8)
    return _region(found, box, pixels, "corrected")


def _box(found: Components, index: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = found.boxes[index].tolist()
    return left, top, right, bottom


def _region(
    found: Components, box: tuple[int, int, int, int], pixels: NDArray[Any], mode: Mode
) -> LungRegion:
    height = found.labels.shape[0]
    rows = np.zeros(height, np.int64)
    rows[box[1] : box[3]] = row_counts(pixels)
    below = np.concatenate([[0], np.cumsum(rows[::-1])])
    if mode == "parity":
        area = int(below[-1])
        lower, upper = bisection_cut(below, area // 3), bisection_cut(below, 2 * area // 3)
    else:
        lower, upper = nearest_cut(below, 1), nearest_cut(below, 2)
    return LungRegion(box, pixels, (height - upper, height - lower), height)
