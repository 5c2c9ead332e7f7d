"""Three views together: golden sums and masks, and the bound that two views give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.catalog.dlpe import HEART_POSITIVE, POSITIVE
from hilum.postprocessing.dlpe.three_way import clear_outside, open_slices, positive


def test_golden_masks(golden: Path) -> None:
    stored = np.load(golden / "dlpe" / "09_three_way.npz")
    views = [stored[f"prob_{d}"] for d in "XYZ"]
    total = (views[0] + views[1]) + views[2]
    assert total.dtype == np.float32
    np.testing.assert_array_equal(positive(total, 2), stored["mask_gt2"])
    np.testing.assert_array_equal(positive(total, 1.5), stored["mask_gt1p5"])


def test_analytic_vectors() -> None:
    p = np.array([1, 0.7], np.float32).reshape(2, 1, 1)
    last = np.array([0, 0.7], np.float32).reshape(2, 1, 1)
    assert positive((p + p) + last, 2).ravel().tolist() == [0, 1]
    inside = np.array([1, 0], np.uint8).reshape(2, 1, 1)
    assert positive((p + p) + last, 1, within=inside).ravel().tolist() == [1, 0]


@pytest.mark.parametrize("threshold", [POSITIVE, HEART_POSITIVE])
@pytest.mark.parametrize("direction", ["x", "y", "z"])
def test_closed_slices_cannot_be_positive(threshold: float, direction: str) -> None:
    bound = np.float32(threshold) - np.float32(1)
    near = np.array([bound], np.float32)
    sums = [near]
    for _ in range(50):
        near = np.nextafter(near, np.float32(9), dtype=np.float32)
        sums.append(near)
    sums += [2 * bound - s for s in sums[1:]]
    first_two = np.concatenate(sums).reshape({"x": (-1, 1, 1), "y": (1, -1, 1)}.get(
        direction, (1, 1, -1)))  # fmt: skip
    opened = open_slices(first_two, threshold, direction)
    assert opened.tolist() == (first_two > bound).ravel().tolist()
    found = positive(first_two + np.float32(1), threshold).ravel().astype(bool)
    assert not (found & ~opened).any()
    assert 49 <= found.sum() <= opened.sum() == 50  # no wider than rounding makes it


def test_only_needed_voxels_keep_a_slice_open() -> None:
    total = np.zeros((40, 5, 6), np.float32)
    total[3, 2, 4] = total[35, 1, 1] = 1.5
    needed = np.ones(total.shape, np.uint8)
    needed[35] = 0
    assert np.flatnonzero(open_slices(total, 2, "x")).tolist() == [3, 35]
    assert np.flatnonzero(open_slices(total, 2, "x", needed)).tolist() == [3]
    assert np.flatnonzero(open_slices(total, 2, "z", needed)).tolist() == [4]


def test_clear_outside() -> None:
    total = np.ones((6, 7, 8), np.float32)
    box = (slice(1, 4), slice(0, 7), slice(5, 8))
    clear_outside(total, box)
    assert total.sum() == total[box].size == 63
