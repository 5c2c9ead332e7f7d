"""The unsupervised lungs against the golden phantom: not one voxel may differ."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline
from skimage.measure import find_contours
from skimage.segmentation import active_contour

from hilum.catalog.covid_mtl import SNAKE
from hilum.catalog.errors import InputError
from hilum.preprocessing.covid_mtl import snake
from hilum.preprocessing.covid_mtl.lungs import initial_mask, refine, segment_lungs
from hilum.preprocessing.covid_mtl.outline import closing, disk, refine_slice
from hilum.preprocessing.covid_mtl.resample import to_millimetres
from hilum.preprocessing.covid_mtl.snake import edges, snakes
from hilum.preprocessing.covid_mtl.surface import slopes
from hilum.preprocessing.workers import Watch, open_pool

SHAPE = (25, 225, 285)


@pytest.fixture(scope="module")
def case(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "mtl/phantom_seg.npz"))


@pytest.fixture(scope="module")
def split(case: dict[str, np.ndarray]) -> np.ndarray:
    """The phantom whose lungs no airway joins, in voxels of 1 mm."""
    return to_millimetres(case["ct_split"], tuple(case["spacing_zyx"].tolist()))


def bits(case: dict[str, np.ndarray], name: str) -> np.ndarray:
    return np.unpackbits(case[f"{name}_bits"])[: np.prod(SHAPE)].reshape(SHAPE)


def body(shape: tuple[int, int, int] = (8, 60, 60)) -> np.ndarray:
    stored = np.zeros(shape, np.uint16)
    stored[:, 5:-5, 5:-5] = 1064
    return stored


def test_golden_masks(case: dict[str, np.ndarray]) -> None:
    found = segment_lungs(case["resampled"])
    assert np.array_equal(initial_mask(case["resampled"])[0], bits(case, "mask_init"))
    assert np.array_equal(found.mask, bits(case, "mask_refined_uint16"))
    assert found.mask.sum() == 373_225
    assert found.litres == 0.373225
    assert (found.one_lung, found.implausible, found.notes) == (False, False, ())


def test_golden_masks_of_signed_values(case: dict[str, np.ndarray]) -> None:
    found = refine(case["resampled"].astype(np.int16), bits(case, "mask_init"))
    assert np.array_equal(found, bits(case, "mask_refined_int16"))


def test_golden_lungs_that_no_airway_joins(case: dict[str, np.ndarray], split: np.ndarray) -> None:
    assert np.array_equal(initial_mask(split)[0], bits(case, "mask_init_split"))
    found = segment_lungs(split, "parity")
    assert np.array_equal(found.mask, bits(case, "mask_refined_split"))
    assert found.one_lung
    assert any("no airway joins" in note for note in found.notes)
    assert found.implausible


def test_mode_corrected_keeps_both_lungs(case: dict[str, np.ndarray], split: np.ndarray) -> None:
    found = segment_lungs(split, "corrected")
    assert not found.one_lung
    both = bits(case, "mask_refined_uint16")
    overlap = 2 * (found.mask & both).sum() / (found.mask.sum() + both.sum())
    assert overlap > 0.98  # the airway between them is gone


def test_modes_agree_where_an_airway_joins_the_lungs(case: dict[str, np.ndarray]) -> None:
    assert np.array_equal(initial_mask(case["resampled"], "corrected")[0], bits(case, "mask_init"))


def test_air_on_the_same_side_is_no_second_lung() -> None:
    stored = body()
    stored[:, 10:20, 10:20] = 100
    stored[:, 30:38, 10:20] = 100
    assert np.array_equal(initial_mask(stored, "corrected")[0], initial_mask(stored, "parity")[0])
    stored[:, 30:38, 10:20] = 1064
    stored[:, 30:38, 40:50] = 100
    assert initial_mask(stored, "corrected")[0].sum() == 180 * 8
    assert initial_mask(stored, "parity")[0].sum() == 100 * 8


def test_a_small_second_component_is_dropped() -> None:
    stored = body()
    stored[:, 10:30, 10:25] = 100
    stored[:, 30:36, 40:50] = 100  # a fifth of it, and no more
    assert initial_mask(stored, "corrected")[0].sum() == 300 * 8


def test_threshold_of_air() -> None:
    stored = body()
    stored[2:6, 20:40, 20:40] = 604
    assert not initial_mask(stored)[0].any()
    stored[2:6, 20:40, 20:40] = 603
    assert initial_mask(stored)[0].sum() == 4 * 400


def test_enclosed_tissue_is_lung_and_open_tissue_is_not() -> None:
    stored = body()
    stored[2:6, 20:40, 20:40] = 100
    stored[3:5, 28:32, 28:32] = 1100  # enclosed on all sides
    mask = initial_mask(stored)[0]
    assert mask[2:6, 20:40, 20:40].all()
    stored[:, 28:32, 28:32] = 1100  # a rod through it: filled in each slice all the same
    assert np.array_equal(initial_mask(stored)[0], mask)
    stored[2:6, 28:32, 28:] = 1100  # open to the side
    assert not initial_mask(stored)[0][2:6, 28:32, 28:].any()


def test_of_equal_regions_the_first_in_the_slice_is_outside() -> None:
    stored = np.full((3, 6, 8), 1064, np.uint16)
    stored[1, 1:5, 1:7] = 100  # as many pixels as are around them
    assert np.array_equal(initial_mask(stored)[0], stored == 100)


def test_disks() -> None:
    assert [int(disk(r).sum()) for r in (2, 5, 10)] == [13, 81, 317]


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_closing_is_that_of_scipy(radius: int) -> None:
    rng = np.random.default_rng(radius)
    for _ in range(6):
        mask = (ndimage.gaussian_filter(rng.standard_normal((70, 90)), 3) > 0.1).astype(np.uint8)
        mask[rng.integers(70), :] = 0
        grown = ndimage.binary_dilation(mask, disk(radius))
        wanted = ndimage.binary_erosion(grown, disk(radius), border_value=1)
        assert np.array_equal(closing(mask, radius), wanted)


def test_small_lungs_are_only_closed() -> None:
    image = np.full((120, 120), 200, np.uint16)
    lung = np.zeros((120, 120), np.uint8)
    lung[20:50, 20:50], lung[20:50, 53:80] = 1, 1
    assert np.array_equal(refine_slice(image, lung), closing(lung, 5))


def test_snakes_end_where_those_of_scikit_image_do(case: dict[str, np.ndarray]) -> None:
    compared = 0
    for k in (8, 12, 15):
        image, lung = case["resampled"][k], bits(case, "mask_init")[k]
        labels, count = ndimage.label(lung, np.ones((3, 3)))
        for i in range(1, count + 1):
            one = (labels == i).astype(np.uint8)
            inside = np.where(one > 0, image, np.uint16(0))
            contours = find_contours(closing(one, 10).astype(float), 0.8)
            for points, contour in zip(snakes(inside, contours), contours, strict=True):
                wanted: Any = active_contour(
                    inside, contour, boundary_condition="periodic", **asdict(SNAKE)
                )
                assert np.array_equal(points, wanted.astype(np.int64))
                compared += len(points)
    assert compared > 800


@pytest.mark.parametrize("shape", [(3, 3), (3, 9), (5, 4), (40, 51), (233, 301)])
def test_slopes_between_pixels_are_those_of_scipy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[1])
    picture = rng.random(shape) ** 3
    x, y = (
        np.concatenate([rng.uniform(-1, n, 400), np.resize(np.arange(0, n, 0.5), 400)])
        for n in shape
    )
    surface = RectBivariateSpline(*map(np.arange, shape), picture, kx=2, ky=2, s=0)
    wanted = surface(x, y, dx=1, grid=False), surface(x, y, dy=1, grid=False)
    for found, one in zip(slopes(picture, exactly=True), wanted, strict=True):
        assert np.array_equal(found(x, y), one)
    for found, one in zip(slopes(picture), wanted, strict=True):
        assert np.abs(found(x, y) - one).max() < 1e-14


def test_edges_are_those_of_scipy() -> None:
    picture = np.random.default_rng(4).integers(0, 4096, (61, 80)).astype(np.int16)
    scaled = np.maximum(np.multiply(picture, 1 / 32767, dtype=np.float64), -1)
    kernel = np.outer([1, 0, -1], [0.25, 0.5, 0.25])
    rows, columns = (ndimage.convolve(scaled, k, mode="reflect") for k in (kernel, kernel.T))
    wanted = np.sqrt(rows * rows + columns * columns) / np.sqrt(2)
    assert np.array_equal(edges(picture), wanted)


def test_snakes_by_the_published_operations_are_the_same(
    case: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every snake computed again, as one is that ends close to a whole number."""
    monkeypatch.setattr(snake, "_DOUBTFUL", 1.0)
    image, lung = case["resampled"][8:16], bits(case, "mask_init")[8:16]
    refined = np.stack([refine_slice(*both) for both in zip(image, lung, strict=True)])
    assert np.array_equal(refined, bits(case, "mask_refined_uint16")[8:16])


def test_a_lung_at_the_edge_of_the_picture() -> None:
    image = np.random.default_rng(1).integers(100, 300, (300, 300)).astype(np.uint16)
    lung = np.zeros((300, 300), np.uint8)
    lung[0:140, 0:120], lung[100:299, 160:300] = 1, 1
    refined = refine_slice(image, lung)
    assert refined[20:120, 20:100].all()
    assert refined[120:280, 180:280].all()


def test_processes_give_the_same(case: dict[str, np.ndarray]) -> None:
    told: list[float] = []
    with open_pool(2) as pool:
        found = refine(
            case["resampled"], bits(case, "mask_init"), pool=pool, watch=Watch(told.append)
        )
    assert np.array_equal(found, bits(case, "mask_refined_uint16"))
    assert told[-1] == 1
    assert told == sorted(told)


def test_work_ends_when_that_is_wished(case: dict[str, np.ndarray]) -> None:
    stop = threading.Event()

    def progress(share: float) -> None:
        if share > 0.3:
            stop.set()

    with pytest.raises(CancelledError):
        segment_lungs(case["resampled"], watch=Watch(progress, stop))


def test_implausible_volumes(split: np.ndarray) -> None:
    small = body((6, 60, 60))
    small[1:5, 20:40, 20:40] = 100
    found = segment_lungs(small, "parity")
    assert found.implausible
    assert any("plausible are 0.3 to 8 l" in note for note in found.notes)
    with pytest.raises(InputError, match=r"plausible are 0\.3 to 8 l; give a CT of a whole chest"):
        segment_lungs(small, "corrected")


def test_a_learned_mask_stands_in(case: dict[str, np.ndarray]) -> None:
    whole = bits(case, "mask_refined_uint16")
    stored = np.full(SHAPE, 1064, np.uint16)
    found = segment_lungs(stored, "corrected", learned=lambda: whole * 2)
    assert found.learned
    assert np.array_equal(found.mask, whole)
    assert any("0.00 l of lung; the mask is a learned one" in note for note in found.notes)
    with pytest.raises(InputError, match="same voxels"):
        segment_lungs(stored, "corrected", learned=lambda: whole[1:])
    with pytest.raises(InputError, match="no lung found"):
        segment_lungs(stored, "corrected", learned=lambda: whole * 0)
    with pytest.raises(InputError, match="no lung found"):
        segment_lungs(stored, "parity", learned=lambda: whole)
