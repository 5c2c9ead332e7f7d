"""Each step after a network on NumPy, array-api-strict and CuPy: the same as on NumPy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from array_modules import Case, check, check_cupy_signatures, check_refused, only_beyond, parameters

from hilum.catalog import dlpe as catalog
from hilum.postprocessing.ct_angel.boxes import assess_slice
from hilum.postprocessing.ct_classifier.gradcam import (
    grad_cam,
    heat_map,
    laterality,
    normalised,
    overlay,
)
from hilum.postprocessing.cxr_severity.components import components, count_components
from hilum.postprocessing.cxr_severity.lungs import clean
from hilum.postprocessing.cxr_severity.zones import zones_step
from hilum.postprocessing.dlpe.connectivity import refine
from hilum.postprocessing.dlpe.enhancement import (
    corrected_statistics,
    enhance,
    published_statistics,
    sampling_ring,
    upper_frontal_box,
)
from hilum.postprocessing.dlpe.extent import extent
from hilum.postprocessing.dlpe.ranks import (
    above,
    channels,
    count,
    lung_box,
    rank_thresholds,
    root_masks,
    select,
    tree_mask,
)
from hilum.postprocessing.dlpe.three_way import clear_outside, open_slices, positive
from hilum.postprocessing.dlpe.tubes import Growth, extend, extend_each
from hilum.postprocessing.lungmask import clean_volume, lungs_of_volume, masked_image, uncrop
from hilum.preprocessing.arrays import namespace

BITS = "looks at the bits of numbers, and counts them with bincount"
LABELS = "runs of NumPy on the host, cupyx.scipy.ndimage on a GPU; counts with bincount"
PARTITION = "partition, so that not all is sorted"

RNG = np.random.default_rng(12)
SHAPE = (24, 20, 18)
LUNG = np.zeros(SHAPE, np.uint8)
LUNG[3:21, 2:18, 2:16] = 1
HEART = np.zeros(SHAPE, np.uint8)
HEART[9:15, 6:14, 4:12] = 1
AIRWAY = np.zeros(SHAPE, np.uint8)
AIRWAY[10:14, 8:12, 3:15] = 1
VESSEL = np.zeros(SHAPE, np.uint8)
VESSEL[5:8, 5:8, 4:14] = 1
VESSEL[16:19, 12:15, 6:12] = 1
CT = RNG.normal(-0.15, 0.05, SHAPE).astype(np.float32)
P_X, P_Y, P_Z = RNG.random((3, *SHAPE), np.float32)
SCORE = P_X + P_Y + P_Z
SIGNED = SCORE - np.float32(1.5)
WITHIN = (P_X > 0.4).astype(np.uint8)
FEW = SCORE.copy()
FEW[4:20] = 0.5
BLOBS = (SCORE > 1.8).astype(np.uint8)
PLANES_APART = np.zeros((2200, 24, 24), np.uint8)  # more than one block, the middle one empty
PLANES_APART[2:5, 3:9, 3:9] = 1
PLANES_APART[2190:2195, 3:9, 3:9] = 1
PART = (slice(2, 20), slice(0, 15), slice(3, 18))
CAM = RNG.normal(0, 1, (8, 8)).astype(np.float32)
SLICE = RNG.integers(-1000, 400, (90, 80)).astype(np.int16)
SLICE_LUNG = (RNG.random((90, 80)) > 0.4).astype(np.uint8)
LABELLED = np.zeros((4, 64, 64), np.uint8)
LABELLED[:3, 10:50, 5:28] = 1
LABELLED[:3, 10:50, 34:60] = 2
LABELLED[1, 12:14, 40:44] = 1
LABELLED_SLICE = np.zeros((90, 80), np.uint8)
LABELLED_SLICE[10:70, 5:35] = 1
LABELLED_SLICE[15:75, 42:78] = 2
HEAT = RNG.random((90, 80), np.float32)
SPOTS = np.zeros((90, 80), np.uint8)
SPOTS[20:28, 10:19] = 1
SPOTS[50:60, 45:52] = 1
SPOTS[3, 3] = 1
CROPS = ((3, 2, 70, 75), (0, 0, 90, 80), (5, 5, 60, 70), (1, 1, 80, 70))
XRAY_LUNG = np.zeros((256, 256), np.uint8)
XRAY_LUNG[40:210, 30:110] = 1
XRAY_LUNG[50:200, 140:230] = 1
DISEASE = (RNG.random((512, 512)) > 0.7).astype(np.uint8)

# A phantom whose tubes are wide enough to grow.
GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden/dlpe/06_enhancement.npz")
PHANTOM = (
    (GOLDEN["hu"].astype(np.float32) + np.float32(600)) / np.float32(1600),
    *(GOLDEN[name] for name in ("lung", "airway", "vessel")),
)
TREE = dataclasses.replace(catalog.VESSEL, high_recall=0.2, high_precision=0.05)
LIMITS = (0, 24)


def masks_of_stage_one(lung, score):
    return channels(lung, score, TREE, LIMITS)


def ranked_in_parts(*parts):
    return select(lambda: iter(parts), (0, 40, 900, 901))


def cleared(total, box):
    total = namespace(total).asarray(total, copy=True)
    clear_outside(total, box)
    return total


def inside(total, within):
    return positive(total, 1.4, within=within)


def found_open(total, direction, within):
    return open_slices(total, 2, direction, within), open_slices(total, 2, direction)


def enhanced(*scan):
    found = enhance(*scan)
    return tuple(getattr(found, f.name) for f in dataclasses.fields(found))


def ring(lung, structures, *how):
    return sampling_ring(lung, structures, *how)


def tubes(mask, mode):
    return extend_each(mask, (Growth(1.1, 50), Growth(1.1 + 0.1, 100)), mode)


def cleaned(mask, mode):
    found = clean(mask, mode=mode)
    return found.lung, found.box, found.components


def found_components(mask):
    found = components(mask)
    return found.labels, found.boxes, found.areas, count_components(mask)


def zones(lung, box, disease):
    host = {
        "probability": np.array([0.7], np.float32),
        "zone_threshold": np.array([0.1]),
        "mode": np.array([0], np.uint8),
    }
    found = zones_step(lung=lung, box=box, disease=disease, ungated=disease, **host)
    return tuple(found[name] for name in sorted(found))


def lesions(mask, probability, valid):
    found = assess_slice(mask, probability, valid)
    told = [(one.box, one.area, one.mean_probability, one.quadrants) for one in found.lesions]
    return told, found.dropped, found.valid


def sides(heat, lung):
    found = laterality(heat, lung)
    return found.right, found.left, found.shells_right, found.shells_left


CASES = [
    Case("box of a mask", extent, (VESSEL,)),
    Case("box of an empty mask", extent, (VESSEL * np.uint8(0),)),
    Case("ranking box", lung_box, (LUNG, LIMITS)),
    Case("voxels", count, (VESSEL,)),
    Case("above", above, (SCORE, 1.7)),
    Case("positive within", inside, (SCORE, WITHIN)),
    *(Case(f"open slices along {d}", found_open, (FEW, d, WITHIN), on_host=True) for d in "xyz"),
    Case("cleared", cleared, (SCORE, PART)),
    Case("rank thresholds", rank_thresholds, (LUNG, SCORE, (0.02, 0.1, 0.5), LIMITS), BITS),
    Case("rank thresholds of signed numbers", rank_thresholds,
         (LUNG, SIGNED, (0.02, 0.3, 0.8), LIMITS, "corrected"), BITS),
    # Most parts have no number of a rank's bucket: nothing is to be counted in them.
    Case("ranks in parts", ranked_in_parts,
         (SIGNED[:4], SIGNED[4:9] * np.float32(1e-9), SIGNED[9:] * np.float32(100)), BITS),
    Case("masks of stage one", masks_of_stage_one, (LUNG, SCORE), BITS),
    Case("tree", tree_mask, (LUNG, SCORE, 0.1, LIMITS), BITS),
    Case("tree by the sum", tree_mask, (LUNG, SCORE, None)),
    Case("roots", root_masks, (LUNG, HEART, P_X + P_Y, P_Y + P_Z, (0.2, 0.3), LIMITS), BITS),
    Case("largest parts", refine, (BLOBS, 3), LABELS),
    Case("largest parts within", refine, (BLOBS, 2, 0.01, LUNG), LABELS),
    Case("largest parts, corrected", refine, (BLOBS, 2, 0.5, None, "corrected"), LABELS),
    Case("parts with nothing between", refine, (PLANES_APART, 2), LABELS),
    Case("nothing to refine", refine, (BLOBS * np.uint8(0), 2)),
    *(Case(f"tubes, {mode}", tubes, (PHANTOM[3], mode)) for mode in ("parity", "corrected")),
    Case("one growth", extend, (AIRWAY, 1.1, 50)),
    Case("ring", ring, (PHANTOM[1], PHANTOM[3])),
    Case("upper frontal ring", ring, (PHANTOM[1], PHANTOM[3], "parity", "upper-frontal")),
    Case("upper frontal box", upper_frontal_box, (PHANTOM[1],)),
    # A GPU adds single-precision numbers in another order.
    Case("published statistics", published_statistics, (CT.ravel(),), rtol=1e-5),
    Case("corrected statistics", corrected_statistics, (CT.ravel(),), PARTITION, rtol=1e-12),
    Case("enhancement", enhanced, PHANTOM, rtol=1e-5),
    Case("enhancement without a ring", enhanced, (CT, LUNG, AIRWAY, VESSEL), PARTITION, rtol=1e-5),
    Case("upper frontal enhancement", enhanced,
         (*PHANTOM, "parity", "upper-frontal"), rtol=1e-5),
    Case("corrected enhancement", enhanced,
         (*PHANTOM, "corrected"), PARTITION, rtol=1e-12),
    Case("Grad-CAM", grad_cam, (CAM,)),
    Case("normalised map", normalised, (CAM,)),
    Case("empty map", normalised, (-np.abs(CAM),)),
    Case("heat map", heat_map, (CAM, (90, 70)), atol=1e-6),
    Case("overlay", overlay, (SLICE_LUNG * np.uint8(90), HEAT), on_host=True),
    Case("sides of a heat map", sides, (HEAT, LABELLED_SLICE)),
    Case("lesions", lesions, (SPOTS, HEAT, SLICE_LUNG)),
    Case("crops put back", uncrop, (LABELLED, CROPS, (90, 80))),
    Case("clean volume", clean_volume, (LABELLED,)),
    Case("clean volume without label 2", clean_volume, (LABELLED, (2,))),
    Case("lungs of a volume", lungs_of_volume, (LABELLED, CROPS, (90, 80))),
    Case("masked slice", masked_image, (SLICE, SLICE_LUNG)),
    Case("masked slice without lung", masked_image, (SLICE, SLICE_LUNG * np.uint8(0))),
    *(Case(f"X-ray's lungs, {mode}", cleaned, (XRAY_LUNG, mode), on_host=True)
      for mode in ("parity", "corrected")),
    Case("components of an X-ray", found_components, (XRAY_LUNG,), on_host=True),
    Case("zones", zones, (XRAY_LUNG, np.array([25, 30, 240, 220], np.int32), DISEASE),
         on_host=True),
]  # fmt: skip


@pytest.mark.parametrize(("case", "module"), parameters(CASES))
def test_a_step_is_the_same_on(case: Case, module: str) -> None:
    check(case, module)


@pytest.mark.parametrize("case", only_beyond(CASES))
def test_what_is_said_to_be_beyond_the_standard_is(case: Case) -> None:
    check_refused(case)


def test_cupy_has_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(check_cupy_signatures(CASES, monkeypatch)) > 10
