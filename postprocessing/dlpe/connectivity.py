"""Connectivity refinement: keep the largest parts of a mask (spec dlpe §9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import LOWEST_RATIO
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, namespace, to_host
from hilum.preprocessing.regions import label_regions

from .extent import blocks, extent, same_shape


def refine(
    mask: Array,
    keep: int,
    lowest_ratio: float = LOWEST_RATIO,
    restrict: Array | None = None,
    mode: Mode = "parity",
) -> Array:
    """Keep the largest 26-connected components of a mask.

    Parameters
    ----------
    mask
        uint8 [x, y, z], 0 or 1; NumPy or CuPy. It is not changed.
    keep
        Components kept at most, 1 or more.
    lowest_ratio
        Components below this share of the largest one's voxels are dropped.
    restrict
        Mask of the same shape to which the foreground is restricted first.
    mode
        ``"parity"``: without `restrict`, the six faces of the volume count as background, as
        published. ``"corrected"``: they do not.

    Returns
    -------
    uint8 [x, y, z]. Of components of equal size the first in the order of their first voxels
    (the last axis runs fastest) comes first; an empty mask stays empty.

    Raises
    ------
    InputError
        For a count below 1 or masks that do not fit.
    """
    if keep < 1:
        raise BadOption(f"refinement keeps {keep} components; give 1 or more")
    xp = namespace(mask)
    kept = xp.zeros(same_shape(mask=mask), dtype=xp.uint8)
    if restrict is not None:
        same_shape(mask=mask, restrict=restrict)
    inner = slice(1, -1) if restrict is None and mode == "parity" else slice(None)
    # A view: what lies outside of it is background.
    inside, result = mask[inner, inner, inner], kept[inner, inner, inner]
    box = extent(inside)
    if box is None:
        return kept
    foreground = inside[box] != 0
    if restrict is not None:
        foreground &= restrict[box] != 0
    labels, count = label_regions(foreground)
    chosen = xp.zeros(count + 1, dtype=xp.uint8)
    chosen[xp.asarray(_largest(_sizes(labels, count), keep, lowest_ratio))] = 1
    part = result[box]
    for block in blocks(_whole(labels)):
        part[block] = xp.take(chosen, labels[block])
    return kept


def _sizes(labels: Array, count: int) -> NDArray[np.int64]:
    """Voxels of the components 1 … `count`."""
    xp = namespace(labels)
    sizes = xp.zeros(count + 1, dtype=xp.int64)
    for block in blocks(_whole(labels)):
        found = labels[block]
        found = found[found > 0]
        if found.size:  # CuPy refuses to count in an empty array
            sizes += xp.bincount(found, minlength=count + 1)
    return to_host(sizes)[1:]


def _largest(sizes: NDArray[np.int64], keep: int, lowest_ratio: float) -> NDArray[np.int64]:
    """Labels of the components that are kept; labels are in the order of first voxels."""
    order = np.argsort(-sizes, kind="stable")[:keep]
    if not len(order):
        return order
    enough = sizes[order] >= lowest_ratio * sizes[order[0]]
    return order[enough] + 1


def _whole(array: Array) -> tuple[slice, slice, slice]:
    x, y, z = array.shape
    return slice(0, x), slice(0, y), slice(0, z)
