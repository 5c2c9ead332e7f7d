"""What lungmask does to a CT slice before its network: body, box, crop, 256 × 256.

Hofmanninger et al., Eur Radiol Exp 4:50 (2020), doi 10.1186/s41747-020-00173-2; spec lungmask §4.
Left and right come out right only for slices in LPS order (row 0 anterior, column 0 patient right).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.lungmask import BODY_HU, BODY_SIDE, HIGHEST_HU, LOWEST_HU, SIZE

from .arrays import Array, namespace, to_host
from .nearest import nearest_indices, resize_nearest

Box = tuple[int, int, int, int]
"""y0, x0, y1, x1; y1 and x1 excluded."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def prepare_slice(hu: Array, size: int = SIZE) -> tuple[Array, Box]:
    """Crop a slice to the body and bring it to the network's size.

    Parameters
    ----------
    hu
        [H, W] in HU, integer or floating point, NumPy or CuPy.
    size
        Side of the result.

    Returns
    -------
    [size, size] in HU, limited to −1024…600: int16 for integer input (rounded half away from zero),
    else float32; and the box it shows.

    See Also
    --------
    normalise : The last step before the network.
    """
    xp = namespace(hu)
    integer = xp.isdtype(hu.dtype, "integral")
    if integer and xp.iinfo(hu.dtype).bits == 8:
        hu = xp.astype(hu, xp.int16)
    limited = xp.clip(hu, LOWEST_HU, HIGHEST_HU)
    y0, x0, y1, x1 = box = body_box(limited)
    crop = limited[y0:y1, x0:x1]
    if integer:
        return resize_corners_int(xp.astype(crop, xp.int16), (size, size)), box
    resized = xp.minimum(_resize_corners_float(crop, (size, size)), HIGHEST_HU)
    return xp.astype(resized, xp.float32), box


def normalise(hu: Array) -> Array:
    """HU → 0…1: −1024 becomes 0, 600 becomes 1; float32 of the same shape."""
    xp = namespace(hu)
    limited = xp.astype(xp.clip(hu, LOWEST_HU, HIGHEST_HU), xp.float32)
    return (limited - LOWEST_HU) / (HIGHEST_HU - LOWEST_HU)


def body_box(hu: Array) -> Box:
    """Box of the body in a slice [H, W]; the whole slice where there is no body."""
    height, width = int(hu.shape[0]), int(hu.shape[1])
    coarse = _coarse_body(hu)
    if not coarse.any():
        return 0, 0, height, width
    if min(height, width) < BODY_SIDE:
        # Fewer pixels than the grid has: what was one region may fall apart.
        first = _first_region(resize_nearest(coarse, (height, width), "corners"))
        rows, columns = np.flatnonzero(first.any(1)), np.flatnonzero(first.any(0))
    else:
        rows = np.flatnonzero(coarse.any(1)[nearest_indices(BODY_SIDE, height, "corners")])
        columns = np.flatnonzero(coarse.any(0)[nearest_indices(BODY_SIDE, width, "corners")])
    if not len(rows) or not len(columns):
        return 0, 0, height, width
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def resize_corners_int(image: Array, shape: tuple[int, int]) -> Array:
    """Resize integers linearly, corners on corners, rounded half away from zero.

    Parameters
    ----------
    image
        int16 [H, W], within ±2000, NumPy or CuPy.
    shape
        Height and width of the result.

    Returns
    -------
    int16 [h, w].

    Notes
    -----
    The weights are whole numbers over (h − 1)(w − 1), so the sums are exact, and the rounding of
    ``scipy.ndimage.zoom`` (order 1) comes out the same.
    """
    xp = namespace(image)
    whole = 1
    sums = image
    for axis in (0, 1):
        low, high, weight, unit = _corner_taps(image.shape[axis], shape[axis])
        wide = xp.int32 if 4000 * whole * unit < 2**31 else xp.int64
        along = (slice(None), None) if axis == 0 else (None, slice(None))
        first = xp.astype(xp.take(sums, xp.asarray(low), axis=axis), wide)
        sums = xp.astype(xp.take(sums, xp.asarray(high), axis=axis), wide)
        sums -= first
        sums *= xp.asarray(weight, dtype=wide)[along]
        first *= unit
        sums += first
        whole *= unit
    if whole % 2:  # no sum lies half way between two integers
        sums *= 2
        sums += whole
        sums //= 2 * whole
        return xp.astype(sums, xp.int16)
    rounded = (2 * xp.abs(sums) + whole) // (2 * whole)
    return xp.astype(xp.where(sums < 0, -rounded, rounded), xp.int16)


def _resize_corners_float(image: Array, shape: tuple[int, int]) -> Array:
    xp = namespace(image)
    values = xp.astype(image, xp.float64)
    for axis in (0, 1):
        low, high, weight, unit = _corner_taps(image.shape[axis], shape[axis])
        along = (slice(None), None) if axis == 0 else (None, slice(None))
        first = xp.take(values, xp.asarray(low), axis=axis)
        second = xp.take(values, xp.asarray(high), axis=axis)
        values = first + (second - first) * xp.asarray(weight / unit)[along]
    return values


def _corner_taps(n_in: int, n_out: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]:
    """Both neighbours of each output sample, and the second one's weight over a common unit."""
    unit = max(1, n_out - 1)
    place = np.arange(n_out) * (n_in - 1)
    low = place // unit
    return low, np.minimum(low + 1, n_in - 1), place % unit, unit


def _coarse_body(hu: Array) -> NDArray[np.uint8]:
    """Body on the grid of 128 × 128, 0 or 1 (spec lungmask §4 step 2 a–f)."""
    dense = to_host(resize_nearest(hu, (BODY_SIDE, BODY_SIDE), "corners") > BODY_HU)
    mask = dense.astype(np.uint8)
    mask = _erode(cv2.dilate(mask, _CROSS), 1)
    mask = _erode(_filled(mask), 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = np.flatnonzero(areas == areas.max()) + 1
    if len(largest) > 1:
        # Of equal ones the first in reading order; labels need not be in that order.
        inside = labels[np.isin(labels, largest)]
        largest = inside[:1]
    body = (labels == largest[0]).astype(np.uint8)
    return cv2.dilate(body, _CROSS, iterations=2).astype(np.uint8, copy=False)


def _erode(mask: NDArray[Any], times: int) -> NDArray[Any]:
    """Erode with what lies outside the array counted as 0."""
    return cv2.erode(
        mask, _CROSS, iterations=times, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )


def _filled(mask: NDArray[Any]) -> NDArray[Any]:
    """Fill holes; the background is 8-connected."""
    padded = np.pad(mask, 1)
    cv2.floodFill(padded, None, (0, 0), (2,), flags=8)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)


def _first_region(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the 8-connected region that comes first in reading order."""
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    return labels == labels[mask > 0][0] if mask.any() else mask > 0
