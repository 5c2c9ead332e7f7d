"""Smoother outlines of the lungs, slice by slice, by active contours (spec covid_mtl §4.3).

Each lung is closed, its outline snaps to edges of the scan (`snake`), and what it then
encloses is added and smoothed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import (
    LAST_CLOSING,
    LAST_EROSION,
    OUTLINE_CLOSING,
    OUTLINE_LEVEL,
    PLAIN_CLOSING,
    SMALL_LUNG,
)

from .contours import find_contours
from .snake import snakes

Slice = NDArray[np.uint8]
"""A mask [y, x] of 0 and 1."""


def refine_slices(
    stored: NDArray[np.uint16 | np.int16], lung: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Refine the lungs of some slices.

    Parameters
    ----------
    stored
        uint16 or int16 [z, y, x]: stored values in voxels of 1 mm. The type counts: gradients are
        measured in parts of its range, so that int16 gives slightly other outlines.
    lung
        uint8 [z, y, x], 0 or 1.

    Returns
    -------
    uint8 [z, y, x], 0 or 1.
    """
    out = np.zeros_like(lung)
    for image, mask, refined in zip(stored, lung, out, strict=True):
        if mask.any():
            refined[:] = refine_slice(image, mask)
    return out


def refine_slice(image: NDArray[np.uint16 | np.int16], lung: Slice) -> Slice:
    """Refine the lungs of one slice, which has some; see `refine_slices`."""
    labels, areas = _components(lung)
    if len(areas) < 2 or areas.sum() < SMALL_LUNG:
        return closing(lung, PLAIN_CLOSING)
    first = np.isin(labels, 1 + np.flatnonzero(areas == areas.max())).astype(np.uint8)
    grown = lung.copy()
    for one in (first, lung - first):
        if one.any():
            grown |= _outlined(image, one)
    return _smoothed(grown)


def closing(mask: Slice, radius: int) -> Slice:
    """Close a mask by a disk: 0 around the picture for the dilation, 1 for the erosion."""
    left, top, width, height = cv2.boundingRect(mask)
    reach = 2 * radius + 1  # beyond it the closing adds nothing
    part = (
        slice(max(0, top - reach), top + height + reach),
        slice(max(0, left - reach), left + width + reach),
    )
    out = np.zeros_like(mask)
    out[part] = _erosion(cv2.dilate(mask[part], disk(radius)), radius)
    return out


@cache
def disk(radius: int) -> Slice:
    """All pixels within `radius` of the centre: 13 for 2, 81 for 5, 317 for 10."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _erosion(mask: Any, radius: int) -> Any:
    return cv2.erode(mask, disk(radius))  # OpenCV takes what lies around the picture for 1


def _outlined(image: NDArray[np.uint16 | np.int16], lung: Slice) -> Slice:
    """What the snakes of a lung enclose."""
    inside = np.where(lung > 0, image, image.dtype.type(0))
    contours = find_contours(closing(lung, OUTLINE_CLOSING), OUTLINE_LEVEL)
    enclosed = np.zeros_like(lung)
    for points in snakes(inside, contours):
        enclosed |= _filled(points, lung.shape)
    return enclosed


def _filled(points: NDArray[np.int64], shape: tuple[int, ...]) -> Slice:
    """The pixels at the points and the holes between them; pixels touch at their sides."""
    outline = np.ones((shape[0] + 2, shape[1] + 2), np.uint8)  # a frame for the flood to go round
    rows, columns = (np.clip(points[:, a], 0, shape[a] - 1) for a in (0, 1))
    outline[1 + rows, 1 + columns] = 2
    cv2.floodFill(outline, None, (0, 0), (0,), flags=4)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return (outline[1:-1, 1:-1] > 0).astype(np.uint8)


def _components(mask: Slice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels of the 8-connected components and their areas; entry i is label i + 1."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return labels, statistics[1:, cv2.CC_STAT_AREA]


def _smoothed(lung: Slice) -> Slice:
    """Smooth the largest component (all of them where several are as large) and the second."""
    labels, areas = _components(lung)
    kept = np.flatnonzero(areas == areas.max()).tolist()
    rest = np.where(areas == areas.max(), 0, areas)
    if rest.any():
        kept.append(int(rest.argmax()))
    out = np.zeros_like(lung)
    for index in kept:
        one = (labels == index + 1).astype(np.uint8)
        out |= closing(_erosion(one, LAST_EROSION), LAST_CLOSING)
    return out
