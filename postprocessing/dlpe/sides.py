"""Right and left lung, and the zones of both (spec §4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import (
    HALVES,
    HEIGHT_PARTS,
    SCORE_SHARES,
    SECOND_LUNG,
    SIDES,
    SINGLE_LUNG_MM,
    ZONES,
)
from hilum.preprocessing.arrays import Array, namespace, to_host
from hilum.preprocessing.regions import label_regions

from .chest import Chest

Flag = Literal["ok", "single_lung", "merged_lungs"]

RIGHT, LEFT = 1, 2
"""Labels of the lungs."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Which lung each voxel belongs to, and where the zones of the lungs lie.

    Attributes
    ----------
    labels
        uint8 [x, y, z], a box: 1 right, 2 left, 0 outside of the lungs.
    flag
        ``"ok"``; ``"single_lung"``; ``"merged_lungs"``: they touch and were cut apart.
    heights
        int64 [2, z]: voxels of each lung in each axial plane of the box.
    depths
        int64 [2, x]: the same in each coronal plane.
    """

    labels: Array
    flag: Flag
    heights: NDArray[np.int64]
    depths: NDArray[np.int64]

    @property
    def voxels(self) -> tuple[int, int]:
        """Voxels of the right and of the left lung."""
        right, left = self.heights.sum(axis=1)
        return int(right), int(left)

    def zone(self, z: Any) -> Any:
        """Zone of planes of the box: 0 lower, 1 middle, 2 upper."""
        return self._part(z, len(ZONES))

    def tenth(self, z: Any) -> Any:
        """Tenth of the lungs' height in which planes of the box lie, from 0 at the bottom."""
        return self._part(z, HEIGHT_PARTS)

    def half(self, x: Any, side: int) -> Any:
        """Half of a lung in which coronal planes of the box lie: 0 anterior, 1 posterior."""
        span = _span(self.depths[side])
        return _parts(x, span, len(HALVES))

    def _part(self, z: Any, parts: int) -> Any:
        return _parts(z, _span(self.heights.sum(axis=0)), parts)


def find_sides(chest: Chest) -> Sides:
    """Tell right from left: by components, or by the narrowest cut where the lungs touch."""
    xp = namespace(chest.lung)
    labels, count = label_regions(chest.lung)
    profile = _profiles(labels, count)
    lungs, flag, cut = _assigned(profile, chest)
    if cut is None:
        sides = xp.take(xp.asarray(lungs), labels)
    else:
        sides = xp.astype(chest.lung, xp.uint8) * xp.asarray(RIGHT, dtype=xp.uint8)
        sides[:, cut:, :] *= xp.asarray(LEFT, dtype=xp.uint8)
    del labels
    halves = [sides == label for label in (RIGHT, LEFT)]
    heights, depths = (np.stack([chest.along(h, axis) for h in halves]) for axis in (2, 0))
    return Sides(sides, flag, heights, depths)


def zone_table(sides: Sides, places: tuple[Array, Array, Array], voxel_ml: float) -> dict[str, Any]:
    """Volume, share and score of a lesion set in each of six zones (spec §4.2).

    Parameters
    ----------
    places
        Side (1 or 2), x and z in the box of each of the set's voxels, [n].

    Returns
    -------
    By zone ``lung_ml``, ``lesion_ml``, ``share`` and ``score``; ``score_0_24``, their sum: the
    usual visual scale, computed by volume. The halves have no score.
    """
    side, x, z = (to_host(place) for place in places)
    table: dict[str, Any] = {}
    planes = np.arange(sides.heights.shape[1])
    levels, zones = np.bincount(sides.zone(z) + len(ZONES) * (side.astype(np.int64) - 1),
                                minlength=2 * len(ZONES)), sides.zone(planes)  # fmt: skip
    for index, name in enumerate(SIDES):
        for zone in reversed(range(len(ZONES))):
            lung = int(sides.heights[index][zones == zone].sum())
            lesion = int(levels[index * len(ZONES) + zone])
            entry = _shared(lung, lesion, voxel_ml)
            table[f"{name}_{ZONES[zone]}"] = {**entry, "score": score(entry["share"])}
    table["score_0_24"] = sum(entry["score"] or 0 for entry in table.values())
    table |= _halves(sides, side, x, voxel_ml)
    return table


def score(share: float | None) -> int | None:
    """Score of a zone by the share of it that is diseased: 0 to 4."""
    if share is None:
        return None
    return 0 if share <= 0 else 1 + sum(share >= limit for limit in SCORE_SHARES)


def _halves(
    sides: Sides, side: NDArray[Any], x: NDArray[Any], voxel_ml: float
) -> dict[str, dict[str, float | None]]:
    lung, lesion = np.zeros((2, 2), np.int64)
    planes = np.arange(sides.depths.shape[1])
    for index in range(len(SIDES)):
        if not sides.depths[index].any():
            continue
        halves = sides.half(planes, index)
        lung += [int(sides.depths[index][halves == half].sum()) for half in range(2)]
        lesion += np.bincount(sides.half(x[side == index + 1], index), minlength=2)
    return {
        name: _shared(int(lung[half]), int(lesion[half]), voxel_ml)
        for half, name in enumerate(HALVES)
    }


def _shared(lung: int, lesion: int, voxel_ml: float) -> dict[str, Any]:
    share = lesion / lung if lung else None
    return {"lung_ml": lung * voxel_ml, "lesion_ml": lesion * voxel_ml, "share": share}


def _profiles(labels: Array, count: int) -> NDArray[np.int64]:
    """Voxels of each component in each plane across axis 1: int64 [planes, count + 1]."""
    xp = namespace(labels)
    planes = [
        to_host(xp.bincount(labels[:, y, :].ravel(), minlength=count + 1))
        for y in range(labels.shape[1])
    ]
    return np.stack(planes).astype(np.int64)


def _assigned(
    profile: NDArray[np.int64], chest: Chest
) -> tuple[NDArray[np.uint8], Flag, int | None]:
    """The lung of each component, and where lungs that touch are cut."""
    sizes = profile[:, 1:].sum(axis=0)
    planes = np.arange(len(profile))
    means = planes @ profile[:, 1:] / sizes
    order = np.argsort(-sizes, kind="stable")
    lungs = np.zeros(len(sizes) + 1, np.uint8)
    first = order[0]
    if len(order) > 1 and sizes[order[1]] >= SECOND_LUNG * sizes[first]:
        low, high = sorted(means[order[:2]])
        lungs[1:] = np.where(np.abs(means - low) <= np.abs(means - high), RIGHT, LEFT)
        lungs[order[:2] + 1] = np.where(means[order[:2]] == low, RIGHT, LEFT)
        return lungs, "ok", None
    low, high = _span(profile[:, first + 1])
    if (high - low) * chest.voxel_mm[1] < SINGLE_LUNG_MM:
        middle = (chest.crop.whole[1] - 1) / 2 - chest.crop.origin[1]
        lungs[1:] = RIGHT if means[first] <= middle else LEFT
        return lungs, "single_lung", None
    return lungs, "merged_lungs", _narrowest(profile[:, first + 1], low, high)


def _narrowest(profile: NDArray[np.int64], low: int, high: int) -> int:
    """Plane with the fewest voxels in the middle half; of several the most central, then lowest."""
    width = high - low
    places = range(low + width // 4, high - width // 4)
    return min(places, key=lambda y: (profile[y], abs(2 * y - (low + high)), y))


def _span(profile: NDArray[np.int64]) -> tuple[int, int]:
    found = np.flatnonzero(profile)
    return int(found[0]), int(found[-1]) + 1


def _parts(place: Any, span: tuple[int, int], parts: int) -> Any:
    low, high = span
    return np.clip(parts * (np.asarray(place, np.int64) - low) // (high - low), 0, parts - 1)
