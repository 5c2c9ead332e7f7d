"""Connected parts of a mask, the largest first (spec dlpe_quantification §9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.arrays import Array, namespace, to_host
from hilum.preprocessing.regions import label_regions

from .extent import extent


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a mask.

    Attributes
    ----------
    flat
        int64 [n]: indices of the mask's voxels in the order of the volume, the last axis fastest.
    rank
        int64 [n]: the component of each voxel, 0 for the largest; ties in the order of their first
        voxels.
    sizes
        int64 on the host: voxels of each component.
    """

    flat: Array
    rank: Array
    sizes: NDArray[np.int64]

    def by_component(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order that brings the voxels of a component together, and where each begins; host."""
        order = np.argsort(to_host(self.rank), kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.sizes)])


def parts(mask: Array, *, corners: bool = True) -> Parts:
    """Find the connected components of a mask.

    Parameters
    ----------
    mask
        bool [x, y, z] or [x, y], NumPy or CuPy.
    corners
        As for `label_regions`.
    """
    xp = namespace(mask)
    box = extent(mask) if mask.ndim == 3 else (slice(None),) * mask.ndim
    if box is None:
        nothing = xp.zeros(0, dtype=xp.int64)
        return Parts(nothing, nothing, np.zeros(0, np.int64))
    labels, count = label_regions(mask[box], corners=corners)
    places = xp.nonzero(labels)
    found: Any = xp.astype(labels[places], xp.int64) - 1
    del labels
    flat = xp.zeros(found.shape, dtype=xp.int64)
    for place, part, length in zip(places, box, mask.shape, strict=True):
        flat *= length
        flat += place + (part.start or 0)
    sizes = to_host(xp.bincount(found, minlength=count)) if count else np.zeros(0)
    sizes = sizes.astype(np.int64)
    # The labels of a GPU are in any order, so that of first voxels is looked up.
    firsts = np.zeros(len(sizes), np.int64)
    host = to_host(found)
    firsts[host[::-1]] = np.arange(len(host))[::-1]
    order = np.lexsort((firsts, -sizes))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return Parts(flat, xp.take(xp.asarray(ranks), found), sizes[order])


def ranked(mask: Array, *, corners: bool = True) -> Array:
    """Number of each voxel's component, 1 for the largest; 0 in the background. See `parts`."""
    xp, found = namespace(mask), parts(mask, corners=corners)
    numbers = xp.zeros(mask.size, dtype=xp.int64)
    numbers[found.flat] = found.rank + 1
    return xp.reshape(numbers, mask.shape)
