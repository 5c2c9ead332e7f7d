"""Rims, components and judgements of regions: golden files, and what they do with nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from published_regions import (
    like_disk,
    overlap,
    region_discovery,
    soft_binary,
)
from scipy import ndimage

from hilum.postprocessing.dlpe.chest import cut_chest
from hilum.postprocessing.dlpe.components import ranked
from hilum.postprocessing.dlpe.distances import (
    airway_mm,
    distance_mm,
    nearest,
    pleura_mm,
    vessel_mm,
)
from hilum.postprocessing.dlpe.lesion_table import axial_diameter
from hilum.postprocessing.dlpe.lesions import core
from hilum.postprocessing.dlpe.rims import inner_rim, outer_rim
from hilum.postprocessing.dlpe.sides import score

MM = (334 / 512, 334 / 512, 1.0)


def load(golden, name):
    return np.load(golden / "dlpe_quant" / name)


@pytest.mark.parametrize("full", [False, True], ids=["strict", "loose"])
@pytest.mark.parametrize(("side", "rim"), [("inner", inner_rim), ("outer", outer_rim)])
def test_golden_rims(golden, full, side, rim) -> None:
    stored = load(golden, "01_surface.npz")
    mask, name = stored["mask"] > 0, f"{'loose' if full else 'strict'}_{side}"
    np.testing.assert_array_equal(rim(mask, full=full), stored[f"surf3d_{name}"] > 0)
    np.testing.assert_array_equal(rim(mask, full=full, axes=(1, 2)), stored[f"rim2d_{name}"] > 0)


def test_golden_soft_masks(golden) -> None:
    stored = load(golden, "01_surface.npz")
    for percent in (25, 40):
        found = soft_binary(stored["prob"], percent / 100)
        np.testing.assert_array_equal(found, stored[f"soft_{percent}"] > 0)


def test_golden_components(golden) -> None:
    stored = load(golden, "02_components.npz")
    mask, plane = stored["mask"] > 0, stored["mask2d"] > 0
    np.testing.assert_array_equal(ranked(mask), stored["rank_26"])
    np.testing.assert_array_equal(ranked(mask, corners=False), stored["rank_6"])
    np.testing.assert_array_equal(ranked(plane, corners=False), stored["rank2d_4"])
    np.testing.assert_array_equal(ranked(plane), stored["rank2d_8"])
    shapes = [like_disk(shape > 0) for shape in stored["conn_shapes"]]
    assert shapes == [bool(one) for one in stored["conn_like_disk"]]


def test_golden_scores_of_regions(golden) -> None:
    stored = load(golden, "02_components.npz")
    found, truth = stored["disc_pred"] > 0, stored["disc_gt"] > 0
    assert region_discovery(found, truth) == pytest.approx(float(stored["disc_dice"]), abs=1e-6)
    assert overlap(found, truth) == pytest.approx(stored["dice_prec_rec"].tolist(), abs=1e-6)
    beta = float(stored["f_beta_1_5"])
    assert overlap(found, truth, 1.5)[0] == pytest.approx(beta, abs=1e-6)
    nothing = np.zeros_like(found)
    assert region_discovery(nothing, nothing) is None
    assert overlap(nothing, nothing) == (None, None, None)
    assert not like_disk(nothing[:, :, 0])


def test_golden_geometry(golden) -> None:
    stored = load(golden, "10_geometry.npz")
    shape = stored["shape"]
    masks = {
        name: np.unpackbits(stored[name], count=shape.prod()).reshape(shape)
        for name in ("lung", "airway", "vessel", "border6", "core26")
    }
    given = {name: masks[name] for name in ("lung", "airway", "vessel")}
    chest = cut_chest(np.zeros(shape, np.float32), given, MM, -850.0)
    places = tuple(stored["index"].astype(int).T)
    measures = {"pleura_mm": pleura_mm, "vessel_mm": vessel_mm, "airway_mm": airway_mm}
    for name, measure in measures.items():
        found = chest.crop.uncut(measure(chest))[places]
        np.testing.assert_allclose(found, stored[name], atol=1e-5)
    border = chest.crop.uncut(inner_rim(chest.lung))
    np.testing.assert_array_equal(border, masks["border6"] > 0)
    np.testing.assert_array_equal(chest.crop.uncut(core(chest)), masks["core26"] > 0)


@pytest.mark.parametrize("case", "abc")
def test_golden_distances_of_whole_lungs(golden, case) -> None:
    stored = load(golden, f"07_scan_{case}.npz")
    masks = {name: stored[name] for name in ("lung", "airway", "vessel")}
    mm = tuple(stored["voxel_mm"].tolist())
    chest = cut_chest(stored["hu"].astype(np.float32), masks, mm, -850.0)
    inside = masks["lung"] > 0
    for name, measure in (("pleura_mm", pleura_mm), ("vessel_mm", vessel_mm)):
        found = chest.crop.uncut(measure(chest))[inside]
        np.testing.assert_allclose(found, stored[name], atol=1e-4)


@pytest.mark.parametrize("mm", [(0.7, 0.7, 1.3), (0.7, 0.8, 1.3), (1.0, 1.0, 0.2)])
def test_distances_and_nearest_places_are_those_of_scipy(mm) -> None:
    rng = np.random.default_rng(5)
    targets = rng.random((30, 26, 40)) < 0.002
    targets[:, :, 10:30] = False
    within = rng.random(targets.shape) < 0.9
    expected = ndimage.distance_transform_edt(~targets, sampling=mm)
    found = distance_mm(targets, mm, within)
    np.testing.assert_allclose(found, np.where(within, expected, 0), rtol=1e-5)
    assert found.dtype == np.float32
    places = np.unravel_index(nearest(targets, mm, within), targets.shape)
    assert targets[places][within].all()
    ways = [(a - b) * m for a, b, m in zip(places, np.indices(targets.shape), mm, strict=True)]
    np.testing.assert_allclose(np.sqrt(np.square(ways).sum(axis=0))[within], found[within], 1e-5)
    nothing = distance_mm(np.zeros_like(targets), mm, within)
    assert np.isinf(nothing[within]).all()


def test_analytic_ball_in_a_box_and_scores(golden) -> None:
    analytic = json.loads((golden / "dlpe_quant" / "13_analytic.json").read_text())
    box = analytic["ball_in_box"]
    lung = np.zeros(box["shape"], np.uint8)
    lung[tuple(slice(*span) for span in box["lung_box"])] = 1
    grid = np.indices(box["shape"]) - np.reshape(box["center"], (3, 1, 1, 1))
    ball = (np.square(grid * np.reshape(MM, (3, 1, 1, 1))).sum(axis=0)) <= box["radius_mm"] ** 2
    assert ball.sum() == box["voxels"]
    chest = cut_chest(np.zeros(lung.shape, np.float32), {"lung": lung}, MM, -850.0)
    distances = chest.crop.uncut(pleura_mm(chest))[ball]
    for name in ("min", "mean", "max"):
        value = getattr(distances.astype(float), name)()
        assert value == pytest.approx(box[f"pleura_{name}_mm"], rel=1e-6)
    assert axial_diameter(np.argwhere(ball).T, MM) == pytest.approx(box["axial_diameter_mm"])
    for share, expected in analytic["score"]:
        assert score(share) == expected
