"""Histograms of oriented gradients against the golden slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hilum.catalog.covid_mtl_features import HOG_VALUES
from hilum.catalog.errors import InputError
from hilum.preprocessing.hog import hog_features, largest_slice


def test_golden_histograms(golden: Path) -> None:
    case = np.load(golden / "mtl/hog.npz")
    found = hog_features(np.stack([case["slice"] * 0, case["slice"], case["slice"] * 0]))
    assert found.values.shape == (HOG_VALUES,)
    assert np.abs(found.values - case["hog"]).max() < 1e-6
    assert (found.index, found.flat) == (1, False)


def test_golden_slice(golden: Path) -> None:
    case, phantom = (np.load(golden / f"mtl/{n}.npz") for n in ("hog", "phantom_seg"))
    shape = tuple(phantom["shape"])
    mask = np.unpackbits(phantom["mask_refined_uint16_bits"])[: np.prod(shape)].reshape(shape)
    volume = phantom["resampled"] * mask
    areas = np.count_nonzero(volume, axis=(1, 2))
    assert np.array_equal(areas, case["area_per_slice"])
    assert largest_slice(volume) == case["slice_index"]
    assert largest_slice(np.ones((3, 2, 2))) == 0


def test_a_constant_slice_has_none() -> None:
    found = hog_features(np.full((2, 390, 390), 7, np.uint16))
    assert found.flat
    assert found.values.shape == (HOG_VALUES,)
    assert not found.values.any()


def test_slices_below_a_cell_are_refused() -> None:
    with pytest.raises(InputError, match="cells of 16 × 16"):
        hog_features(np.ones((2, 15, 40), np.uint16))
