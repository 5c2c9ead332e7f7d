"""Where a mask lies in a volume, and how to walk through a volume with little memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hilum.catalog.errors import InputError
from hilum.preprocessing.arrays import Array, namespace, to_host

Box = tuple[slice, slice, slice]
"""A part of a volume: half-open ranges along its three axes."""

BLOCK = 1 << 20
"""Voxels that are worked on at a time, about."""


def extent(mask: Array) -> Box | None:
    """Find the smallest box around what is not 0.

    Parameters
    ----------
    mask
        [x, y, z] of any type, NumPy or CuPy.

    Returns
    -------
    Three ranges, or None for a mask without foreground.
    """
    xp = namespace(mask)
    first = _span(xp.any(mask, axis=(1, 2)))
    if first is None:
        return None
    plane = xp.any(mask[first, ...], axis=0)
    second, third = _span(xp.any(plane, axis=1)), _span(xp.any(plane, axis=0))
    return None if second is None or third is None else (first, second, third)


def grown(box: Box, by: int, shape: tuple[int, ...]) -> Box:
    """Enlarge a box by `by` voxels on all sides, within a volume of `shape`."""
    first, second, third = (
        slice(max(s.start - by, 0), min(s.stop + by, n)) for s, n in zip(box, shape, strict=True)
    )
    return first, second, third


def blocks(box: Box) -> Iterator[Box]:
    """Cut a box into pieces of about `BLOCK` voxels, one after the other along the first axis."""
    first, *rest = box
    plane = max(1, (rest[0].stop - rest[0].start) * (rest[1].stop - rest[1].start))
    step = max(1, BLOCK // plane)
    for start in range(first.start, first.stop, step):
        yield slice(start, min(start + step, first.stop)), rest[0], rest[1]


def same_shape(**volumes: Array) -> tuple[int, int, int]:
    """Check that volumes, given by their names, have three axes and one shape; returns it.

    Raises
    ------
    InputError
        Naming the shapes.
    """
    shapes = {tuple(v.shape) for v in volumes.values()}
    if len(shapes) != 1 or any(len(shape) != 3 for shape in shapes):
        named = ", ".join(f"{name} {list(v.shape)}" for name, v in volumes.items())
        raise InputError(f"volumes of one scan must have one shape [x, y, z], here {named}")
    x, y, z = shapes.pop()
    return x, y, z


def _span(hit: Array) -> slice | None:
    places = np.flatnonzero(to_host(hit))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else None
