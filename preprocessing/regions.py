"""Connected regions of a mask, numbered in the order of their first voxels.

SciPy's ``label`` does the same, but SciPy is a third of all that a client would install. Here a
mask is taken apart into runs along its last axis; runs that touch are joined, all at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, gpu_image_functions, is_numpy, namespace

_FULL = ((0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Earlier lines (plane, line) that a line touches across faces, edges and corners."""

_FACES = ((0, -1), (-1, 0))
"""Those that it touches across faces."""

_BATCH = 2**21
"""Runs whose neighbours are looked up at a time."""

Runs = NDArray[np.int64]


def label_regions(mask: Array, *, corners: bool = True) -> tuple[Array, int]:
    """Number the connected regions of a mask.

    Parameters
    ----------
    mask
        bool or uint8 [y, x] or [z, y, x], NumPy or CuPy; what is not 0 belongs to a region.
    corners
        Whether voxels touch across edges and corners too, or across faces only.

    Returns
    -------
    int32, of the shape of `mask`: 0 outside, then 1, 2, …; and how many there are. NumPy's numbers
    are in the order of the regions' first voxels, the last axis fastest; CuPy's in any order.
    """
    xp = namespace(mask)
    if not is_numpy(xp):
        structure = xp.ones((3,) * mask.ndim, dtype=xp.bool) if corners else None
        numbers, count = gpu_image_functions(xp).label(mask, structure)
        return numbers, int(count)
    lines = mask.reshape(1, *mask.shape) if mask.ndim == 2 else mask
    padded, starts, stops = _runs(lines)
    first = _joined(starts, stops, padded, corners)
    own = first == np.arange(len(first))
    numbers = np.cumsum(own, dtype=np.int32)[first] if len(first) else np.zeros(0, np.int32)
    return _painted(lines.shape, starts, stops, numbers).reshape(mask.shape), int(own.sum())


def region_boxes(labels: NDArray[np.int32], count: int) -> list[tuple[slice, ...]]:
    """Return the smallest box around each of the regions 1 … `count`, in this order.

    `labels` is [z, y, x] and every region is somewhere in it.
    """
    flat = labels.ravel()
    places = np.flatnonzero(flat)
    numbers = flat[places]
    spans = []
    for at in np.unravel_index(places, labels.shape):
        low, high = np.full(count + 1, labels.size), np.zeros(count + 1, np.int64)
        np.minimum.at(low, numbers, at)
        np.maximum.at(high, numbers, at)
        spans.append(list(map(slice, low[1:].tolist(), (high[1:] + 1).tolist())))
    return list(zip(*spans, strict=True))


def _runs(mask: NDArray[Any]) -> tuple[tuple[int, int], Runs, Runs]:
    """Find runs along the last axis: the steps of planes and lines, where runs begin and end.

    Places are those of an array with one more voxel a line and one more line a plane, all 0: no run
    touches one at the other end.
    """
    planes, lines, length = mask.shape
    line, plane = length + 1, (lines + 1) * (length + 1)
    padded = np.zeros((lines + 1, line), bool)
    flat, found = padded.ravel(), []
    changed = np.empty(plane, bool)
    for k in range(planes):
        np.not_equal(mask[k], 0, out=padded[:-1, :-1])
        changed[0] = flat[0]
        np.not_equal(flat[1:], flat[:-1], out=changed[1:])
        found.append(np.flatnonzero(changed) + k * plane)
    edges = np.concatenate([np.zeros(0, np.int64), *found])
    return (plane, line), edges[::2].copy(), edges[1::2].copy()


def _joined(starts: Runs, stops: Runs, steps: tuple[int, int], corners: bool) -> Runs:
    """First run of the region of each run."""
    parent = np.arange(len(starts))
    for low, high in _touching(starts, stops, steps, corners):
        # The first run of both regions may be hooked to several others: the lowest counts, and
        # what that leaves apart is joined in the next turn.
        while True:
            a, b = parent[low], parent[high]
            apart = a != b
            if not apart.any():
                break
            low, high = a[apart], b[apart]
            np.minimum.at(parent, np.maximum(low, high), np.minimum(low, high))
            _flatten(parent)
    return parent


def _touching(
    starts: Runs, stops: Runs, steps: tuple[int, int], corners: bool
) -> Iterator[tuple[Runs, Runs]]:
    """Pairs of runs that touch."""
    reach = int(corners)
    for planes, lines in _FULL if corners else _FACES:
        step = planes * steps[0] + lines * steps[1]
        for begin in range(0, len(starts), _BATCH):
            part = slice(begin, begin + _BATCH)
            first = np.searchsorted(stops, starts[part] + (step - reach), "right")
            last = np.searchsorted(starts, stops[part] + (step + reach), "left")
            count = np.maximum(last - first, 0)
            high = np.repeat(np.arange(begin, begin + len(count)), count)
            behind = np.cumsum(count) - count
            yield np.repeat(first - behind, count) + np.arange(len(high)), high


def _flatten(parent: Runs) -> None:
    """Let every run point to the first of its chain."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            return
        parent[:] = further


def _painted(
    shape: tuple[int, ...], starts: Runs, stops: Runs, numbers: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Write the number of each run into its voxels."""
    _, lines, length = shape
    line = starts // (length + 1)
    begin = starts - line - line // (lines + 1) * length
    end = begin + stops - starts
    values = np.zeros(2 * len(starts) + 1, np.int32)
    values[1::2] = numbers
    edges = np.zeros(2 * len(starts) + 2, np.int64)
    edges[1:-1:2], edges[2:-1:2], edges[-1] = begin, end, np.prod(shape)
    return np.repeat(values, np.diff(edges)).reshape(shape)
