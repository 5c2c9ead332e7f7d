"""Branching maps: golden files of both modes, analytic tubes, empty and too small vessels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hilum.postprocessing.dlpe.branching import branching, levels, radius_mm
from hilum.postprocessing.dlpe.branching_published import (
    published_branching,
    published_levels,
    published_radius,
    published_surface,
    scatter,
    upsampled,
)
from hilum.postprocessing.dlpe.chest import cut_chest

MM = (334 / 512, 334 / 512, 1.0)


def unpacked(stored, name):
    shape = stored["shape"]
    return np.unpackbits(stored[name], count=shape.prod()).reshape(shape).astype(bool)


@pytest.fixture(scope="module")
def published(golden):
    return np.load(golden / "dlpe_quant" / "03_branching_parity.npz")


@pytest.fixture(scope="module")
def analytic(golden):
    return json.loads((golden / "dlpe_quant" / "13_analytic.json").read_text())


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_published_map(published, case) -> None:
    prefix = "" if case == "a" else "b_"
    lung, vessel = (packed_mask(published, prefix + name) for name in ("lung", "vessel"))
    radius = published_radius(vessel)
    np.testing.assert_array_equal(radius[vessel], published[f"{case}_radius"])
    surface = published_surface(vessel)
    np.testing.assert_array_equal(surface, packed_mask(published, f"{case}_surface"))
    scattered = scatter(lung, radius, surface, int(published[f"{case}_seed"]))
    places = tuple(published[f"{case}_scatter_index"].astype(int).T)
    np.testing.assert_array_equal(scattered[places], published[f"{case}_scatter"])
    filled = upsampled(scattered)
    expected = published[f"{case}_upsampled_in_lung"]
    np.testing.assert_allclose((filled * lung)[lung], expected, atol=1e-5)
    found = published_levels(filled, lung, vessel)
    np.testing.assert_allclose(found.level[lung], published[f"{case}_level_in_lung"], atol=1e-4)
    for name in ("max_ln_r", "alpha", "a0"):
        assert getattr(found, name) == pytest.approx(float(published[f"{case}_{name}"]), rel=1e-5)
    assert found.unresolved == int(published[f"{case}_unresolved"])


def packed_mask(stored, name):
    """A mask of the file, packed or not."""
    array, shape = stored[name], stored["shape"]
    if array.size == shape.prod():
        return array.reshape(shape).astype(bool)
    return unpacked(stored, name)


def test_the_corrected_map(golden) -> None:
    stored = np.load(golden / "dlpe_quant" / "08_branching_corrected.npz")
    scan = np.load(golden / "dlpe_quant" / "07_scan_a.npz")
    masks = {name: scan[name] for name in ("lung", "airway", "vessel")}
    mm = tuple(scan["voxel_mm"].tolist())
    radius = radius_mm(masks["vessel"], mm)
    np.testing.assert_allclose(radius[masks["vessel"] == 1], stored["radius_mm"], rtol=1e-6)
    chest = cut_chest(scan["hu"].astype(np.float32), masks, mm, -860.0, scale=1.0, offset=0.0)
    found = branching(chest, masks["vessel"])
    assert found.r1_mm == pytest.approx(float(stored["r1_mm"]), rel=1e-6)
    assert found.r10_mm == pytest.approx(float(stored["r10_mm"]), rel=1e-6)
    level = found.level[chest.lung]
    assert (level >= stored["level_lo"] - 1e-6).all()
    assert (level <= stored["level_hi"] + 1e-6).all()


def tubes(boxes, shape=(70, 72, 66)):
    lung, vessel = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    for x, y, z in boxes:
        vessel[slice(*x), slice(*y), slice(*z)] = 1
    masks = {"lung": lung, "vessel": vessel}
    return cut_chest(np.zeros(shape, np.float32), masks, MM, -850.0), vessel


def test_radii_and_levels_of_square_tubes(analytic) -> None:
    one = analytic["square_tube"]
    _, vessel = tubes([one["box"]])
    assert radius_mm(vessel, MM)[vessel == 1] == pytest.approx(one["radius_mm"])
    two = analytic["two_tubes"]
    chest, vessel = tubes(two["boxes"])
    radii = np.unique(radius_mm(vessel, MM)[vessel == 1])
    np.testing.assert_allclose(radii, two["radii_mm"], rtol=1e-6)
    found = branching(chest, vessel)
    level = chest.crop.uncut(found.level)
    for place in two["level_at"]:
        assert level[tuple(place["voxel"])] == pytest.approx(place["level"], abs=1e-5)
    for key, value in two["info"].items():
        assert getattr(found, key) == (value if key == "flag" else pytest.approx(value, rel=1e-6))


def test_levels_of_radii(analytic) -> None:
    vector = analytic["levels"]
    radii, expected = np.array(vector["levels"]).T
    np.testing.assert_allclose(levels(radii, vector["r1_mm"], vector["r10_mm"]), expected)


def test_the_level_that_the_published_map_gives_without_a_vessel(analytic) -> None:
    lung, none = np.ones((2, 1, 1), bool), np.zeros((2, 1, 1), bool)
    for largest, level in analytic["unresolved_level_parity"]:
        filled = np.array([0, np.exp(largest)], np.float32).reshape(2, 1, 1)
        assert published_levels(filled, lung, none).level[0, 0, 0] == pytest.approx(level, abs=1e-5)


def test_without_vessels_and_with_too_small_ones_there_is_no_map() -> None:
    chest, vessel = tubes([])
    assert (branching(chest, vessel).flag, branching(chest, vessel).level) == ("no_vessel", None)
    chest, vessel = tubes([((30, 31), (30, 31), (30, 31))])
    found = branching(chest, vessel)
    assert (found.flag, found.level) == ("vessels_too_small", None)
    assert published_branching(np.ones((9, 9, 9)), np.zeros((9, 9, 9))).level.max() > 0
    assert not published_branching(np.zeros((9, 9, 9)), np.zeros((9, 9, 9))).level.any()


def test_the_widest_radius_can_be_that_of_another_scan() -> None:
    chest, vessel = tubes([((20, 24), (20, 24), (10, 50))])
    own, wider = branching(chest, vessel), branching(chest, vessel, r1_mm=6.0)
    assert (own.level[chest.lung] == 1).all()
    assert wider.r1_mm == 6.0
    assert wider.level[chest.lung].min() > 4
