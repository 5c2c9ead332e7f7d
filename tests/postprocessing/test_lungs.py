"""Cleaning of lung masks and the crop box."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from hilum.catalog.cxr_severity import CLEAN, CORRECTED, PARITY
from hilum.postprocessing.cxr_severity.components import components
from hilum.postprocessing.cxr_severity.lungs import clean, clean_step

CASES = [
    "f01_clean", "f02_small_blob_removed", "f03_small_hole", "f04_large_hole",
    "f05_thin_bridge_removed", "f06_thick_bridge_kept", "f07_area_edge_77x77_vs_78x77", "f08_salt",
    "f09_pepper", "f10_empty", "f11_full", "f12_island_in_hole", "f13_border_touching",
    "f14_noise", "f15_noise", "f16_noise", "f17_noise",
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(golden):
    stored = np.load(golden / "cxr" / "lung_filter.npz")
    boxes = json.loads((golden / "cxr" / "lung_filter_boxes.json").read_text())
    assert stored["names"].tolist() == CASES
    unpacked = (np.unpackbits(stored[k], axis=-1) for k in ("masks_in", "masks_out"))
    return {n: (i, o, boxes[n]) for n, i, o in zip(CASES, *unpacked, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_parity_with_the_published_cleaning(cases, name) -> None:
    raw, wanted, boxes = cases[name]
    before = raw.copy()
    cleaned = clean(raw)
    np.testing.assert_array_equal(cleaned.lung, wanted)
    assert components(cleaned.lung).boxes.tolist() == boxes
    assert cleaned.components == len(boxes)
    if boxes:
        low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
        assert cleaned.box.tolist() == [*low, *high]
    else:
        assert cleaned.box.tolist() == [0, 0, 511, 511]
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize(("width", "height", "kept"), [(78, 78, False), (79, 78, True)])
def test_polygon_area_limit(width, height, kept) -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[100 : 100 + height, 200 : 200 + width] = 1
    assert clean(mask).lung.any() == kept


def block_with_hole(hole: int) -> np.ndarray:
    mask = np.zeros((512, 512), np.uint8)
    mask[100:400, 100:300] = 1
    mask[200 : 200 + hole, 150 : 150 + hole] = 0
    return mask


@pytest.mark.parametrize("hole", [10, 30, 90])
def test_holes_are_filled_when_corrected_only(hole) -> None:
    mask = block_with_hole(hole)
    assert clean(mask).lung[205, 155] == 0
    corrected = clean(mask, mode="corrected")
    assert corrected.lung[150:350, 120:280].all()
    assert corrected.components == 1


def test_small_hole_loses_its_rim_in_parity() -> None:
    mask = block_with_hole(40)
    rim = clean(mask).lung[199, 160:180]
    assert not rim.any()
    assert clean(mask, mode="corrected").lung[199, 160:180].all()


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_limit_scales_with_the_mask_when_corrected(side) -> None:
    unit = side / 512
    mask = np.zeros((side, side), np.uint8)
    mask[: round(60 * unit), : round(90 * unit)] = 1  # about 5400 at 512
    mask[round(200 * unit) : round(290 * unit), round(200 * unit) : round(290 * unit)] = 1
    cleaned = clean(mask, mode="corrected")
    assert cleaned.components == 1
    assert abs(cleaned.box[0] / unit - 200) <= 2


def test_no_lung_falls_back_to_the_whole_image_when_corrected() -> None:
    empty = np.zeros((512, 512), np.uint8)
    assert clean(empty, mode="corrected").box.tolist() == [0, 0, 512, 512]
    assert clean(empty).box.tolist() == [0, 0, 511, 511]


@pytest.mark.parametrize("mode", [PARITY, CORRECTED])
@pytest.mark.parametrize("name", ["f01_clean", "f09_pepper", "f10_empty"])
def test_step_fits_the_catalog(cases, name, mode) -> None:
    raw = cases[name][0]
    outputs = clean_step(raw=raw, mode=np.array([mode], np.uint8))
    wanted = clean(raw, mode="parity" if mode == PARITY else "corrected")
    assert list(outputs) == [t.name for t in CLEAN.outputs]
    numpy_names = {"UINT8": "uint8", "INT32": "int32"}
    for tensor in CLEAN.outputs:
        array = outputs[tensor.name]
        assert array.dtype == numpy_names[tensor.dtype]
        assert array.shape == tensor.resolved(CLEAN.sizes)
    np.testing.assert_array_equal(outputs["lung"], wanted.lung)
    assert outputs["lung_components"] == [wanted.components]
    assert set(np.unique(outputs["lung"])) <= {0, 1}


def test_read_only_input_is_taken() -> None:
    mask = block_with_hole(10)
    mask.setflags(write=False)
    assert cv2.countNonZero(clean(mask).lung) > 0
