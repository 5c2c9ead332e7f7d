"""The 375 radiomic features of COVID-MTL: computed with PyRadiomics, and scaled as published.

The published program runs PyRadiomics six times over the common box of 340 × 390 × 390 voxels.
Here the lungs are cut out, the wavelet bands made once, and the images worked on side by side; the
values are the same (spec covid_mtl §7).
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl_features import (
    BANDS,
    FEATURES,
    FIRST_ORDER,
    GLCM,
    GLRLM,
    GLSZM,
    OVERWRITTEN,
    SCALED_LIMITS,
    WAVELET_GLCM,
)
from hilum.catalog.errors import InputError
from hilum.catalog.extras import require

from ..workers import Watch, ready
from .bands import Region, wavelet_bands

Mask = tuple[NDArray[np.uint8], tuple[int, ...]]
"""A mask for another process: its bits, and its shape."""

_ORIGINAL_SHARE, _WAVELET_SHARE = 0.15, 0.25
"""Shares of the work that are done after the original image, and after the wavelet transform."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """Features by the published scaling.

    Attributes
    ----------
    values
        float32 [375].
    replaced
        Features that could not be computed; the mean of the published cases took their places.
    clipped
        Features that lay outside `SCALED_LIMITS`.
    """

    values: NDArray[np.float32]
    replaced: tuple[str, ...]
    clipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Constants of the published scaling, float64 [375] each, in the order of the features."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]


def radiomic_features(
    volume: NDArray[np.uint16], *, pool: Executor | None = None, watch: Watch | None = None
) -> NDArray[np.float64]:
    """Compute the features of the voxels above 0.

    Parameters
    ----------
    volume
        uint16 [z, y, x]: stored values in voxels of 1 mm, 0 where no lung is.
    pool
        Processes that share the images (`workers.open_pool`); None: all in this one.
    watch
        Who follows.

    Returns
    -------
    float64 [375] in the order of `FEATURES`; NaN for what cannot be computed.

    Raises
    ------
    InputError
        Without any voxel above 0, for a single one or a line of them, and without PyRadiomics.
    concurrent.futures.CancelledError
        When the watch wants an end.
    """
    watch = watch or Watch()
    _textures()
    region = Region.of(volume)
    found = _all_here(region, watch) if pool is None else _all_in(pool, region, watch)
    watch.done(1)
    return np.array([found.get(name, math.nan) for name in FEATURES])


def scale(features: NDArray[np.float64]) -> Scaled:
    """Scale features to the range of the published cases (spec covid_mtl §7.4).

    Parameters
    ----------
    features
        [375] as `radiomic_features` gives them.

    Raises
    ------
    InputError
        For another number of features.

    Notes
    -----
    A feature that is the same in all published cases becomes 0. Unlike the published program this
    limits the values to `SCALED_LIMITS`, in which all published cases lie.
    """
    if features.shape != (len(FEATURES),):
        raise InputError(f"features {list(features.shape)}: give the {len(FEATURES)} of one volume")
    by = scaling()
    width = by.high - by.low
    known = np.isfinite(features)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(width > 0, (np.where(known, features, by.mean) - by.low) / width, 0.0)
    limited = np.clip(scaled, *SCALED_LIMITS)
    names = np.array(FEATURES)
    return Scaled(
        limited.astype(np.float32),
        tuple(names[~known].tolist()),
        tuple(names[limited != scaled].tolist()),
    )


@cache
def scaling() -> Scaling:
    """Read the constants of the published scaling."""
    file = resources.files("hilum.preprocessing.covid_mtl") / "scaling.csv"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    rows = {name: values for name, *values in (line.split(",") for line in lines[1:])}
    low, high, mean = np.array([rows[name] for name in FEATURES], np.float64).T
    return Scaling(low, high, mean)


def radiomics_step(crop: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Compute and scale the features of a common box: the Python step ``covid_mtl_radiomics``.

    Parameters
    ----------
    crop
        uint16 [340, 390, 390].

    Returns
    -------
    ``features`` float64 [375], ``scaled`` float32 [375], and ``replaced`` int32 [1]: how many
    scaled ones are stand-ins.

    Raises
    ------
    InputError
        As `radiomic_features` does.
    """
    features = radiomic_features(crop)
    scaled = scale(features)
    replaced = np.array([len(scaled.replaced)], np.int32)
    return {"features": features, "scaled": scaled.values, "replaced": replaced}


def _all_here(region: Region, watch: Watch) -> dict[str, float]:
    watch.check()
    found = original_features(_packed(region.mask), region.values)
    watch.done(_ORIGINAL_SHARE)
    bands = wavelet_bands(region, watch.part(_ORIGINAL_SHARE, _WAVELET_SHARE).done)
    rest = watch.part(_WAVELET_SHARE, 1)
    for number, name in enumerate(BANDS, 1):
        found |= band_features(name, _packed(region.mask), bands.pop(name))
        rest.done(number / len(BANDS))
    return found


def _all_in(pool: Executor, region: Region, watch: Watch) -> dict[str, float]:
    """The original image goes to the pool first: it takes longest, and the bands take time."""
    mask = _packed(region.mask)
    running = [pool.submit(original_features, mask, region.values)]
    try:
        bands = wavelet_bands(region, watch.part(0, _WAVELET_SHARE - _ORIGINAL_SHARE).done)
        running += [pool.submit(band_features, name, mask, bands.pop(name)) for name in BANDS]
        found: dict[str, float] = {}
        rest = watch.part(_WAVELET_SHARE - _ORIGINAL_SHARE, 1)
        for number, one in enumerate(ready(running, watch), 1):
            found |= one.result()
            rest.done(number / len(running))
    finally:
        for one in running:
            one.cancel()
    return found


def original_features(mask: Mask, values: NDArray[np.uint16]) -> dict[str, float]:
    """The 71 features of the image itself, by their published names."""
    textures = _textures()
    levels = textures.binned(values, _unpacked(mask))
    found = textures.FirstOrder(levels, FIRST_ORDER).compute()
    found |= textures.Glcm(levels, GLCM).compute()
    found |= textures.Glrlm(levels, GLRLM).compute()
    # The zones come last: three of their features take the names of run-length features.
    return found | textures.Glszm(levels, OVERWRITTEN + GLSZM).compute()


def band_features(name: str, mask: Mask, values: NDArray[np.float64]) -> dict[str, float]:
    """The 38 features of a wavelet band, by their published names."""
    textures = _textures()
    levels = textures.binned(values, _unpacked(mask))
    found = {
        f"{name}_glcm_{k}": v for k, v in textures.Glcm(levels, WAVELET_GLCM).compute().items()
    }
    runs = textures.Glrlm(levels, GLRLM).compute()
    return found | {f"{name}_glrlm_{k}": v for k, v in runs.items()}


def _packed(mask: NDArray[np.bool_]) -> Mask:
    return np.packbits(mask), mask.shape


def _unpacked(mask: Mask) -> NDArray[np.bool_]:
    bits, shape = mask
    return np.unpackbits(bits, count=math.prod(shape)).view(np.bool_).reshape(shape)


def _textures() -> ModuleType:
    """Load PyRadiomics when it is needed: that takes a second, and a compiler at installation."""
    check_installed()
    from . import textures as radiomics_textures

    return radiomics_textures


def check_installed() -> None:
    """Refuse to begin without the libraries of the extra `radiomics`.

    Raises
    ------
    InputError
        With what to install.
    """
    require("radiomic features", "radiomics", "pywt", "skimage")
