"""The vessel branching map: how fine the vessel is that feeds a place (spec §5.4, corrected).

A voxel of parenchyma takes the radius of the vessel nearest to it; radii fall by a constant factor
with each generation, so their logarithm is a level: 1 at the widest vessel, 10 where ln r = −½ in
voxels. `branching_published` has the map as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import LEVEL_TEN, LEVELS, LOG_RADIUS_TEN
from hilum.preprocessing.arrays import Array, as_bool, gpu_image_functions, is_numpy, namespace
from hilum.preprocessing.dlpe.resample import for_each

from .chest import Chest, Triple
from .distances import nearest
from .extent import blocks, extent

Flag = Literal["ok", "no_vessel", "vessels_too_small", "not_made"]

_CROSS = np.zeros((3, 3, 3), bool)
_CROSS[1, :, 1] = _CROSS[:, 1, 1] = _CROSS[1, 1, :] = True
"""6-connectivity."""


@dataclass(frozen=True, slots=True)
class Branching:
    """The branching map of a scan.

    Attributes
    ----------
    level
        float32 [x, y, z], a box, 0…12 in the lungs and 0 elsewhere; None without a map.
    r1_mm, r10_mm
        Radii at levels 1 and 10.
    alpha
        Ratio of the radii of two neighbouring levels.
    """

    level: Array | None
    flag: Flag
    r1_mm: float | None = None
    r10_mm: float | None = None
    alpha: float | None = None

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "flag": self.flag,
            "r1_mm": self.r1_mm,
            "r10_mm": self.r10_mm,
            "alpha": self.alpha,
        }


def branching(chest: Chest, vessel: Array, r1_mm: float | None = None) -> Branching:
    """Make the branching map of a scan.

    Parameters
    ----------
    vessel
        bool or uint8 [x, y, z], the vessels of the whole volume: those at the hila have their full
        width only outside of the lungs.
    r1_mm
        The widest radius, of another scan of the patient; None: of this one.

    Notes
    -----
    Vessels that are cut obliquely look up to a third too wide, and those that touch merge. On a
    coarser grid `r10_mm` is larger: levels of different grids cannot be compared.
    """
    if not bool(namespace(chest.vessel).any(chest.vessel)):
        return Branching(None, "no_vessel")
    radius = chest.crop.cut(radius_mm(vessel, chest.voxel_mm))
    places = nearest(chest.vessel, chest.voxel_mm, chest.lung)
    near = radius.ravel()[places] * chest.lung
    del radius, places
    first = float(near.max()) if r1_mm is None else r1_mm
    tenth = math.exp(LOG_RADIUS_TEN) * math.prod(chest.voxel_mm) ** (1 / 3)
    if first <= tenth:
        return Branching(None, "vessels_too_small", first, tenth)
    alpha = (tenth / first) ** (1 / (LEVEL_TEN - 1))
    return Branching(_levels_in_place(near, chest.lung, first, tenth), "ok", first, tenth, alpha)


def levels(near: Array, r1_mm: float, r10_mm: float) -> Array:
    """Branching levels of radii, 0…12, float64 (spec §5.4)."""
    xp = namespace(near)
    scale = (LEVEL_TEN - 1) / math.log(r1_mm / r10_mm)
    level = 1 + scale * xp.log(r1_mm / xp.astype(near, xp.float64))
    return xp.clip(level, *LEVELS)


def radius_mm(vessel: Array, voxel_mm: Triple) -> Array:
    """Radius of a disk as large as the smallest of a vessel's three sections, in mm.

    Parameters
    ----------
    vessel
        bool or uint8 [x, y, z].

    Returns
    -------
    float32 [x, y, z], 0 outside of vessels.
    """
    xp = namespace(vessel)
    radius = xp.zeros(vessel.shape, dtype=xp.float32)
    box = extent(vessel)
    if box is None:
        return radius
    inside = vessel[box]
    there = as_bool(inside)
    least: Any = None
    for axis in range(3):
        pixel = math.prod(voxel_mm) / voxel_mm[axis]
        area = xp.astype(section_areas(inside, axis)[there], xp.float64) * pixel
        least = area if least is None else xp.minimum(least, area)
    radius[box][there] = xp.astype(xp.sqrt(least / math.pi), xp.float32)
    return radius


def section_areas(vessel: Array, axis: int) -> Array:
    """Pixels of the 4-connected region around each voxel in its plane across an axis.

    `vessel` is bool or uint8 [x, y, z]; returned are int32 [x, y, z], 0 outside of vessels.
    """
    xp = namespace(vessel)
    if is_numpy(xp):
        return _areas_by_plane(vessel, axis)
    structure = _CROSS.copy()
    structure[tuple(slice(None) if a != axis else [0, 2] for a in range(3))] = False
    labels, count = gpu_image_functions(xp).label(vessel, xp.asarray(structure))
    sizes = xp.bincount(labels.ravel(), minlength=int(count) + 1)
    sizes[0] = 0
    return xp.take(xp.astype(sizes, xp.int32), labels)


def _areas_by_plane(vessel: NDArray[Any], axis: int) -> NDArray[np.int32]:
    planes = np.moveaxis(vessel.view(np.uint8), axis, 0)
    areas = np.zeros(vessel.shape, np.int32)
    results = np.moveaxis(areas, axis, 0)

    def one(index: int) -> None:
        plane = np.ascontiguousarray(planes[index])
        if not plane.any():
            return
        _, labels, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
        sizes = np.array(stats[:, cv2.CC_STAT_AREA])
        sizes[0] = 0
        results[index] = sizes[np.asarray(labels, np.int32)]

    for_each(one, range(len(planes)), np)
    return areas


def _levels_in_place(near: Array, lung: Array, r1_mm: float, r10_mm: float) -> Array:
    xp = namespace(near)
    whole = tuple(slice(0, n) for n in near.shape)
    for block in blocks(whole):  # pyright: ignore[reportArgumentType]
        inside = lung[block]
        safe = xp.where(inside, near[block], xp.ones_like(near[block]))
        found = levels(safe, r1_mm, r10_mm)
        near[block] = xp.astype(xp.where(inside, found, xp.zeros_like(found)), xp.float32)
    return near
