"""DLPE's measurements on NumPy, array-api-strict and CuPy: the same as on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from array_modules import Case, check, check_refused, only_beyond, parameters

from hilum.postprocessing.dlpe.branching import levels, radius_mm, section_areas
from hilum.postprocessing.dlpe.chest import Crop, cut_chest
from hilum.postprocessing.dlpe.components import parts, ranked
from hilum.postprocessing.dlpe.distances import distance_mm
from hilum.postprocessing.dlpe.distribution import counts
from hilum.postprocessing.dlpe.lesions import core, percentile
from hilum.postprocessing.dlpe.quantities import quantify
from hilum.postprocessing.dlpe.rims import dilated, eroded

TRANSFORM = "OpenCV on the host, cupyx.scipy.ndimage on a GPU"
LABELS = "runs of NumPy on the host, cupyx.scipy.ndimage on a GPU; counts with bincount"

RNG = np.random.default_rng(21)
SHAPE = (20, 24, 18)
MM = (5.0, 5.0, 8.0)
LUNG = np.zeros(SHAPE, np.uint8)
LUNG[2:18, 1:11, 2:16] = LUNG[2:18, 13:23, 2:16] = 1
VESSEL = np.zeros(SHAPE, np.uint8)
VESSEL[9:12, 2:22, 8:10] = 1
AIRWAY = np.zeros(SHAPE, np.uint8)
AIRWAY[6:8, 8:16, 8:14] = 1
LESION = (RNG.random(SHAPE) < 0.2).astype(np.uint8)
HU = RNG.normal(-850, 30, SHAPE).astype(np.float32)
BOOL = RNG.random(SHAPE) < 0.6


def cut(hu, lung, airway, vessel):
    masks = {"lung": lung, "airway": airway, "vessel": vessel}
    return cut_chest(hu, masks, MM, -850.0, scale=1.0, offset=0.0)


def chest_parts(*given):
    chest = cut(*given)
    return chest.lung, chest.parenchyma, chest.ct, core(chest), chest.mean_hu()


def severities(hu, lung, airway, vessel, flat):
    severity = cut(hu, lung, airway, vessel).severity(flat)
    return severity, percentile(severity, 90)


def whole(hu, lung, airway, vessel, lesion):
    chest = cut(hu, lung, airway, vessel)
    found = quantify(chest, {"vessel": vessel, "follow_up": lesion}).on_host()
    rows = [one.row() for one in found.lesions]
    return leaves([found.sets_report(), found.report(), rows])


def leaves(value):
    """The keys and values of a nested report in one list, which is compared number by number."""
    if isinstance(value, dict):
        return [one for key in value for one in (key, *leaves(value[key]))]
    if isinstance(value, list | tuple):
        return [one for item in value for one in leaves(item)]
    return [value]


def cropped(mask):
    crop = Crop.around(mask)
    return crop.origin, crop.cut(mask), crop.uncut(crop.cut(mask))


CASES = [
    Case("cropped", cropped, (LUNG,)),
    Case("chest", chest_parts, (HU, LUNG, AIRWAY, VESSEL), rtol=1e-12),
    Case("severity", severities, (HU, LUNG, AIRWAY, VESSEL, np.arange(30))),
    Case("dilated", dilated, (BOOL,)),
    Case("eroded", eroded, (BOOL,)),
    Case("dilated-cross", dilated, (BOOL,), options={"full": False, "axes": (1, 2)}),
    Case("eroded-cross", eroded, (BOOL,), options={"full": False}),
    Case("counts", counts, (np.arange(12.0), (0.0, 2.5, 5.0, 11.0)), on_host=True),
    Case("levels", levels, (np.array([0.3, 1.0, 4.0]), 6.0, 0.45), rtol=1e-12),
    Case("distances", distance_mm, (BOOL, MM, LUNG > 0), beyond=TRANSFORM, rtol=1e-6),
    Case("areas", section_areas, (VESSEL, 1), beyond=LABELS),
    Case("radius", radius_mm, (VESSEL, MM), beyond=LABELS, rtol=1e-6),
    Case("parts", lambda mask: parts(mask).flat, (BOOL,), beyond=LABELS),
    Case("ranked", ranked, (BOOL,), beyond=LABELS),
    Case("quantities", whole, (HU, LUNG, AIRWAY, VESSEL, LESION), beyond=LABELS, rtol=1e-6),
]


@pytest.mark.parametrize(("case", "module"), parameters(CASES))
def test_a_measurement_is_the_same_on_every_module(case, module) -> None:
    check(case, module)


@pytest.mark.parametrize("case", only_beyond(CASES))
def test_what_needs_more_than_the_standard_says_so(case) -> None:
    check_refused(case)
