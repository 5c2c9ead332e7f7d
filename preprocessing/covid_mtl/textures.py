"""PyRadiomics' feature classes on arrays that are binned once, for whole lungs.

van Griethuysen et al., Cancer Res 77 (2017), doi 10.1158/0008-5472.CAN-17-0339. The matrices are
counted, and the features computed from them, by PyRadiomics; only the way there is different: grey
levels are binned once for all classes of an image, by NumPy's minimum and maximum, and zones are
counted by their sizes instead of in a table as long as the largest zone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from radiomics import base, firstorder, glcm, glrlm, glszm
from skimage.measure import label

from hilum.catalog.covid_mtl_features import BIN_WIDTH

from ..reading.parsing import quiet

# A feature that fails is NaN and counted as such; what PyRadiomics writes about it says no more.
_SILENT = logging.Logger("radiomics", logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Levels:
    """An image in bins.

    Attributes
    ----------
    image
        int32 [z, y, x]: bins from 1, in the box of the region; 0 outside the region.
    mask
        bool [z, y, x]: the region.
    values
        [n] of the image before it was binned, in the order of the voxels of the region.
    bins
        int64 [n]: those of `values`.
    present
        int64: the bins that occur, ascending.
    """

    image: NDArray[np.int32]
    mask: NDArray[np.bool_]
    values: NDArray[Any]
    bins: NDArray[np.int64]
    present: NDArray[np.int64]


def binned(values: NDArray[Any], mask: NDArray[np.bool_]) -> Levels:
    """Put the values of a region into bins of equal width (spec covid_mtl §7.1).

    Parameters
    ----------
    values
        uint16 or float64 [n], in the order of the voxels of `mask`.
    mask
        bool [z, y, x].

    Notes
    -----
    Bins start at a multiple of their width; a bin holds its lower edge. The edges are computed the
    way PyRadiomics does, so that values on them fall to the same side.
    """
    low, high = values.min().item(), values.max().item()
    edges = np.arange(low - low % BIN_WIDTH, high + 2 * BIN_WIDTH, BIN_WIDTH)
    bins = np.digitize(values, edges)
    image = np.zeros(mask.shape, np.int32)
    image[mask] = bins
    present = np.flatnonzero(np.bincount(bins))
    return Levels(image, mask, values, bins, present)


class _Prepared(base.RadiomicsFeaturesBase):
    """A feature class of PyRadiomics that starts from `Levels` instead of SimpleITK images."""

    def __init__(self, levels: Levels, features: Sequence[str]) -> None:
        self.logger = _SILENT
        self.settings: dict[str, Any] = {}
        self.label, self.voxelBased = 1, False
        self.coefficients = {"grayLevels": levels.present, "Ng": int(levels.present[-1])}
        self.featureValues: dict[str, Any] = {}
        self.enabledFeatures = dict.fromkeys(features, True)
        self.imageArray, self.maskArray = levels.image, levels.mask
        self.symmetricalGLCM, self.weightingNorm = True, None

    def compute(self) -> dict[str, float]:
        """The features by name; NaN for one that cannot be computed."""
        with quiet(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return {name: float(value) for name, value in self.execute().items()}


class FirstOrder(_Prepared, firstorder.RadiomicsFirstOrder):
    """Statistics of the values."""

    def __init__(self, levels: Levels, features: Sequence[str]) -> None:
        super().__init__(levels, features)
        self.voxelArrayShift = 0
        self.pixelSpacing = (1.0, 1.0, 1.0)
        self._levels = levels

    def _initCalculation(self, voxelCoordinates: None = None) -> None:  # noqa: ARG002, N802
        values, bins = self._levels.values, self._levels.bins
        self.targetVoxelArray = values.astype(np.float64).reshape(1, -1)
        counts = np.bincount(bins)[self._levels.present].astype(np.float64)
        self.coefficients["p_i"] = (counts / len(bins)).reshape(1, -1)


class Glcm(_Prepared, glcm.RadiomicsGLCM):
    """Grey-level co-occurrence."""


class Glrlm(_Prepared, glrlm.RadiomicsGLRLM):
    """Grey-level run lengths."""


class Glszm(_Prepared, glszm.RadiomicsGLSZM):
    """Grey-level size zones; zones are regions of one bin whose voxels touch, corners included."""

    def _calculateMatrix(self, voxelCoordinates: None = None) -> NDArray[np.float64]:  # noqa: ARG002, N802
        labels: Any = label(self.imageArray, background=0, connectivity=3)
        zones = labels[self.maskArray] - 1
        sizes = np.bincount(zones)
        bins = np.empty(len(sizes), np.int32)
        bins[zones] = self.imageArray[self.maskArray]  # all voxels of a zone write the same
        self._sizes, column = np.unique(sizes, return_inverse=True)
        row = np.searchsorted(self.coefficients["grayLevels"], bins)
        shape = len(self.coefficients["grayLevels"]), len(self._sizes)
        counts = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
        return counts.reshape(1, *shape).astype(np.float64)

    def _calculateCoefficients(self) -> None:  # noqa: N802
        zones: Any = self.P_glszm
        sizes = self._sizes.astype(np.float64)
        by_size = zones.sum(axis=1)
        self.coefficients |= {
            "Np": (by_size * sizes).sum(axis=1),
            "Nz": zones.sum(axis=(1, 2)),
            "ps": by_size,
            "pg": zones.sum(axis=2),
            "ivector": self.coefficients["grayLevels"].astype(np.float64),
            "jvector": sizes,
        }
