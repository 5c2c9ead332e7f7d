"""The lungs in their box, and the eight wavelet bands of them in one pass.

The published procedure transforms the whole common box, twice, and keeps all of every band. Around
the lungs it holds zeros, so a few of them suffice, and a band is needed only where the lungs are.
The transform runs along columns, rows and slices in turn, slab by slab, by PyWavelets as in
PyRadiomics: the values are the same to the last bit (spec covid_mtl §7.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl_features import BANDS, WAVELET, WAVELET_MARGIN
from hilum.catalog.errors import NoLungs

_SLAB = 32
"""Slices whose bands are made at a time; an even number."""

_REACH = 4
"""Slices around a slab that the taps of the wavelet reach, rounded up to an even number."""

Bands = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Region:
    """The voxels above 0 of a volume.

    Attributes
    ----------
    shape
        Of the volume.
    start
        First slice, row and column of the smallest box around the voxels.
    crop
        uint16 [z, y, x]: the box.
    mask
        bool [z, y, x]: ``crop > 0``.
    values
        uint16 [n], in the order of the voxels of `mask`.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    crop: NDArray[np.uint16]
    mask: NDArray[np.bool_]
    values: NDArray[np.uint16]

    @classmethod
    def of(cls, volume: NDArray[np.uint16]) -> Region:
        """Find it in a volume, uint16 [z, y, x].

        Raises
        ------
        InputError
            When there are no textures: no voxel, a single one, or a line of them.
        """
        there = volume.any(axis=2)
        sides = there.any(axis=1), there.any(axis=0), volume.any(axis=(0, 1))
        found = [np.flatnonzero(side) for side in sides]
        if not len(found[0]):
            raise NoLungs(
                "no lung in the volume (no voxel above 0), so there are no radiomic features; look "
                "at the lung mask"
            )
        box = tuple(slice(int(f[0]), int(f[-1]) + 1) for f in found)
        crop = np.ascontiguousarray(volume[box])
        mask = crop > 0
        values = crop[mask]
        if sum(n > 1 for n in crop.shape) < 2:
            what = "a single voxel" if len(values) == 1 else f"{len(values)} voxels in one line"
            raise NoLungs(f"a lung mask of {what} has no radiomic features; look at the lung mask")
        return cls(volume.shape, tuple(s.start for s in box), crop, mask, values)

    def slab(self, first: int, count: int) -> NDArray[np.float64]:
        """Slices of the volume from `first` of the box on, with the surroundings of the box.

        Returns
        -------
        float64 [count, rows, columns]; the volume goes on periodically beyond its ends.
        """
        z = _wrapped(self.start[0] + first, count, self.shape[0])
        places = z, *(self._around(axis) for axis in (1, 2))
        out = np.zeros([len(p) for p in places])
        inner, outer = [], []
        for axis, place in enumerate(places):
            at = place - self.start[axis]
            there = np.flatnonzero((at >= 0) & (at < self.crop.shape[axis]))
            outer.append(there)
            inner.append(at[there])
        out[np.ix_(*outer)] = self.crop[np.ix_(*inner)]
        return out

    def inside(self, axis: int) -> slice:
        """Where the box lies along an axis (1 or 2) of a slab."""
        whole = len(self._around(axis)) >= _even(self.shape[axis])
        first = self.start[axis] if whole else WAVELET_MARGIN
        return slice(first, first + self.crop.shape[axis])

    def _around(self, axis: int) -> NDArray[np.int64]:
        """Places in the volume of the box with its margin; all places when there are fewer."""
        count = _even(self.crop.shape[axis] + 2 * WAVELET_MARGIN)
        if count >= _even(self.shape[axis]):
            return _wrapped(0, _even(self.shape[axis]), self.shape[axis])
        return _wrapped(self.start[axis] - WAVELET_MARGIN, count, self.shape[axis])


def wavelet_bands(region: Region, done: Callable[[float], None] = lambda _: None) -> Bands:
    """Transform a region (Coiflet-1, undecimated, one level, periodic).

    Parameters
    ----------
    region
        Of n voxels.
    done
        Called with the share that is done, after every slab.

    Returns
    -------
    float64 [n] for each band, by its name.
    """
    bands = {name: np.empty(len(region.values)) for name in BANDS}
    depth, end = len(region.mask), 0
    for first in range(0, depth, _SLAB):
        mask = region.mask[first : first + _SLAB]
        count = _even(len(mask))
        start, end = end, end + int(mask.sum())
        for name, band in _transformed(region, first - _REACH, count + 2 * _REACH):
            bands[name][start:end] = band[_REACH : _REACH + len(mask)][mask]
        done(min(1.0, (first + _SLAB) / depth))
    return bands


def _transformed(region: Region, first: int, count: int) -> Any:
    """The bands of a slab, cut to the box in rows and columns; wrong near its two ends."""
    rows, columns = region.inside(1), region.inside(2)
    for x, across in zip("LH", _split(region.slab(first, count), 2), strict=True):
        for y, down in zip("LH", _split(across[:, :, columns], 1), strict=True):
            for z, band in zip("LH", _split(down[:, rows], 0), strict=True):
                yield x + y + z, band


def _split(data: NDArray[np.float64], axis: int) -> Any:
    """Low-pass and high-pass part along an axis."""
    import pywt  # of the extra `radiomics`

    return pywt.swt(data, WAVELET, level=1, axis=axis)[0]


def _wrapped(first: int, count: int, length: int) -> NDArray[np.int64]:
    """`count` places from `first` on an axis that repeats; one of odd length repeats its start."""
    places = np.arange(first, first + count) % _even(length)
    return np.where(places == length, 0, places)


def _even(length: int) -> int:
    return length + length % 2
