"""Masks grown and shrunk by one voxel, and their rims; outside of the volume is background.

Spec dlpe_quantification §9.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from hilum.preprocessing.arrays import Array, namespace

ALL = (0, 1, 2)
"""The three axes of a volume; two of them: plane by plane."""


def dilated(mask: Array, *, full: bool = True, axes: Sequence[int] = ALL) -> Array:
    """Grow a mask by one voxel.

    Parameters
    ----------
    mask
        bool [x, y, z]; NumPy, CuPy or any other module of the array API.
    full
        By all neighbours (8 in a plane, 26 in a volume); else by those along the axes (4, 6).
    axes
        Along which it grows.

    Returns
    -------
    bool [x, y, z], a new array.
    """
    xp = namespace(mask)
    grown = xp.asarray(mask, copy=True)
    for axis in axes:
        source = xp.asarray(grown, copy=True) if full else mask
        low, high = _shifted(axis, len(mask.shape))
        grown[low] |= source[high]
        grown[high] |= source[low]
    return grown


def eroded(mask: Array, *, full: bool = True, axes: Sequence[int] = ALL) -> Array:
    """Shrink a mask by one voxel; what lies on a face of the volume goes. See `dilated`."""
    xp = namespace(mask)
    shrunk = xp.asarray(mask, copy=True)
    for axis in axes:
        source = xp.asarray(shrunk, copy=True) if full else mask
        low, high = _shifted(axis, len(mask.shape))
        shrunk[low] &= source[high]
        shrunk[high] &= source[low]
        for end in (0, -1):
            shrunk[(slice(None),) * axis + (end, ...)] = False
    return shrunk


def inner_rim(mask: Array, *, full: bool = False, axes: Sequence[int] = ALL) -> Array:
    """Voxels of a mask with a neighbour in the background. See `dilated`."""
    return mask & ~eroded(mask, full=full, axes=axes)


def outer_rim(mask: Array, *, full: bool = False, axes: Sequence[int] = ALL) -> Array:
    """Voxels of the background with a neighbour in the mask. See `dilated`."""
    return dilated(mask, full=full, axes=axes) & ~mask


def _shifted(axis: int, dimensions: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All voxels but the last, and all but the first, along an axis."""
    low, high = [slice(None)] * dimensions, [slice(None)] * dimensions
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)
