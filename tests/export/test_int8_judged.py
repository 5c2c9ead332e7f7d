"""Which networks may be INT8, and by which masks they are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.catalog import SYSTEMS, Network
from hilum.catalog import dlpe as catalog
from hilum.export.systems.dlpe.int8 import judge, masks, seen, unfit
from hilum.postprocessing.dlpe import ranks

SYSTEM = SYSTEMS["dlpe"]


def test_trees_are_judged_by_rank_and_others_by_the_threshold() -> None:
    rng = np.random.default_rng(0)
    p = rng.permutation(10_000).reshape(1, 100, 100).astype(np.float32) / 10_000
    one = {"probability": p}
    assert np.count_nonzero(masks("lung", one, {})["lung"]) == np.count_nonzero(p > 2 / 3)
    assert np.count_nonzero(masks("heart", one, {})["heart"]) == np.count_nonzero(p > 2.3 / 3)
    for task in ("visible", "follow_up", "in_patient", "lesion"):
        np.testing.assert_array_equal(masks(task, one, {})["lesion"], p > 2 / 3)
    lung = {"lung": (np.arange(10_000) < 1010).reshape(p.shape)}
    recall, precision = masks("vessel1", one, lung).values()
    assert (np.count_nonzero(recall), np.count_nonzero(precision)) == (109, 43)
    assert p[recall].min() > p[~recall].max()
    second = {task: masks(task, one, lung) for task in ("airway2", "vessel2")}
    counts = {task: [np.count_nonzero(m) for m in found.values()] for task, found in second.items()}
    assert counts == {"airway2": [20], "vessel2": [101]}


def test_roots_are_judged_as_the_pipeline_makes_them() -> None:
    """Spec dlpe §4.4; the pipeline ranks in the box of the lungs, which here is all there is."""
    rng = np.random.default_rng(3)
    shape = (12, 20, 20)
    artery, vein = (rng.random(shape).astype(np.float32) for _ in range(2))
    vein[artery > 0.97] = artery[artery > 0.97]  # some voxels are in both
    lung, heart = (rng.random(shape) < share for share in (0.3, 0.4))
    lung[-1, -1, -1] = lung[0, 0, 0] = True
    found = masks("root", {"artery": artery, "vein": vein}, {"lung": lung, "heart": heart})
    padded = [np.pad(a, ((0, 1),) * 3) for a in (lung.astype(np.uint8), heart, artery, vein)]
    padded[0][-1, -1, -1] = 1  # the last plane of the box is not ranked
    wanted = ranks.root_masks(*padded, limits=(0, 500))
    for mask, own in zip(wanted, found.values(), strict=True):
        np.testing.assert_array_equal(mask[:-1, :-1, :-1], own)
        assert own.any() and not (own & lung).any()
    best = [np.count_nonzero(m) for m in found.values()]
    assert best[0] < int(np.count_nonzero(heart) * catalog.ARTERY_RATIO)


def test_the_lungs_need_a_higher_dice() -> None:
    full = np.zeros((1, 100, 100), np.float32)
    full[0, :50] = 0.9  # 5000 voxels
    reduced = full.copy()
    reduced[0, 0, :70] = 0.1
    wanted = 2 * 4930 / (5000 + 4930)  # 0.99295
    lung = judged("lung_x", full, reduced)
    lesion = judged("visible_x", full, reduced)
    assert lung["dice"] == {"lung": pytest.approx(wanted)}
    assert not lung["accepted"] and "0.9930, less than 0.995" in lung["reason"]
    assert lesion["accepted"]
    assert lesion["largest_difference"] == pytest.approx(0.8)
    assert lesion["mean_difference"] == pytest.approx(0.8 * 70 / 10_000, rel=1e-4)


def test_what_shows_nothing_decides_nothing() -> None:
    empty = np.full((1, 32, 32), 0.2, np.float32)
    found = judged("lung_x", empty, empty)
    assert not found["accepted"] and "show no lung" in found["reason"]
    nothing = np.zeros(empty.shape, bool)
    for name in ("airway1_x", "vessel2_x"):
        assert "show no lung" in judged(name, empty, empty, lung=nothing)["reason"]
    found = judged("airway2_x", empty, empty, lung=~nothing)  # all alike: none is above its rank
    assert not found["accepted"] and "show no airway" in found["reason"]
    rng = np.random.default_rng(0)
    roots = {name: rng.random(empty.shape, np.float32) for name in ("artery", "vein")}
    organs = {"lung": nothing, "heart": ~nothing}
    assert judge(SYSTEM.network("root_x"), roots, roots, organs)["accepted"]
    found = judge(SYSTEM.network("root_x"), roots, roots, {**organs, "heart": nothing})
    assert not found["accepted"] and "show no heart" in found["reason"]


def judged(
    name: str, full: np.ndarray, reduced: np.ndarray, **organs: np.ndarray
) -> dict[str, Any]:
    """A network with one output."""
    both = {"probability": full}, {"probability": reduced}
    return judge(SYSTEM.network(name), *both, organs)


def test_networks_can_be_calibrated_whose_inputs_are_found() -> None:
    def of(network: Network) -> str:
        return network.name.rpartition("_")[0]

    def fit(*found: str) -> set[str]:
        return {of(n) for n in SYSTEM.networks if not unfit(n, {"ct", *found})}

    alone = {"lung", "airway1", "vessel1", "visible", "heart"}
    assert fit() == alone
    channels = [f"{t}_high_{k}" for t in ("airway", "vessel") for k in ("recall", "precision")]
    first = alone | {"airway2", "vessel2"}
    assert fit("lung", *channels) == first
    more = first | {"follow_up", "in_patient", "lesion"}
    assert fit("lung", *channels, "outer_vessel", "enhanced") == more
    assert fit("lung", *channels, "outer_vessel", "enhanced", "heart") == set(catalog.TASKS)
    root = SYSTEM.network("root_x")
    assert "--calibrate-with" in unfit(root, {"ct"})
    assert "airway2 and vessel2" in unfit(root, {"ct", "lung"})
    assert "networks heart" in unfit(root, {"ct", "lung", "outer_vessel"})


def test_inputs_are_cut_from_the_volumes_that_the_pipeline_sends() -> None:
    slab = {"lung_z": "ct", "visible_x": "ct", "root_y": "ct", "lesion_z": "enhanced"}
    for name, volume in slab.items():
        assert seen(SYSTEM.network(name))["slab"] == volume
    assert seen(SYSTEM.network("vessel2_x")) == {
        "slab": "ct", "high_recall": "vessel_high_recall",
        "high_precision": "vessel_high_precision",
    }  # fmt: skip
    assert seen(SYSTEM.network("root_x")) == {
        "slab": "ct", "lung": "lung", "outer_vessel": "outer_vessel"
    }  # fmt: skip


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    full = np.full((1, 32, 32), 0.9, np.float32)
    assert judged("lung_x", full, full)["accepted"]
    assert not judged("lung_x", full, np.full_like(full, np.nan))["accepted"]
