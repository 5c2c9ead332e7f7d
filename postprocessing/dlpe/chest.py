"""What is measured in a scan: its lungs with a rim of one voxel, cut out of normalised space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import HU_OFFSET, HU_SCALE
from hilum.catalog.dlpe_quantities import MIN_LESION_ML
from hilum.preprocessing.arrays import Array, as_bool, namespace, to_host

from .extent import blocks, extent, same_shape

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of a volume that may reach beyond it; what lies outside is 0.

    Attributes
    ----------
    origin
        Index in the volume of the box's first voxel; −1 where it begins before the volume.
    shape
        Of the box.
    whole
        Of the volume.
    """

    origin: tuple[int, int, int]
    shape: tuple[int, int, int]
    whole: tuple[int, int, int]

    @classmethod
    def around(cls, mask: Array) -> Crop | None:
        """The smallest box around a mask with a rim of one voxel; None for an empty mask."""
        box = extent(mask)
        if box is None:
            return None
        (a, b, c), (u, v, w) = ((s.start - 1 for s in box), (s.stop - s.start + 2 for s in box))
        x, y, z = mask.shape
        return cls((a, b, c), (u, v, w), (x, y, z))

    def cut(self, volume: Array) -> Array:
        """The box of a volume [x, y, z]: a view where it lies within, else a copy."""
        first = [max(o, 0) for o in self.origin]
        last = [min(o + n, w) for o, n, w in zip(self.origin, self.shape, self.whole, strict=True)]
        inside = volume[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        if tuple(inside.shape) == self.shape:
            return inside
        padded = namespace(volume).zeros(self.shape, dtype=volume.dtype)
        starts = [a - o for a, o in zip(first, self.origin, strict=True)]
        padded[tuple(slice(s, s + n) for s, n in zip(starts, inside.shape, strict=True))] = inside
        return padded

    def uncut(self, part: Array) -> Array:
        """The opposite of `cut`: a whole volume with 0 around the box."""
        xp = namespace(part)
        volume = xp.zeros(self.whole, dtype=part.dtype)
        first = [max(o, 0) for o in self.origin]
        last = [min(o + n, w) for o, n, w in zip(self.origin, self.shape, self.whole, strict=True)]
        starts = [a - o for a, o in zip(first, self.origin, strict=True)]
        target = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        volume[target] = part[
            tuple(slice(s, s + b - a) for s, a, b in zip(starts, first, last, strict=True))
        ]
        return volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """The lungs of one scan and what lies in them; arrays are boxes [x, y, z] of one module.

    Attributes
    ----------
    crop
        Where the box lies in the volume.
    voxel_mm
        Size of a voxel along each axis.
    baseline_hu
        Density of healthy parenchyma.
    ct
        As given to `cut_chest`.
    scale, offset
        HU = scale · ct + offset.
    lung, airway, vessel
        bool; airways and vessels inside the lungs.
    lung_voxels, parenchyma_voxels
        Their numbers.
    """

    crop: Crop
    voxel_mm: Triple
    baseline_hu: float
    ct: Array
    scale: float
    offset: float
    lung: Array
    airway: Array
    vessel: Array
    parenchyma: Array
    lung_voxels: int
    parenchyma_voxels: int

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return math.prod(self.voxel_mm) / 1000

    @property
    def min_voxels(self) -> int:
        """Voxels of the smallest lesion that is counted."""
        return max(1, round(MIN_LESION_ML / self.voxel_ml))

    def lesions(self, mask: Array) -> Array:
        """The part of a lesion mask of the whole volume that lies in parenchyma, as a box."""
        return _own(as_bool(self.crop.cut(mask))) & self.parenchyma

    def severity(self, flat: Array) -> Array:
        """HU above the baseline, float64 [n], at flat indices into the box (spec §3.1)."""
        xp = namespace(self.ct)
        values = xp.astype(xp.take(flattened(self.ct), flat), xp.float64)
        return values * self.scale + (self.offset - self.baseline_hu)

    def mean_hu(self) -> float:
        """Mean density of the lungs, structures included."""
        xp, total = namespace(self.ct), 0.0
        for block in blocks(tuple(slice(0, n) for n in self.crop.shape)):  # pyright: ignore[reportArgumentType]
            values = xp.astype(self.ct[block], xp.float64)
            total += float(xp.sum(xp.where(self.lung[block], values, xp.zeros_like(values))))
        return self.scale * total / self.lung_voxels + self.offset

    def along(self, mask: Array, axis: int) -> NDArray[np.int64]:
        """Voxels of a box's mask in each plane across an axis, on the host."""
        xp = namespace(mask)
        others = tuple(a for a in range(3) if a != axis)
        return to_host(xp.count_nonzero(mask, axis=others))


def cut_chest(
    ct: Array,
    masks: Mapping[str, Array],
    voxel_mm: Triple,
    baseline_hu: float,
    *,
    scale: float = HU_SCALE,
    offset: float = HU_OFFSET,
) -> Chest | None:
    """Cut the lungs out of a scan.

    Parameters
    ----------
    ct
        [x, y, z] in normalised space, not clipped.
    masks
        uint8 or bool [x, y, z] by name: ``lung``, and ``airway`` and ``vessel`` if there are any.
    voxel_mm
        Size of a voxel along each axis.
    scale, offset
        HU = scale · ct + offset.

    Returns
    -------
    None without lungs.

    Raises
    ------
    InputError
        For volumes of different shapes.
    """
    same_shape(ct=ct, **masks)
    crop = Crop.around(masks["lung"])
    if crop is None:
        return None
    xp = namespace(ct)
    lung = _own(as_bool(crop.cut(masks["lung"])))
    airway, vessel = (
        _own(as_bool(crop.cut(masks[name]))) & lung if name in masks else xp.zeros_like(lung)
        for name in ("airway", "vessel")
    )
    parenchyma = lung & ~(airway | vessel)
    return Chest(
        crop=crop,
        voxel_mm=voxel_mm,
        baseline_hu=baseline_hu,
        ct=_own(crop.cut(ct)),
        scale=scale,
        offset=offset,
        lung=lung,
        airway=airway,
        vessel=vessel,
        parenchyma=parenchyma,
        lung_voxels=_count(lung),
        parenchyma_voxels=_count(parenchyma),
    )


def flattened(box: Array) -> Array:
    """A box as one row, the last axis fastest; a view where it lies in one piece."""
    return namespace(box).reshape(box, (-1,))


def _own(box: Array) -> Array:
    """A copy whose last axis runs fastest, whatever the order of the volume."""
    own = namespace(box).empty(box.shape, dtype=box.dtype)
    own[...] = box
    return own


def _count(mask: Array) -> int:
    xp = namespace(mask)
    return int(xp.count_nonzero(mask))
