"""Connectivity refinement: golden file, analytic vectors, sets of voxels, faces, ties."""

from __future__ import annotations

import dlpe_definitions as definitions
import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.connectivity import refine


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "dlpe" / "07_components.npz")


@pytest.mark.parametrize(
    ("name", "keep", "ratio", "restricted"),
    [
        ("blob_2", 2, 0.001, False),
        ("blob_7", 7, 0.001, False),
        ("blob_2_r04", 2, 0.4, False),
        ("blob_50_r01", 50, 0.1, False),
        ("blob_7_restricted", 7, 0.001, True),
        ("tiny_1", 1, 0.001, False),
        ("tiny_2", 2, 0.001, False),
        ("tiny_3", 3, 0.001, False),
        ("tiny_7_r05", 7, 0.5, False),
    ],
)
def test_golden_masks(stored, name, keep, ratio, restricted) -> None:
    mask = stored[name.split("_")[0]]
    before = mask.copy()
    restrict = stored["restrict"] if restricted else None
    found = refine(mask, keep, ratio, restrict)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, stored[name])
    np.testing.assert_array_equal(mask, before)


def tiny() -> np.ndarray:
    """A diagonal chain of 3, two pairs and a single voxel."""
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[[5, 6, 7], [5, 6, 7], [5, 6, 7]] = 1
    mask[9, 2, 2:4] = 1
    mask[2:4, 9, 9] = 1
    mask[9, 9, 2] = 1
    return mask


@pytest.mark.parametrize(
    ("keep", "ratio", "voxels"), [(1, 0.001, 3), (2, 0.001, 5), (3, 0.001, 7), (7, 0.5, 7)]
)
def test_sizes_kept(keep, ratio, voxels) -> None:
    assert refine(tiny(), keep, ratio).sum() == voxels


def test_the_first_of_two_equal_components_is_kept() -> None:
    found = refine(tiny(), 2)
    assert found[2:4, 9, 9].all()
    assert not found[9, 2].any()


@pytest.mark.parametrize("seed", range(12))
def test_random_masks_are_refined_as_defined(seed) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((13, 17, 15)) < rng.uniform(0.02, 0.2)).astype(np.uint8)
    for keep, ratio in ((1, 0.001), (3, 0.001), (2, 0.4), (50, 0.3)):
        wanted = definitions.refine(mask, keep, ratio)
        np.testing.assert_array_equal(refine(mask, keep, ratio), wanted)


def test_faces_are_background_in_parity_mode_only() -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[0, 2:5, 2:6] = 1
    mask[3, 3, 3] = 1
    assert refine(mask, 1).sum() == 1
    kept = refine(mask, 1, mode="corrected")
    assert kept[0, 2:5, 2:6].all()
    assert kept.sum() == 12
    # Restricted masks keep their faces in both modes.
    assert refine(mask, 1, restrict=np.ones_like(mask)).sum() == 12


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_an_empty_mask_stays_empty(mode) -> None:
    empty, full = np.zeros((9, 8, 7), np.uint8), np.ones((9, 8, 7), np.uint8)
    assert not refine(empty, 7, mode=mode).any()
    assert not refine(full, 7, restrict=empty, mode=mode).any()


def test_a_volume_that_is_all_faces_is_empty_in_parity_mode() -> None:
    full = np.ones((2, 8, 7), np.uint8)
    assert not refine(full, 1).any()
    assert refine(full, 1, mode="corrected").all()


def test_wrong_use_is_reported() -> None:
    with pytest.raises(InputError, match="1 or more"):
        refine(tiny(), 0)
    with pytest.raises(InputError, match="one shape"):
        refine(tiny(), 1, restrict=np.ones((3, 3, 3), np.uint8))
