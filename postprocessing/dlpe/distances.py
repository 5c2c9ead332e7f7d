"""Exact distances to the surface of the lungs, to vessels and to airways (spec §4.1), in mm.

On the host a plane's distances come from OpenCV, and columns across the planes take the least of
them and the way along the column: several times as fast as a transform in three dimensions. Where
the nearest place is wanted, or voxels are not square in a plane, lines along one axis after the
other do so; on a GPU it is CuPy's transform.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.arrays import Array, gpu_image_functions, is_numpy, namespace
from hilum.preprocessing.dlpe.resample import for_each

from .chest import Chest, Triple

_NOTHING = 1e12
"""Squared distance in a plane without target, in mm²."""

_ROWS = 8
"""Rows of all planes that are worked on at a time: they stay in the processor's cache."""

_LOOKS = 4
"""Steps along a column between two looks at whether further ones can change anything."""


def distance_mm(targets: Array, voxel_mm: Triple, within: Array) -> Array:
    """Distance from each voxel to the nearest target, centre to centre.

    Parameters
    ----------
    targets
        bool [x, y, z], NumPy or CuPy.
    voxel_mm
        Size of a voxel along each axis.
    within
        bool [x, y, z]: where the distance is needed.

    Returns
    -------
    float32 [x, y, z] in mm, 0 outside of `within`; +∞ everywhere within without targets.
    """
    xp = namespace(targets)
    if not bool(xp.any(targets)):
        found = xp.zeros(targets.shape, dtype=xp.float32)
        found[within] = xp.inf
        return found
    if is_numpy(xp) and voxel_mm[0] == voxel_mm[1]:
        return _by_columns(targets, voxel_mm, within)
    if is_numpy(xp):
        return _by_lines(targets, voxel_mm, within)[0]
    functions = gpu_image_functions(xp)
    found = functions.distance_transform_edt(~targets, sampling=voxel_mm)
    found = xp.astype(found, xp.float32)
    found[~within] = 0
    return found


def nearest(targets: Array, voxel_mm: Triple, within: Array) -> Array:
    """Place of the target nearest to each voxel, of several any.

    Parameters
    ----------
    targets, voxel_mm, within
        As for `distance_mm`; there is a target.

    Returns
    -------
    int [x, y, z]: indices of the flat `targets`, of any target outside of `within`.
    """
    xp = namespace(targets)
    if is_numpy(xp):
        return _by_lines(targets, voxel_mm, within)[1]
    x, y, z = gpu_image_functions(xp).distance_transform_edt(
        ~targets, sampling=voxel_mm, return_distances=False, return_indices=True
    )
    return (xp.astype(x, xp.int64) * targets.shape[1] + y) * targets.shape[2] + z


def pleura_mm(chest: Chest) -> Array:
    """Distance to what is not lung; a voxel of the border is one voxel away.

    The whole surface counts, the side of the mediastinum too; fissures are not known.
    """
    return distance_mm(~chest.lung, chest.voxel_mm, chest.lung)


def vessel_mm(chest: Chest) -> Array:
    """Distance to the nearest vessel inside the lungs; +∞ without any."""
    return distance_mm(chest.vessel, chest.voxel_mm, chest.lung)


def airway_mm(chest: Chest) -> Array:
    """Distance to the nearest airway inside the lungs; +∞ without any."""
    return distance_mm(chest.airway, chest.voxel_mm, chest.lung)


def _by_columns(
    targets: NDArray[np.bool_], voxel_mm: Triple, within: NDArray[np.bool_]
) -> NDArray[np.float32]:
    side, height = float(voxel_mm[0]), float(voxel_mm[2])
    x, y, z = targets.shape
    planes = np.empty((z, x, y), np.float32)
    found = np.zeros((x, y, z), np.float32)

    def plane(k: int) -> None:
        others = np.logical_not(targets[:, :, k]).view(np.uint8)
        if others.all():
            planes[k] = _NOTHING
            return
        flat = cv2.distanceTransform(others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        flat *= np.float32(side)
        np.multiply(flat, flat, out=planes[k])

    def rows(strip: int) -> None:
        a = strip * _ROWS
        needed = within[a : a + _ROWS]
        columns = np.flatnonzero(needed.any(axis=(0, 2)))
        if not len(columns):
            return
        part = slice(int(columns[0]), int(columns[-1]) + 1)
        needed = needed[:, part].transpose(2, 0, 1)
        least = _least(planes[:, a : a + _ROWS, part], needed, height)
        found[a : a + _ROWS, part] = np.sqrt(least, out=least).transpose(1, 2, 0)

    for_each(plane, range(z), np)
    for_each(rows, range(-(-x // _ROWS)), np)
    return found


def _least(
    flat: NDArray[np.float32], needed: NDArray[np.bool_], height: float
) -> NDArray[np.float32]:
    """Least squared distance over the column through each voxel; 0 where it is not needed.

    `flat` [z, x, y] has the squared distances within each plane.
    """
    flat = np.ascontiguousarray(flat)
    least = np.where(needed, flat, np.float32(0))
    moved = np.empty_like(flat)
    for k in range(1, len(flat)):
        way = np.float32((k * height) ** 2)
        if k % _LOOKS == 1 and way >= least.max():
            break
        further = np.add(flat, way, out=moved)
        np.minimum(least[k:], further[:-k], out=least[k:])
        np.minimum(least[:-k], further[k:], out=least[:-k])
    return least


def _by_lines(
    targets: NDArray[np.bool_], voxel_mm: Triple, within: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances of the voxels within, and the place of the target nearest to each."""
    side = max(voxel_mm[:2])
    # Targets that are further than the furthest voxel within are never looked for.
    limit = float(_by_columns(targets, (side, side, voxel_mm[2]), within).max())
    squares, places = _along_lines(targets, voxel_mm[2])

    def across(plane: NDArray[np.float32], place: NDArray[np.int64], step: float) -> None:
        plane[...], place[...] = _nearer(plane, place, step, limit)

    for_each(lambda x: across(squares[x], places[x], voxel_mm[1]), range(len(squares)), np)
    for_each(
        lambda y: across(squares[:, y], places[:, y], voxel_mm[0]), range(squares.shape[1]), np
    )
    np.sqrt(squares, out=squares)
    squares[~within] = 0
    return squares, places


def _along_lines(
    targets: NDArray[np.bool_], step: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Squared distance along the last axis, and the flat index of the nearest target there.

    Where a line has none, the distance is `_NOTHING` and the index is that of a line's voxel.
    """
    length = targets.shape[2]
    squares = np.empty(targets.shape, np.float32)
    places = np.empty(targets.shape, np.int64)
    own, none = np.arange(length), 4 * length
    for x, plane in enumerate(targets):
        before = np.maximum.accumulate(np.where(plane, own, -none), axis=1)
        after = np.minimum.accumulate(np.where(plane, own, none)[:, ::-1], axis=1)[:, ::-1]
        near = np.where(own - before <= after - own, before, after)
        away = abs(near - own)
        squares[x] = np.where(away < length, (away * step) ** 2, _NOTHING)
        line = (x * targets.shape[1] + np.arange(targets.shape[1])) * length
        places[x] = line[:, None] + np.clip(near, 0, length - 1)
    return squares, places


def _nearer(
    squares: NDArray[np.float32], places: NDArray[np.int64], step: float, limit: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Take, along the first axis, the place from which the way is shortest in all."""
    squares, places = np.ascontiguousarray(squares), np.ascontiguousarray(places)
    least, best = squares.copy(), places.copy()
    for k in range(1, min(len(squares), int(limit / step) + 2)):
        way = np.float32((k * step) ** 2)
        for ours, theirs in ((slice(k, None), slice(-k)), (slice(-k), slice(k, None))):
            further = squares[theirs] + way
            nearer = further < least[ours]
            np.copyto(least[ours], further, where=nearer)
            np.copyto(best[ours], places[theirs], where=nearer)
    return least, best
