"""Boxes, valid region and quadrants of CT-Angel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hilum.catalog.ct_angel import THRESHOLD
from hilum.postprocessing.ct_angel.boxes import (
    BoxRules,
    assess_slice,
    find_lesions,
    parity_lesions,
    quadrants_of,
    scale_rectangle,
    valid_rectangle,
)
from hilum.preprocessing.ct_angel.square import fit_square


def blocks() -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[5:10, 5:10] = mask[5:10, 20:26] = mask[30:50, 30:50] = 1
    mask[60, 60] = mask[61, 61] = 1
    return mask


def test_threshold_is_128_of_255() -> None:
    probabilities = np.array([0.5, 0.5019, 0.50196075, 128 / 255, 0.502])
    assert (probabilities >= THRESHOLD).tolist() == [False, False, False, True, True]


def test_boxes_above_25_pixels_largest_first() -> None:
    assert [found.box for found in find_lesions(blocks())] == [(30, 30, 20, 20), (20, 5, 6, 5)]


def test_the_size_rule_can_measure_the_mask() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[range(2, 8), range(3, 9)] = 1
    assert [(f.box, f.area, f.box_area) for f in find_lesions(mask)] == [((3, 2, 6, 6), 6, 36)]
    assert find_lesions(mask, size_mode="mask") == ()


def test_equal_areas_are_ordered_by_place_and_holes_make_no_boxes() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[40:46, 2:8] = mask[4:10, 40:46] = mask[4:10, 20:26] = 1
    mask[20:30, 40:50] = 1
    mask[23:27, 43:47] = 0
    boxes = [found.box for found in find_lesions(mask)]
    assert boxes == [(40, 20, 10, 10), (20, 4, 6, 6), (40, 4, 6, 6), (2, 40, 6, 6)]


def test_probabilities_are_taken_over_the_lesion_alone() -> None:
    probability = np.full((64, 64), 0.1, np.float16)
    probability[30:50, 30:50] = 0.75
    probability[40, 40] = 1.0
    lesion = find_lesions(blocks(), probability)[0]
    assert lesion.mean_probability == pytest.approx(0.75 + 0.25 / 400)
    assert lesion.max_probability == 1.0
    assert lesion.centroid == (39.5, 39.5)
    assert np.isnan(find_lesions(blocks())[0].mean_probability)


def test_parity_takes_the_three_most_ragged_outlines() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[2:22, 2:22] = 1  # 4 vertices
    for i in range(10):  # ragged, small
        mask[40 + i % 2 : 46 - i % 3, 10 + i] = 1
    mask[30:33, 40:43] = 1
    mask[31, 43] = 1
    mask[50:52, 50:52] = 1
    boxes = [found.box for found in parity_lesions(mask)]
    assert len(boxes) == 3
    assert boxes[0] == (10, 40, 10, 6)
    finding = assess_slice(mask, rules=BoxRules(parity=True))
    assert [found.box for found in finding.lesions] == boxes


def test_valid_region_is_the_largest_component_of_one_percent() -> None:
    valid = np.zeros((100, 100), np.uint8)
    valid[10:19, 10:21] = 1
    assert valid_rectangle(valid) is None
    valid[19, 20] = 1
    assert valid_rectangle(valid) == (10, 10, 11, 10)
    valid[50:90, 40:60] = 1
    assert valid_rectangle(valid) == (40, 50, 20, 40)
    assert valid_rectangle(np.zeros((9, 9), np.uint8)) is None


def test_lesions_outside_the_valid_region_do_not_count() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:50, 34:44] = 1  # centroid at x 38.5; 4 of 10 columns inside
    mask[60:70, 70:80] = 1
    valid = np.zeros((100, 100), np.uint8)
    valid[20:90, 40:90] = 1
    finding = assess_slice(mask, valid=valid)
    assert [found.box for found in finding.lesions] == [(70, 60, 10, 10)]
    assert (finding.dropped, finding.valid) == (1, (40, 20, 50, 70))
    mask[40:50, 44:46] = 1  # half of it inside, centroid at 39.5
    for mode, count in (("centroid", 1), ("overlap", 2), ("off", 2)):
        finding = assess_slice(mask, valid=valid, rules=BoxRules(valid_mode=mode))
        assert len(finding.lesions) == count, mode


def test_without_a_valid_region_nothing_counts() -> None:
    finding = assess_slice(blocks(), valid=np.zeros((64, 64), np.uint8))
    assert finding.valid_missing and not finding.positive
    assert finding.dropped == 2
    assert assess_slice(blocks()).positive


def test_quadrants_split_at_the_valid_regions_centre() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[20:30, 45:55] = 1
    assert assess_slice(mask).quadrants == {0, 1}
    assert assess_slice(mask, rules=BoxRules(quadrant_mode="centroid")).quadrants == {0}
    valid = np.zeros((100, 100), np.uint8)
    valid[10:31, 45:95] = 1
    assert assess_slice(mask, valid=valid).quadrants == {0, 2}
    assert quadrants_of(find_lesions(mask)[0], (0, 0)) == (3,)
    assert quadrants_of(find_lesions(mask)[0], (200, 200)) == (0,)


def test_a_lesion_flags_only_quadrants_that_hold_its_pixels() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:13] = mask[27:30, 10:30] = 1  # an L around the centre
    assert assess_slice(mask).quadrants == {0, 2, 3}


def test_boxes_scale_outwards_and_stay_inside_the_slice() -> None:
    assert scale_rectangle((124, 247, 123, 128), 512, (512, 512)) == (124, 247, 123, 128)
    assert scale_rectangle((1, 1, 2, 2), 512, (768, 768)) == (1, 1, 4, 4)
    assert scale_rectangle((0, 0, 512, 512), 512, (616, 568)) == (0, 0, 568, 616)
    assert scale_rectangle((500, 10, 12, 5), 512, (1024, 512))[2] == 0


@pytest.mark.parametrize("shape", [(512, 512), (300, 400), (700, 420)])
def test_boxes_return_to_where_they_were_on_the_slice(shape: tuple[int, int]) -> None:
    slice_ = np.zeros(shape, np.uint8)
    slice_[100:180, 60:160] = 200
    (lesion,) = find_lesions((fit_square(slice_, 512) >= 100).astype(np.uint8))
    x, y, w, h = scale_rectangle(lesion.box, 512, shape)
    assert np.abs(np.array([x, y, x + w, y + h]) - [60, 100, 160, 180]).max() <= 2


def test_published_label(shared: Path) -> None:
    path = shared / "data/ct-angel-sample/label_DJ20200112A0189_243.jpg"
    label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    finding = assess_slice((label > 127).astype(np.uint8))
    (lesion,) = finding.lesions
    assert lesion.area == 11772
    assert lesion.box == (124, 247, 123, 128)
    assert lesion.centroid == pytest.approx((185.81, 313.11), abs=0.005)
    assert finding.quadrants == {0, 2}
    (parity,) = parity_lesions((label > 127).astype(np.uint8))
    assert parity.box == lesion.box
