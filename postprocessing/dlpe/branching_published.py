"""The vessel branching map as published, faults included (spec §5.1–5.3); on the host.

As published its last step stops with an assertion; here that step runs as it was meant to. What
parenchyma the published search leaves without a vessel gets a level of about 8, and levels rise
towards the pleura: the bright rim of the published figure. `branching` has none of this.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import (
    BRANCHING_BLOCK,
    BRANCHING_KEPT,
    BRANCHING_MARGIN,
    BRANCHING_MOST,
    BRANCHING_PI,
    BRANCHING_STEP,
    LEVEL_TEN,
    LEVELS,
    LOG_RADIUS_TEN,
)

from .branching import section_areas
from .extent import Box, extent
from .rims import inner_rim

_PLANES = (1, 2)
"""The published surface is that of planes across axis 0, whose axis was taken for a batch."""


@dataclass(frozen=True, slots=True)
class PublishedBranching:
    """The published map of a scan.

    Attributes
    ----------
    level
        float32 [x, y, z], 0…12.
    max_ln_r
        The largest logarithm of a radius in the whole volume, where 0 takes part.
    alpha, a0
        A radius is a0 · alpha to the power of the level.
    unresolved
        Voxels of the lungs without a radius.
    """

    level: NDArray[np.float32]
    max_ln_r: float
    alpha: float
    a0: float
    unresolved: int

    def report(self) -> dict[str, float]:
        """For JSON."""
        return {
            "max_ln_r": self.max_ln_r,
            "alpha": self.alpha,
            "a0": self.a0,
            "unresolved_voxels": self.unresolved,
        }


def published_branching(
    lung: NDArray[Any], vessel: NDArray[Any], seed: int = 0
) -> PublishedBranching:
    """Make the published map.

    Parameters
    ----------
    lung, vessel
        uint8 or bool [x, y, z].
    seed
        Of the random choice among more than 2 000 vessel voxels, which is published without.

    Notes
    -----
    Minutes at 512³ on one core.
    """
    lung, vessel = lung.astype(bool), vessel.astype(bool)
    radius = published_radius(vessel)
    scattered = scatter(lung, radius, published_surface(vessel), seed)
    return published_levels(upsampled(scattered), lung, vessel)


def published_radius(vessel: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Radius in voxels from the smallest of three plane sections; 0 outside of vessels."""
    least = section_areas(vessel, 0)
    for axis in (1, 2):
        np.minimum(least, section_areas(vessel, axis), out=least)
    return np.sqrt(least.astype(np.float32) / np.float32(BRANCHING_PI))


def published_surface(vessel: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of vessels with a neighbour outside of them in their plane across axis 0."""
    return inner_rim(vessel, axes=_PLANES)


def scatter(
    lung: NDArray[np.bool_],
    radius: NDArray[np.float32],
    surface: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float32]:
    """Radius of a near vessel voxel at every third voxel, block by block; 0 elsewhere.

    The search looks 30 voxels around a block of 30, in voxels and not in mm.
    """
    found = np.zeros(lung.shape, np.float32)
    surface = surface & lung
    chance = random.Random(seed)  # noqa: S311 - the published choice, no secret
    for block, cube in _blocks(lung):
        if not lung[block].any():
            continue
        voxels = np.argwhere(surface[cube]) + [s.start for s in cube]
        if not len(voxels):
            continue
        order = list(range(len(voxels)))
        chance.shuffle(order)
        while len(order) > BRANCHING_MOST:
            order = order[: int(BRANCHING_KEPT * len(order))]
        chosen = voxels[order]
        every = tuple(slice(s.start, s.stop, BRANCHING_STEP) for s in block)
        sizes = found[every].shape
        grids = np.meshgrid(*(np.arange(s.start, s.stop, s.step) for s in every), indexing="ij")
        points = np.stack([g.ravel() for g in grids], axis=1)
        nearest = _first_nearest(points, chosen)
        values = radius[tuple(chosen[nearest].T)].reshape(sizes)
        found[every] = values * lung[every]
    return found


def upsampled(scattered: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill in between the samples, linearly, one sample short and shifted as published."""
    full = np.zeros(scattered.shape, np.float32)
    box = extent(scattered > 0.5)
    if box is None:
        return full
    counts = [-(-(s.stop - s.start) // BRANCHING_STEP) for s in box]
    sizes = [BRANCHING_STEP * (m - 1) + 1 for m in counts]
    values = scattered[tuple(slice(s.start, s.start + n, BRANCHING_STEP)
                             for s, n in zip(box, sizes, strict=True))]  # fmt: skip
    weights = [_weights(m, n) for m, n in zip(counts, sizes, strict=True)]
    planes = np.einsum("ia,jb,abk->ijk", weights[0], weights[1], values, optimize=True)
    lines = planes.astype(np.float32) @ weights[2].T
    full[tuple(slice(s.start, s.start + n) for s, n in zip(box, sizes, strict=True))] = lines
    return full


def published_levels(
    filled: NDArray[np.float32], lung: NDArray[np.bool_], vessel: NDArray[np.bool_]
) -> PublishedBranching:
    """Branching levels of the filled map of radii."""
    values = filled * lung
    unresolved = int(np.count_nonzero(lung & (values == 0)))
    positive = values > 0
    values[positive] = np.log(values[positive])
    largest = float(values.max())
    ln_alpha = (LOG_RADIUS_TEN - largest) / (LEVEL_TEN - 1)
    ln_a0 = LOG_RADIUS_TEN - LEVEL_TEN * ln_alpha
    values -= np.float32(ln_a0)
    values /= np.float32(ln_alpha)
    values *= lung & ~vessel
    level = np.clip(values, *LEVELS, out=values)
    return PublishedBranching(level, largest, math.exp(ln_alpha), math.exp(ln_a0), unresolved)


def _blocks(lung: NDArray[np.bool_]) -> Iterator[tuple[Box, Box]]:
    """Blocks of the lungs, x outermost, and the cubes around them, within the volume."""
    box = extent(lung)
    if box is None:
        return
    starts = (range(s.start, s.stop, BRANCHING_BLOCK) for s in box)
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3).tolist():
        x, y, z = (
            slice(a, min(a + BRANCHING_BLOCK, n)) for a, n in zip(corner, lung.shape, strict=True)
        )
        far = BRANCHING_BLOCK + BRANCHING_MARGIN
        u, v, w = (
            slice(max(a - BRANCHING_MARGIN, 0), min(a + far, n))
            for a, n in zip(corner, lung.shape, strict=True)
        )
        yield (x, y, z), (u, v, w)


def _first_nearest(points: NDArray[np.int64], voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each point the first of the voxels with the least squared distance in voxels."""
    centre = points[0]
    p, v = (points - centre).astype(np.float64), (voxels - centre).astype(np.float64)
    # |v|² − 2 p·v, exact in whole numbers; |p|² is the same for all voxels.
    return ((v**2).sum(axis=1)[None, :] - 2 * (p @ v.T)).argmin(axis=1)


def _weights(samples: int, size: int) -> NDArray[np.float64]:
    """Matrix of the published linear resize from `samples` to `size`, one sample left out."""
    kept = int(size / BRANCHING_STEP)
    weights = np.zeros((size, samples))
    if not kept:
        return weights
    start = samples // 2 - kept // 2
    places = (np.arange(size) + 0.5) * kept / size - 0.5
    low = np.floor(places).astype(int)
    part = places - low
    part[(low < 0) | (low >= kept - 1)] = 0
    low = np.clip(low, 0, kept - 1)
    for index, weight in ((low, 1 - part), (np.minimum(low + 1, kept - 1), part)):
        np.add.at(weights, (np.arange(size), index + start), weight)
    return weights
