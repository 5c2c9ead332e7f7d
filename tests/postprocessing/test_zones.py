"""Zones, fractions and scores: golden cases, analytic vectors, corrected behaviour, the step."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from hilum.catalog.cxr_severity import CORRECTED, PARITY, ZONE_STEP, Flag
from hilum.postprocessing.cxr_severity.lung_pair import LungRegion, bisection_cut, nearest_cut
from hilum.postprocessing.cxr_severity.lungs import clean
from hilum.postprocessing.cxr_severity.metrics import severity_score
from hilum.postprocessing.cxr_severity.zones import (
    crop_lung,
    zone_fractions,
    zone_lines,
    zones_step,
)
from hilum.preprocessing.phantoms.xray import chest_xray


def case_names() -> list[str]:
    random = [f"{i}_random" for i in range(16, 28)]
    return [
        "01_two_ellipses_clean", "02_two_ellipses_full", "03_rects_bottom_left",
        "04_rects_top_left", "05_rects_middle_right", "06_asymmetric", "07_one_lung_only",
        "08_three_components_small_first", "09_empty_lungs", "10_overlapping_bboxes",
        "11_merged_lungs", "12_flat_single_rows", "13_exact_third", "14_edge_touching",
        "15_same_centroid_x_stacked", *random,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cases(golden):
    stored = np.load(golden / "cxr" / "scoring_masks.npz")
    wanted = json.loads((golden / "cxr" / "scoring_expected.json").read_text())["cases"]
    assert stored["names"].tolist() == case_names()
    masks = (np.unpackbits(stored[k], axis=-1) for k in ("lungs", "disease"))
    return {n: (m, d, wanted[n]) for n, m, d in zip(stored["names"], *masks, strict=True)}


def rows_below(lung: LungRegion) -> tuple[int, int]:
    """Rows below the lower and below the upper cut."""
    middle, lower = lung.cuts
    return lung.height - lower, lung.height - middle


def fractions(mask, disease, mode="parity", **place) -> np.ndarray:
    return zone_fractions(zone_lines(mask, mode=mode, **place), disease, mode=mode)


@pytest.mark.parametrize("name", case_names())
def test_parity_with_the_published_scoring(cases, name) -> None:
    mask, disease, wanted = cases[name]
    left, right = zone_lines(mask)
    assert left is not None
    assert right is not None
    assert [left.zone_areas().sum(), right.zone_areas().sum()] == wanted["lung_area"]
    cuts = {"left": list(rows_below(left)), "right": list(rows_below(right))}
    assert cuts == wanted["cut_rows_from_bottom"]
    assert [*left.zone_areas(), *right.zone_areas()] == wanted["zone_area"]
    assert [*left.zone_counts(disease), *right.zone_counts(disease)] == wanted["zone_disease"]
    measured = fractions(mask, disease)
    assert measured.tolist() == wanted["fraction"]
    for threshold, score in wanted["score"].items():
        assert severity_score(measured, float(threshold)) == score


def rectangles() -> np.ndarray:
    mask = np.zeros((512, 512), np.uint8)
    mask[100:400, 40:140] = 1
    mask[100:400, 300:400] = 1
    return mask


def test_analytic_rectangles() -> None:
    mask, disease = rectangles(), np.zeros((512, 512), np.uint8)
    left, right = zone_lines(mask)
    assert left is not None
    assert right is not None
    assert rows_below(left) == rows_below(right) == (212, 313)
    # The picture's lines: the middle zone starts at row 199, the lower one at row 300.
    assert left.cuts == right.cuts == (199, 300)
    assert left.box == (40, 100, 140, 400)
    assert right.box == (300, 100, 400, 400)
    assert left.zone_areas().tolist() == [10_000, 10_100, 9_900]
    disease[200:300, 300:400] = 1
    np.testing.assert_allclose(fractions(mask, disease), [0, 0, 0, 0, 100 / 101, 0])
    disease[:] = 0
    disease[100:200, 40:140] = 1
    np.testing.assert_allclose(fractions(mask, disease), [0, 100 / 10_100, 1, 0, 0, 0])


def test_analytic_lungs_of_one_row() -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[100, 50:200] = 1
    mask[400, 300:480] = 1
    left, right = zone_lines(mask)
    assert left is not None
    assert right is not None
    assert rows_below(left) == (411, 411)
    assert rows_below(right) == (112, 112)
    assert fractions(mask, np.ones_like(mask)).tolist() == [0, 0, 1, 1, 0, 0]


def test_analytic_empty_and_full() -> None:
    empty = np.zeros((512, 512), np.uint8)
    left, right = zone_lines(empty)
    assert left is not None
    assert right is not None
    assert rows_below(left) == rows_below(right) == (512, 512)
    assert fractions(empty, empty).tolist() == [0] * 6
    lungs = empty.copy()
    cv2.ellipse(lungs, (130, 256), (90, 200), 0, 0, 360, 1, -1)
    cv2.ellipse(lungs, (380, 256), (90, 200), 0, 0, 360, 1, -1)
    assert fractions(lungs, np.ones_like(lungs)).tolist() == [1] * 6


def test_strict_threshold() -> None:
    share = [2700 / 9000, 0, 0, 0, 0, 0]
    assert severity_score(share, 0.30) == 0
    assert severity_score(share, 0.26) == 1


def test_cuts() -> None:
    below = np.array([0, 0, 4, 8, 8, 12, 12])
    assert nearest_cut(below, 1) == 2
    assert nearest_cut(below, 2) == 3
    for target in range(13):
        largest = int(np.flatnonzero(below <= target)[-1])
        assert bisection_cut(below, target) - largest in (0, 1)
    assert bisection_cut(np.zeros(513, int), 0) == 512


class TestCorrected:
    """One test for each row of spec cxr §15 that concerns the zones."""

    def test_two_largest_components(self, cases) -> None:  # row 3
        mask, _, wanted = cases["08_three_components_small_first"]
        left, right = zone_lines(mask, mode="corrected")
        assert left is not None
        assert right is not None
        areas = [left.zone_areas().sum(), right.zone_areas().sum()]
        assert min(areas) > 40_000 > 750 == wanted["lung_area"][1]

    def test_lungs_by_label_not_by_box(self, cases) -> None:  # row 4
        mask, _, wanted = cases["10_overlapping_bboxes"]
        left, right = zone_lines(mask, mode="corrected")
        assert left is not None
        assert right is not None
        assert left.zone_areas().sum() + right.zone_areas().sum() == mask.sum()
        assert sum(wanted["lung_area"]) > 1.5 * mask.sum()

    def test_merged_lungs_are_split(self, cases) -> None:  # row 5
        mask, disease, _ = cases["11_merged_lungs"]
        left, right = zone_lines(mask, mode="corrected")
        assert left is not None
        assert right is not None
        assert left.box[2] == right.box[0]
        assert 200 < left.box[2] < 312
        assert left.zone_areas().sum() + right.zone_areas().sum() == mask.sum()
        assert fractions(mask, disease, "corrected")[:3].tolist() == [0, 0, 0]
        assert (fractions(mask, disease, "corrected")[3:] > 0.8).all()

    @pytest.mark.parametrize(
        ("box", "present"), [((30, 40, 230, 470), 0), ((290, 40, 480, 470), 1)]
    )
    def test_single_lung_leaves_the_other_without_fractions(self, box, present) -> None:  # row 5
        mask = np.zeros((512, 512), np.uint8)
        cv2.ellipse(mask, (256, 256), (255, 255), 0, 0, 360, 1, -1)
        pair = zone_lines(mask, mode="corrected", box=box, side=512)
        assert pair[present] is not None
        assert pair[1 - present] is None
        shares = fractions(mask, mask, "corrected", box=box, side=512)
        assert (shares[3 * present : 3 * present + 3] == 1).all()
        assert np.isnan(shares[3 - 3 * present : 6 - 3 * present]).all()
        assert severity_score(shares, 0.3) == 3

    def test_wide_single_lung_without_a_valley_is_not_split(self) -> None:  # row 5
        mask = np.zeros((512, 512), np.uint8)
        cv2.ellipse(mask, (200, 256), (190, 250), 0, 0, 360, 1, -1)
        left, right = zone_lines(mask, mode="corrected")
        assert left is not None
        assert right is None

    def test_nearest_cut(self, cases) -> None:  # row 7
        mask, disease, _ = cases["05_rects_middle_right"]
        assert fractions(mask, disease).tolist()[4] < 1
        assert fractions(mask, disease, "corrected").tolist() == [0, 0, 0, 0, 1, 0]
        left, _ = zone_lines(mask, mode="corrected")
        assert left is not None
        assert left.zone_areas().tolist() == [10_000] * 3

    def test_empty_zones_have_no_fraction(self, cases) -> None:  # row 7
        mask, disease, _ = cases["12_flat_single_rows"]
        shares = fractions(mask, disease, "corrected")
        assert np.isnan(shares).tolist() == [True, False, True] * 2

    def test_equal_centroids_are_distinguished_by_their_boxes(self) -> None:  # row 10
        mask = np.zeros((512, 512), np.uint8)
        mask[50:150, 100:301] = 1
        mask[300:400, 150:251] = 1
        left, right = zone_lines(mask, mode="corrected")
        assert left is not None
        assert right is not None
        assert left.box[:2] == (100, 50)
        assert right.box[:2] == (150, 300)
        parity_left, _ = zone_lines(mask)
        assert parity_left is not None
        assert parity_left.box[:2] == (150, 300)

    def test_float_bilinear_mask(self) -> None:  # row 11
        lung = np.zeros((512, 512), np.uint8)
        cv2.ellipse(lung, (150, 250), (90, 170), 8, 0, 360, 1, -1)
        box = np.array([60, 80, 240, 420], np.int32)
        wanted = cv2.resize(lung[80:420, 60:240].astype(np.float32), (512, 512)) >= 0.5
        corrected, parity = (crop_lung(lung, box, mode=m) for m in ("corrected", "parity"))
        # OpenCV takes the positions in single precision: a value of exactly 0.5 may tip.
        assert np.count_nonzero(corrected != wanted) <= 5
        np.testing.assert_array_equal(parity, cv2.resize(lung[80:420, 60:240], (512, 512)))
        assert np.count_nonzero(corrected != parity) > 20


def step(lung, disease=None, *, mode=PARITY, p=0.9, threshold=0.3, box=None, ungated=None):
    """Run the step on a cleaned mask with disease everywhere unless told otherwise."""
    full = np.ones((512, 512), np.uint8)
    cleaned = clean(lung, mode="parity" if mode == PARITY else "corrected")
    return zones_step(
        lung=cleaned.lung,
        box=cleaned.box if box is None else box,
        disease=full if disease is None else disease,
        ungated=full if ungated is None else ungated,
        probability=np.array([p], np.float32),
        zone_threshold=np.array([threshold], np.float64),
        mode=np.array([mode], np.uint8),
    )


LUNGS = chest_xray(1, height=512, width=512).lung
EMPTY = np.zeros((512, 512), np.uint8)


@pytest.mark.parametrize("mode", [PARITY, CORRECTED])
@pytest.mark.parametrize("lung", [LUNGS, EMPTY], ids=["lungs", "empty"])
def test_step_fits_the_catalog(lung, mode) -> None:
    outputs = step(lung, mode=mode)
    assert list(outputs) == [t.name for t in ZONE_STEP.outputs]
    names = {"UINT8": "uint8", "INT32": "int32", "FP64": "float64", "BOOL": "bool"}
    for tensor in ZONE_STEP.outputs:
        assert outputs[tensor.name].dtype == names[tensor.dtype], tensor.name
        assert outputs[tensor.name].shape == tensor.resolved(ZONE_STEP.sizes), tensor.name


@pytest.mark.parametrize("mode", [PARITY, CORRECTED])
def test_step_scores_full_disease_with_six(mode) -> None:
    outputs = step(LUNGS, mode=mode)
    assert outputs["score"] == [6]
    assert outputs["fractions"].tolist() == [1] * 6
    assert outputs["flags"] == [0]
    assert outputs["lung_area"] == [clean(LUNGS).lung.sum()]
    assert not outputs["gated"][0]


def test_step_keeps_gated_and_ungated_apart() -> None:
    outputs = step(LUNGS, EMPTY, p=0.2)
    assert outputs["score"] == [0]
    assert outputs["gated"][0]
    assert outputs["fractions"].tolist() == [0] * 6
    assert outputs["fractions_ungated"].tolist() == [1] * 6


@pytest.mark.parametrize(("p", "gated"), [(0.5, True), (0.50001, False), (0.49999, True)])
def test_gate_rounds_half_to_even(p, gated) -> None:
    assert step(LUNGS, p=p)["gated"].tolist() == [gated]


def test_no_lung_is_zero_in_parity_and_no_score_when_corrected() -> None:  # spec cxr §15, row 6
    parity, corrected = step(EMPTY), step(EMPTY, mode=CORRECTED)
    assert parity["score"] == [0]
    assert parity["fractions"].tolist() == [0] * 6
    assert corrected["score"] == [-1]
    assert np.isnan(corrected["fractions"]).all()
    for outputs in (parity, corrected):
        assert Flag(int(outputs["flags"][0])) == Flag.NO_LUNG | Flag.LOW_LUNG_AREA


def only_left() -> np.ndarray:
    mask = LUNGS.copy()
    mask[:, 256:] = 0
    return mask


@pytest.mark.parametrize(("mode", "score"), [(PARITY, 6), (CORRECTED, 3)])
def test_one_lung_is_flagged(mode, score) -> None:
    outputs = step(only_left(), mode=mode)
    assert Flag.ONE_COMPONENT in Flag(int(outputs["flags"][0]))
    assert outputs["score"] == [score]
    assert np.isnan(outputs["fractions"][3:]).all() == (mode == CORRECTED)


@pytest.mark.parametrize("mode", [PARITY, CORRECTED])
def test_other_flags(mode) -> None:
    third = LUNGS.copy()
    third[415:505, 210:300] = 1
    assert Flag.EXTRA_COMPONENTS in Flag(int(step(third, mode=mode)["flags"][0]))
    border = LUNGS.copy()
    border[200:300, :200] = 1
    flags = Flag(int(step(border, mode=mode)["flags"][0]))
    assert Flag.LUNG_TOUCHES_BORDER in flags
    assert Flag.LOW_LUNG_AREA not in flags
    small = EMPTY.copy()
    small[200:290, 100:190] = 1
    flags = Flag(int(step(small, mode=mode)["flags"][0]))
    assert flags == Flag.LOW_LUNG_AREA | Flag.ONE_COMPONENT


@pytest.mark.parametrize(
    "name", ["gray_640x760", "gray_900x512_mild", "nolung_300x300", "color_500x400"]
)
def test_golden_crop_and_score(golden, name) -> None:
    folder = golden / "cxr" / "e2e"
    wanted = json.loads((folder / "expected.json").read_text())["cases"]
    masks = np.load(folder / "masks.npz")
    keys = [key for key in wanted if key.startswith(name)]
    assert keys
    for key in keys:
        lung, lung512, disease = (
            np.unpackbits(masks[f"{key.replace('|', '__')}__{kind}"], axis=-1)
            for kind in ("lungfilt", "lung512", "dis512")
        )
        outputs = step(lung, disease, threshold=0.31, box=np.array(wanted[key]["union_box"]))
        assert lung.sum() == wanted[key]["lung_px_filtered"]
        np.testing.assert_array_equal(outputs["lung512"], lung512)
        assert outputs["fractions"].tolist() == wanted[key]["raw"]
        assert outputs["score"] == [wanted[key]["score_at_0p31"]]
