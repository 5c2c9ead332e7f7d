"""A scan in voxels of 1 mm, by cubic B-splines (spec covid_mtl §4.1).

The published program calls ``scipy.ndimage.zoom``, which visits 64 voxels for each new one. The
same interpolation is a product with one matrix for each axis, made of the same splines; that takes
a fraction of the time and of the memory. The two differ in the twelfth decimal place or later, so a
rounded value can differ only where it lies halfway between two whole numbers: rows in which that
happens are computed a second time by the operations of the library (`cubic`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import SPACING_MM, VOXEL_MM
from hilum.catalog.errors import NoGeometry

from ..arrays import Array, is_numpy, namespace, to_host
from ..nearest import nearest_indices
from ..reading.volume import Geometry, Triple
from ..workers import Watch, cores
from . import cubic

MAX_VOXELS = 2**29
"""Voxels that a scan may have after resampling."""

_COLUMNS = 96
"""New columns that are made at a time."""

_HALFWAY = 1e-10
"""Distance from halfway between two whole numbers below which a row is computed again."""

Shape = tuple[int, int, int]


def target_shape(shape: Shape, spacing: Triple) -> Shape:
    """Voxels along each axis after resampling.

    Parameters
    ----------
    shape, spacing
        Of the scan, [z, y, x]; mm.

    Raises
    ------
    InputError
        For a spacing outside `SPACING_MM`, and for a result that is too large or vanishes.
    """
    if not all(SPACING_MM[0] <= s <= SPACING_MM[1] for s in spacing):
        raise NoGeometry(
            f"voxels of {spacing[2]:g} × {spacing[1]:g} × {spacing[0]:g} mm; give a scan with "
            f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm along every axis"
        )
    # Rounded half to even, as Python and NumPy do.
    z, y, x = (round(n * s / VOXEL_MM) for n, s in zip(shape, spacing, strict=True))
    if z * y * x > MAX_VOXELS or min(z, y, x) < 3:
        raise NoGeometry(
            f"{x} × {y} × {z} voxels of 1 mm; give a scan of the chest alone, of "
            f"{MAX_VOXELS / 1e6:.0f} million voxels at most"
        )
    return z, y, x


def to_millimetres(
    stored: Array, spacing: Triple, *, threads: int | None = None, watch: Watch | None = None
) -> Array:
    """Resample a scan to voxels of 1 mm, first and last samples of every axis on each other.

    Parameters
    ----------
    stored
        uint16 or int16 [z, y, x], NumPy or CuPy.
    spacing
        Along each axis in mm.
    threads
        On the host; None: one for each core.
    watch
        Who follows.

    Returns
    -------
    Of the same type; negative values become 0, and values may exceed the highest of the scan.

    Raises
    ------
    InputError
        As `target_shape` does.
    concurrent.futures.CancelledError
        When the watch wants an end.
    """
    xp, watch = namespace(stored), watch or Watch()
    shape = target_shape(stored.shape, spacing)
    weights = [
        xp.asarray(cubic.axis_weights(n, t)) for n, t in zip(stored.shape, shape, strict=True)
    ]
    out = xp.empty(shape, dtype=stored.dtype)
    again: list[tuple[int, slice]] = []
    width = (threads or cores()) if is_numpy(xp) else 1
    with ThreadPoolExecutor(width, thread_name_prefix="hilum-zoom") as pool:
        starts = range(0, shape[2], _COLUMNS)
        for number, first in enumerate(starts, 1):
            watch.done((number - 1) / len(starts))
            part = slice(first, first + _COLUMNS)
            again += [(y, part) for y in _columns(stored, weights, part, out, pool)]
        if again:
            # On the host in any case: CuPy's twin works in single precision.
            found = cubic.coefficients(to_host(stored))

            def exactly(row: tuple[int, slice]) -> None:
                y, part = row
                values = cubic.values(found, stored.shape, shape, y, part)
                values = np.floor(np.maximum(values, 0) + 0.5)
                out[:, y, part] = xp.asarray(values.astype(stored.dtype))

            for _ in pool.map(exactly, again):
                watch.check()
    watch.done(1)
    return out


def resampled_geometry(geometry: Geometry, shape: tuple[int, ...]) -> Geometry:
    """Where the voxels of a resampled scan lie: corners' centres on corners' centres."""
    steps = [
        step * (n - 1) / max(1, t - 1)
        for step, n, t in zip(geometry.steps, geometry.shape, shape, strict=True)
    ]
    z, y, x = shape
    return Geometry.from_steps((z, y, x), np.array(geometry.origin), np.array(steps))


def mask_to_millimetres(mask: Array, geometry: Geometry) -> Array:
    """Bring a mask to the voxels that `to_millimetres` gives, by the nearest voxel.

    Parameters
    ----------
    mask
        [z, y, x] of any type, NumPy or CuPy.
    geometry
        Of the mask and its scan.

    Raises
    ------
    InputError
        As `target_shape` does.
    """
    spacing = geometry.slice_distance, geometry.spacing[1], geometry.spacing[2]
    shape = target_shape(geometry.shape, spacing)
    pairs = zip(mask.shape, shape, strict=True)
    return _picked(mask, [nearest_indices(n, t, "corners") for n, t in pairs])


def to_grid(mask: Array, geometry: Geometry, target: Geometry) -> Array:
    """Bring a mask from resampled voxels back to those of its scan, by the nearest voxel.

    Parameters
    ----------
    mask
        [z, y, x] of any type, NumPy or CuPy.
    geometry
        Of the mask: that of `resampled_geometry`.
    target
        Of the array of the file; its axes may be in any order and run either way.

    Returns
    -------
    Of the same type, in the shape of `target`.
    """
    way = np.linalg.inv(geometry.affine) @ target.affine
    axes = np.abs(way[:3, :3]).argmax(axis=0)
    places = []
    for own, axis in enumerate(axes):
        place = np.rint(way[axis, own] * np.arange(target.shape[own]) + way[axis, 3])
        places.append(np.clip(place, 0, mask.shape[axis] - 1).astype(np.intp))
    return _picked(namespace(mask).permute_dims(mask, tuple(axes.tolist())), places)


def _picked(array: Array, places: Sequence[NDArray[np.integer]]) -> Array:
    """Samples of an array at some indices along each axis."""
    xp = namespace(array)
    for axis, at in enumerate(places):
        array = xp.take(array, xp.asarray(at), axis=axis)
    return array


def _columns(
    stored: Array, weights: list[Array], part: slice, out: Array, pool: ThreadPoolExecutor
) -> list[int]:
    """Make some columns; returns the rows where a value lies halfway between whole numbers."""
    xp = namespace(stored)
    across = weights[2][part].T
    planes = xp.empty((stored.shape[0], out.shape[1], across.shape[1]), dtype=xp.float64)

    def one_plane(k: int) -> None:
        planes[k] = weights[1] @ (stored[k].astype(xp.float64) @ across)

    doubtful = xp.zeros(out.shape[1], dtype=xp.bool)

    def one_row(y: int) -> None:
        doubtful[y] = _rounded(weights[0] @ planes[:, y], out[:, y, part])

    for step, length in ((one_plane, len(planes)), (one_row, out.shape[1])):
        for _ in pool.map(step, range(length)):
            pass
    # A GPU is waited for once, not for each row.
    return np.flatnonzero(to_host(doubtful)).tolist()


def _rounded(values: Array, out: Array) -> Array:
    """Round as the library does: negatives end as 0, halves go up; returns whether in doubt."""
    xp = namespace(values)
    xp.maximum(values, 0, out=values)
    values += 0.5
    whole = xp.floor(values)
    out[...] = whole.astype(out.dtype)
    values -= whole
    near: Any = (values < _HALFWAY) | (values > 1 - _HALFWAY)
    return near.any()
