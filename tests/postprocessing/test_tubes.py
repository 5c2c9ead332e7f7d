"""Tube extension: golden file, analytic areas, the definitions pixel by pixel, borders."""

from __future__ import annotations

import dlpe_definitions as definitions
import numpy as np
import pytest
from scipy import ndimage

from hilum.benchmarks import dlpe_direct as direct
from hilum.catalog.dlpe import RING_CAPS, RING_RATIOS
from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.tubes import Growth, extend, extend_each, visit

RING = [Growth(ratio, cap) for ratio, cap in zip(RING_RATIOS, RING_CAPS, strict=True)]


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "dlpe" / "05_extend_tubes.npz")


@pytest.mark.parametrize(
    ("name", "ratio", "cap", "mode"),
    [
        ("up_1p1_50", 1.1, 50, "parity"),
        ("up_1p2_55", 1.1 + 0.1, 55, "parity"),
        ("up_1p25_50", 1.25, 50, "parity"),
        ("up_1p6_12", 1.6, 12, "parity"),
        ("corr_1p1_50", 1.1, 50, "corrected"),
        ("corr_1p2_55", 1.2, 55, "corrected"),
    ],
)
def test_golden_planes(stored, name, ratio, cap, mode) -> None:
    found = extend(stored["mask"], ratio, cap, mode)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, stored[name])


def test_fragments_of_the_golden_planes(stored) -> None:
    for z in range(12):
        image = {(int(y), int(x)) for x, y in np.argwhere(stored["mask"][:, :, z])}
        assert len(list(direct.parts(image))) == stored["up_region_count"][z]
        fragments = list(direct.parts(direct.inner_rim(image)))
        assert len(fragments) == stored["up_rim_fragment_count"][z]
        wanted = stored["up_fragment_diameter"][z]
        found = [direct.three_point(f) for f in fragments[:40]]
        np.testing.assert_allclose(found, wanted[: len(found)], atol=1e-5)


def test_pixels_are_visited_right_then_up_then_down() -> None:
    # At (2, 2) all ways are open; what is pushed last (right, then up) is visited first.
    order = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (1, 2), (0, 2), (3, 2), (4, 2)]
    assert next(direct.parts(order)) == order
    width = 7
    flat = bytearray(7 * width)
    for row, column in order:
        flat[(row + 1) * width + column + 1] = 1
    visited = visit(flat, width + 1, width)
    assert [(p // width - 1, p % width - 1) for p in visited] == order
    assert not any(flat)


def test_left_comes_before_right() -> None:
    # The same from above: left was pushed last.
    order = [(0, 1), (1, 1), (1, 0), (1, 2), (2, 1)]
    assert next(direct.parts(order)) == order
    flat = bytearray(25)
    for row, column in order:
        flat[(row + 1) * 5 + column + 1] = 1
    assert visit(flat, 5 + 2, 5) == [(row + 1) * 5 + column + 1 for row, column in order]


def test_rounds_are_those_of_the_closed_formulas() -> None:
    halves = [d / 20 + 0.5 for d in range(51)], [d / 10 + 0.5 for d in range(56)]
    for growth, wanted in zip(RING, halves, strict=True):
        for mode in ("parity", "corrected"):
            assert growth.rounds(mode).tolist() == [int(w) for w in wanted]


def plane(shape, *boxes, value=1) -> np.ndarray:
    mask = np.zeros((*shape, 1), np.uint8)
    for left, top, width, height in boxes:
        mask[left : left + width, top : top + height] = value
    return mask


def disk(radius: int) -> np.ndarray:
    x, y = np.indices((64, 64)) - 32
    return (x**2 + y**2 <= radius**2).astype(np.uint8)[:, :, None]


def annulus() -> np.ndarray:
    mask = plane((64, 64), (18, 18, 28, 28))
    mask[24:40, 24:40] = 0
    return mask


@pytest.mark.parametrize(
    ("mask", "parity", "corrected"),
    [
        (plane((40, 40), (16, 16, 8, 8)), (96, 96), (96, 96)),
        (plane((40, 40), (10, 10, 20, 20)), (480, 652), (480, 652)),
        (plane((80, 80), (15, 15, 50, 50)), (3112, 3760), (3112, 3760)),
        (plane((20, 60), (10, 12, 1, 35)), (183, 263), (183, 263)),
        (plane((40, 40), (10, 10, 2, 15)), (64, 64), (64, 64)),
        (disk(12), (441, 441), (509, 581)),
        (annulus(), (756, 1000), (868, 1192)),
    ],
    ids=["square 8", "square 20", "square 50", "line 35", "bar 2 × 15", "disk 12", "annulus"],
)
def test_areas(mask, parity, corrected) -> None:
    assert tuple(int(e.sum()) for e in extend_each(mask, RING)) == parity
    assert tuple(int(e.sum()) for e in extend_each(mask, RING, "corrected")) == corrected


@pytest.mark.parametrize("seed", range(60))
def test_random_masks_grow_as_defined(seed) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(24, 48, 2))
    noise = ndimage.gaussian_filter(rng.standard_normal((*shape, 2)), (*rng.uniform(0.8, 3, 2), 0))
    mask = (noise > np.quantile(noise, rng.uniform(0.5, 0.95))).astype(np.uint8)
    before, grew = mask.copy(), 0
    for growth in (*RING, Growth(1.6, 12)):
        found = extend(mask, growth.ratio, growth.cap)
        wanted = [direct.extend_plane(mask[:, :, z], growth.ratio, growth.cap) for z in (0, 1)]
        np.testing.assert_array_equal(found, np.stack(wanted, -1))
        grew += found.sum() - mask.sum()
    assert grew > 0
    for percent, growth in zip((10, 20), RING, strict=True):
        found = extend(mask, growth.ratio, growth.cap, "corrected")
        wanted = [
            definitions.extend_plane_corrected(mask[:, :, z], percent, growth.cap) for z in (0, 1)
        ]
        np.testing.assert_array_equal(found, np.stack(wanted, -1))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_slices_are_independent_of_each_other_and_of_the_memory_order(stored, mode) -> None:
    mask = np.concatenate([stored["mask"]] * 12, axis=2)
    wanted = np.concatenate([extend(stored["mask"], 1.25, 50, mode)] * 12, axis=2)
    np.testing.assert_array_equal(extend(mask, 1.25, 50, mode), wanted)
    np.testing.assert_array_equal(extend(np.asfortranarray(mask), 1.25, 50, mode), wanted)


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_growth_over_the_border_is_lost(mode) -> None:
    mask = plane((30, 40), (0, 0, 30, 3))
    grown = extend(mask, 1.1, 50, mode)
    np.testing.assert_array_equal(grown, plane((30, 40), (0, 0, 30, 4)))


def test_nothing_grows_from_nothing() -> None:
    assert not any(e.any() for e in extend_each(np.zeros((16, 16, 16), np.uint8), RING))


def test_tubes_do_not_shrink() -> None:
    with pytest.raises(InputError, match="ratio of 1 or more"):
        extend(disk(5), 0.9, 50)
