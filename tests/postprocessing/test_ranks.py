"""Rank thresholds: golden file, analytic vectors, full sorts, the heart's roots, errors."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.benchmarks import dlpe_direct as direct
from hilum.catalog.dlpe import AIRWAY, ARTERY_RATIO, VEIN_RATIO, VESSEL
from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.ranks import (
    above,
    channels,
    lung_box,
    rank_threshold,
    rank_thresholds,
    root_masks,
    select,
    tree_mask,
)


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "dlpe" / "04_rank_thresholds.npz")


@pytest.fixture(scope="module")
def score(stored):
    return (stored["prob_sum_q64"] / 64).astype(np.float32)


def test_box_of_the_golden_file(stored) -> None:
    box = lung_box(stored["lung"])
    assert [[s.start, s.stop] for s in box] == stored["box_used"].tolist()


@pytest.mark.parametrize(("name", "tree"), [("airway", AIRWAY), ("vessel", VESSEL)])
def test_channels_of_the_golden_file(stored, score, name, tree) -> None:
    recall, precision = channels(stored["lung"], score, tree)
    np.testing.assert_array_equal(recall, stored[f"{name}_high_recall"])
    np.testing.assert_array_equal(precision, stored[f"{name}_high_precision"])
    found = rank_thresholds(stored["lung"], score, (tree.high_recall, tree.high_precision))
    assert list(found) == stored[f"{name}_thresholds"].tolist()


@pytest.mark.parametrize(
    ("name", "ratio"), [("016", 0.016), ("020", 0.02), ("080", 0.08), ("100", 0.1)]
)
def test_final_masks_of_the_golden_file(stored, score, name, ratio) -> None:
    assert rank_threshold(stored["lung"], score, ratio) == stored[f"top_t{name}_threshold"]
    mask = tree_mask(stored["lung"], score, ratio)
    assert mask.dtype == np.uint8
    assert mask.sum() == stored[f"top_t{name}_count"]


def hundred(scores) -> tuple[np.ndarray, np.ndarray]:
    """100 lung voxels in a row; the ranking box takes 99 of them."""
    lung = np.zeros((3, 3, 102), np.uint8)
    lung[:2, :2, 1:26] = 1
    score = np.zeros(lung.shape, np.float32)
    score[0, 0, 1:25] = scores
    return lung, score


@pytest.mark.parametrize("ratio", [0.023, 0.02])
def test_a_hundredth_of_a_hundred_voxels(ratio) -> None:
    lung, score = hundred(np.random.default_rng(0).permutation(24) + 1)
    assert rank_threshold(lung, score, ratio, limits=(0, 500)) == 22
    assert tree_mask(lung, score, ratio, limits=(0, 500)).sum() == 2


def test_ties_with_the_threshold_do_not_pass() -> None:
    lung, score = hundred([5, 4, 4, 4, 1] + [0] * 19)
    assert rank_threshold(lung, score, 0.01, limits=(0, 500)) == 4
    assert tree_mask(lung, score, 0.01, limits=(0, 500)).sum() == 1


def test_without_a_share_the_sum_decides() -> None:
    lung, score = hundred(np.linspace(1.5, 2.5, 24, dtype=np.float32))
    np.testing.assert_array_equal(tree_mask(lung, score, None), score > 2)


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_those_of_a_full_sort(seed) -> None:
    rng = np.random.default_rng(seed)
    lung = (rng.random((31, 26, 37)) < 0.7).astype(np.uint8)
    score = rng.random(lung.shape, np.float32) * 3
    if seed % 2:
        score = np.round(score * 4) / np.float32(4)  # many ties
    for ratio in (0.0, 0.0066, 0.043, 0.1, 0.35):
        np.testing.assert_array_equal(
            tree_mask(lung, score, ratio), direct.rank_mask(lung, score, ratio)
        )


@pytest.mark.parametrize("seed", range(6))
def test_selected_values_are_those_of_a_full_sort(seed) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(700).astype(np.float32) * np.float32(10.0) ** rng.integers(
        -42, 38, 700
    ).astype(np.float32)
    values[rng.integers(0, 700, 90)] = rng.choice([0, -0.0, np.inf, -np.inf, 1, 1 + 2**-23], 90)
    parts = np.split(values, [100, 101, 430])
    ranks = [0, 699, *rng.integers(0, 700, 60).tolist()]
    descending = np.sort(values)[::-1]
    assert select(lambda: iter(parts), ranks) == descending[ranks].tolist()


def test_the_number_of_lung_voxels_is_rounded_in_parity_mode_only() -> None:
    lung = np.ones((257, 256, 256), np.uint8)
    lung[0, 0, 0] = 0  # 16 842 751 voxels: the nearest float32 is one more
    score = np.arange(lung.size, dtype=np.float32).reshape(lung.shape)
    score[:, :, -1] = score[:, -1] = score[-1] = 0  # not in the box
    exact, rounded = (
        rank_threshold(lung, score, 0.5, (0, 500), mode) for mode in ("corrected", "parity")
    )
    assert above(score, exact).sum() == 16_842_751 // 2
    assert above(score, rounded).sum() == 16_842_751 // 2 + 1


def test_roots_follow_the_definition() -> None:
    rng = np.random.default_rng(4)
    lung = np.zeros((40, 34, 30), np.uint8)
    lung[12:37, 11:31, 12:28] = rng.random((25, 20, 16)) < 0.6
    heart = (rng.random(lung.shape) < 0.05).astype(np.uint8)
    artery, vein = rng.random((2, *lung.shape), np.float32) * 3
    vein[20:24] = artery[20:24]
    given = [a.copy() for a in (lung, heart, artery, vein)]
    masks = []
    for score, ratio in ((artery, ARTERY_RATIO), (vein, VEIN_RATIO)):
        outside = score * (1 - lung)
        ranked = np.sort(outside[12:36, 11:30, 12:27], axis=None)[::-1]
        masks.append(outside > ranked[int(heart.sum() * ratio)])
    both = masks[0] & masks[1]
    assert both.any()
    found = root_masks(lung, heart, artery, vein)
    for mask, wanted in zip(found, masks, strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, wanted & ~both)
    for now, before in zip((lung, heart, artery, vein), given, strict=True):
        np.testing.assert_array_equal(now, before)


def test_roots_need_a_heart() -> None:
    lung, score = hundred(range(24))
    with pytest.raises(InputError, match="no heart"):
        root_masks(lung, np.zeros_like(lung), score, score)


def test_what_cannot_be_ranked_is_reported() -> None:
    lung, score = hundred(range(24))
    with pytest.raises(InputError, match="no lung"):
        rank_threshold(np.zeros_like(lung), score, 0.1)
    with pytest.raises(InputError, match="within indices 10 to 500"):
        rank_threshold(lung, score, 0.1)
    with pytest.raises(InputError, match="cannot be ranked among the 24 voxels"):
        rank_threshold(lung, score, 0.24, limits=(0, 500))
    with pytest.raises(InputError, match="cannot be ranked"):
        rank_threshold(lung, score, -0.1, limits=(0, 500))
    with pytest.raises(InputError, match="one shape"):
        rank_threshold(lung, score[:2], 0.1)
    score[0, 0, 3] = np.nan
    with pytest.raises(InputError, match="not numbers"):
        rank_threshold(lung, score, 0.1, limits=(0, 500))
