"""Histograms of oriented gradients of the slice with the most lung (spec covid_mtl §8).

Dalal and Triggs, CVPR 2005. The article compares them with the radiomic features; no published
network takes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import hog

from ..catalog.covid_mtl_features import HOG
from ..catalog.errors import InputError


@dataclass(frozen=True, slots=True)
class HogFeatures:
    """Histograms of one slice.

    Attributes
    ----------
    values
        float32: cell by cell, of 390 × 390 pixels 18 432.
    index
        The slice.
    flat
        The slice has one value only; its histograms, which are not defined, are 0.
    """

    values: NDArray[np.float32]
    index: int
    flat: bool


def largest_slice(volume: NDArray[Any]) -> int:
    """The slice of [z, y, x] with the most voxels that are not 0; the lowest of several."""
    return int(np.count_nonzero(volume, axis=(1, 2)).argmax())


def hog_features(volume: NDArray[Any]) -> HogFeatures:
    """Compute them.

    Parameters
    ----------
    volume
        Stored values [z, y, x], 0 where no lung is.

    Raises
    ------
    InputError
        For slices smaller than a cell.
    """
    cell = HOG.pixels_per_cell
    if volume.ndim != 3 or volume.shape[1] < cell[0] or volume.shape[2] < cell[1]:
        raise InputError(
            f"a volume {list(volume.shape)} has no histograms of cells of {cell[0]} × {cell[1]} "
            "pixels; give [z, y, x] with slices of that size at least"
        )
    index = largest_slice(volume)
    plane = volume[index].astype(np.float64)
    plane -= plane.min()
    flat = not plane.any()
    if not flat:
        plane /= plane.max()
    values: Any = hog(plane, **asdict(HOG))
    return HogFeatures(values.astype(np.float32), index, flat)
