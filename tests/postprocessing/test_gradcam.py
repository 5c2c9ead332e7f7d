"""Heat maps, sides and series summary of the CT classifier."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from hilum.postprocessing.ct_classifier.gradcam import (
    Laterality,
    grad_cam,
    heat_map,
    laterality,
    lung_shells,
    normalised,
    overlay,
    summarise,
)
from hilum.preprocessing.phantoms.ct import chest_ct

TOY = np.array([[4.25, -0.75], [-0.75, 0.25]], np.float32)


def test_grad_cam_of_the_toy() -> None:
    assert np.array_equal(grad_cam(TOY), np.array([[1.0625, 0], [0, 0.0625]], np.float32))
    heat, empty = normalised(TOY)
    assert heat[1, 1] == pytest.approx(0.05882353)
    assert heat.max() == 1 and not empty


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e-42, np.nan])
def test_a_map_without_positive_values_is_empty(value: float) -> None:
    heat, empty = normalised(np.full((8, 8), value, np.float32))
    assert empty and not heat.any()
    assert not heat_map(np.full((8, 8), value, np.float32)).any()


def test_heat_map_is_bilinear_with_half_pixel_centres() -> None:
    cam = np.random.default_rng(0).normal(0, 1, (8, 8)).astype(np.float32)
    expected = cv2.resize(normalised(cam)[0], (256, 256), interpolation=cv2.INTER_LINEAR)
    heat = heat_map(cam)
    assert np.abs(heat - expected).max() < 1e-6
    large = heat_map(cam, (512, 512))
    assert large.shape == (512, 512)
    assert np.abs(large - cv2.resize(expected, (512, 512))).max() < 1e-6
    assert large.min() >= 0 and large.max() <= 1


def test_overlay_goes_from_blue_to_red() -> None:
    grey = np.full((4, 4), 100, np.uint8)
    cold, hot = overlay(grey, np.zeros((4, 4))), overlay(grey, np.ones((4, 4)))
    assert cold[0, 0].tolist() == [60, 60, 111]
    assert hot[0, 0].tolist() == [111, 60, 60]


@pytest.mark.parametrize(
    ("right", "left", "share", "dominance"),
    [
        (327, 60, 0.845, "right"),
        (48, 333, 0.126, "left"),
        (49, 51, 0.49, "bilateral"),
        (47.5, 52.5, 0.475, "left"),
        (0, 0, None, "free"),
    ],
)
def test_dominance(right: float, left: float, share: float | None, dominance: str) -> None:
    spread = Laterality(right, left)
    assert spread.dominance == dominance
    assert spread.share_right == (None if share is None else pytest.approx(share, abs=5e-4))


def test_sums_belong_to_the_labelled_lungs() -> None:
    lung = np.zeros((64, 64), np.uint8)
    lung[10:50, 5:25], lung[10:50, 40:60] = 1, 2
    heat = np.zeros((64, 64), np.float32)
    heat[20:30, 10:20], heat[0:5] = 0.5, 1
    spread = laterality(heat, lung)
    assert (spread.right, spread.left, spread.dominance) == (50, 0, "right")
    mirrored = laterality(heat[:, ::-1], lung)
    assert mirrored.dominance == "left"
    assert sum(spread.shells_right) == spread.right
    assert spread.shells_left == (0, 0, 0, 0)


def shells_by_erosion(lung: np.ndarray) -> np.ndarray:
    """Erode step by step as the specification says."""
    shells, left, total = lung.astype(np.uint8), lung, lung.sum()
    for quarters in (3, 2, 1):
        while 4 * left.sum() > quarters * total:
            left = ndimage.binary_erosion(left, np.ones((3, 3)))
        shells += left
    return shells


@pytest.mark.parametrize("label", [1, 2])
def test_shells_equal_repeated_erosion(label: int) -> None:
    lung = chest_ct(9, slices=6, size=200).lung[2] == label
    lung[:, :] |= ndimage.binary_dilation(lung) & (np.arange(200) % 7 == 0)
    shells = lung_shells(lung)
    assert np.array_equal(shells, shells_by_erosion(lung))
    areas = np.bincount(shells.ravel(), minlength=5)[1:] / lung.sum()
    assert areas == pytest.approx([0.25] * 4, abs=0.08)


def test_shells_reach_the_border_of_the_slice_and_survive_an_empty_lung() -> None:
    assert np.array_equal(
        lung_shells(np.ones((9, 9), bool)), shells_by_erosion(np.ones((9, 9), bool))
    )
    assert not lung_shells(np.zeros((9, 9), bool)).any()


def test_series_summary() -> None:
    summary = summarise([0.1, 0.5, 0.6, 0.49, 0.9, 0.8, 0.7, 0.2])
    assert (summary.slices, summary.positive, summary.fraction) == (8, 5, 0.625)
    assert (summary.maximum, summary.maximum_at) == (0.9, 4)
    assert (summary.longest_run, summary.longest_run_slices) == ((4, 6), 3)
    broken = summarise([0.9, 0.9, 0.9, 0.9], breaks=(2,))
    assert broken.longest_run == (0, 2)
    none = summarise([0.1, 0.2])
    assert (none.longest_run, none.longest_run_slices, none.positive) == (None, 0, 0)
    assert summarise([0.3, 0.4], threshold=0.4).positive == 1
