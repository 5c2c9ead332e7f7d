"""What the networks of three directions say together: sums, masks, and bounds on them.

Spec dlpe §5.3: sums are float32 and evaluated as (p_X + p_Y) + p_Z.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import Direction
from hilum.preprocessing.arrays import Array, as_bool, namespace, to_host
from hilum.preprocessing.dlpe.slabs import slices_first

from .extent import Box
from .ranks import above

_BLOCK = 32
"""Planes worked on at once, so that no second float volume is needed."""


def positive(
    total: Array,
    threshold: float,
    *,
    within: Array | None = None,
) -> Array:
    """Where the sum of the views lies strictly above a threshold.

    Parameters
    ----------
    total
        float32 [x, y, z], the sum.
    threshold
        Of the sum of three probabilities.
    within
        uint8 [x, y, z], 0 or 1: the mask is multiplied by it.

    Returns
    -------
    uint8 [x, y, z], 0 or 1.
    """
    mask = above(total, threshold)
    if within is not None:
        mask &= within
    return mask


def open_slices(
    total: Array, threshold: float, direction: Direction, within: Array | None = None
) -> NDArray[np.bool_]:
    """Find the slices in which a third view can still make a voxel positive (spec dlpe §11.4).

    With t the threshold as float32, 1 ≤ t < 4, the difference t − 1 is a float32 without rounding
    (both are multiples of the last place of t, and it is smaller than t). Let s = p_a + p_b be the
    sum of two views as float32. For s ≤ t − 1 and p_c ≤ 1 the exact sum s + p_c is t at most, and
    because rounding is monotone and t is a float32, so is the rounded one: not strictly above t.
    For t = 2 the bound is 1, for t = 2.3 it is 1.2999999523.

    Parameters
    ----------
    total
        float32 [x, y, z], the sum of the two other views, of weight 1 each.
    within
        uint8 [x, y, z]: voxels outside do not count.

    Returns
    -------
    bool [n], on the host.
    """
    xp = namespace(total)
    bound = float(np.float32(threshold) - np.float32(1))
    slices = slices_first(total, direction)
    limits = None if within is None else slices_first(within, direction)
    found = xp.zeros(slices.shape[0], dtype=xp.bool)
    for a in range(0, slices.shape[0], _BLOCK):
        b = min(a + _BLOCK, slices.shape[0])
        maybe = slices[a:b, ...] > bound
        if limits is not None:
            maybe &= as_bool(limits[a:b, ...])
        found[a:b] = xp.any(maybe, axis=(1, 2))
    return to_host(found)


def clear_outside(total: Array, box: Box) -> None:
    """Set what lies outside a box to 0, in place."""
    for axis, kept in enumerate(box):
        ends = (slice(None, kept.start), slice(kept.stop, None))
        for end in ends:
            total[tuple(end if k == axis else slice(None) for k in range(3))] = 0
