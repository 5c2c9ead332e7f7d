"""Two scans of one patient, and the spread over several: golden pairs, empty and odd scans."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.cohort import spread
from hilum.postprocessing.dlpe.comparison import Lungs, Measured, changes, fates, pull


def loaded(golden, case, name):
    stored = np.load(golden / "dlpe_quant" / f"07_scan_{case}.npz")
    report = json.loads((golden / "dlpe_quant" / f"07_report_{case}.json").read_text())
    parenchyma = stored["lung"] & ~stored["airway"] & ~stored["vessel"]
    mask = stored["visible"] | stored["follow_up"] if name == "all" else stored[name]
    lungs = Lungs(
        sides=stored["side"], lesions=(mask & parenchyma & 1) > 0,
        voxel_mm=tuple(stored["voxel_mm"].tolist()), min_voxels=24,
    )  # fmt: skip
    measured = Measured(report["baseline_hu"], report["lung_volume_ml"], report["sets"][name])
    return lungs, measured


@pytest.mark.parametrize(
    ("pair", "later", "name"),
    [("a_to_b", "b", "all"), ("a_to_b", "b", "follow_up"), ("a_to_a", "a", "all")],
)
def test_golden_comparison(golden, pair, later, name) -> None:
    expected = json.loads((golden / "dlpe_quant" / "09_follow_up.json").read_text())[pair]
    expected = expected.get(name, expected)
    (before, first), (after, second) = (loaded(golden, case, name) for case in ("a", later))
    found = changes(first, second)
    for key, value in found.items():
        wanted = expected[key]
        assert value == (wanted if key == "flags" else pytest.approx(wanted, rel=1e-6)), key
    lesions = fates(before, after)
    for fate in ("new", "persisting", "resolved"):
        assert sum(one.fate == fate for one in lesions) == expected[f"{fate}_lesions"], fate


def scan(*balls, side=24):
    sides = np.zeros((side,) * 3, np.uint8)
    sides[2:-2, 2 : side // 2 - 1, 2:-2] = 1
    sides[2:-2, side // 2 + 1 : -2, 2:-2] = 2
    lesions = np.zeros(sides.shape, bool)
    for x, y, z in balls:
        lesions[x : x + 2, y : y + 2, z : z + 2] = True
    return Lungs(sides=sides, lesions=lesions & (sides > 0), voxel_mm=(2.0, 2.0, 2.0), min_voxels=1)


def told(found):
    return sorted((one.scan, one.lesion_id, one.fate) for one in found)


def test_lesions_that_went_stayed_and_came() -> None:
    before, after = scan((4, 4, 4), (12, 16, 12)), scan((12, 15, 12), (18, 4, 18))
    found = fates(before, after)
    assert told(found) == [
        ("earlier", 1, "resolved"), ("later", 1, "persisting"), ("later", 2, "new"),
    ]  # fmt: skip
    assert {one.voxels for one in found} == {8}


def test_without_lesions_and_without_lungs_there_is_an_answer() -> None:
    one, none = scan((4, 4, 4)), scan()
    assert told(fates(none, none)) == []
    assert told(fates(one, none)) == [("earlier", 1, "resolved")]
    assert told(fates(none, one)) == [("later", 1, "new")]
    empty = Lungs(
        sides=np.zeros_like(one.sides), lesions=none.lesions, voxel_mm=(2, 2, 2), min_voxels=1
    )
    assert told(fates(one, empty)) == [("earlier", 1, "resolved")]
    assert told(fates(empty, one)) == [("later", 1, "new")]
    nothing = Measured(-850.0, 0.0, {"volume_ml": 0.0, "median_severity_hu": None})
    found = changes(nothing, nothing)
    assert found["lesion_ratio_remaining"] is None
    assert found["median_severity_change_hu"] is None


def test_lungs_of_another_size_are_stretched_onto_each_other() -> None:
    small, large = scan((4, 4, 4), side=24), scan(side=40)
    pulled = pull(small.lesions, small.sides, large.sides)
    assert pulled.shape == large.sides.shape
    assert pulled.any()
    assert not pulled[large.sides == 0].any()


def test_different_inflation_is_a_flag() -> None:
    first, second = (Measured(-850.0, ml, {"volume_ml": 1.0}) for ml in (5000.0, 4200.0))
    assert changes(first, second)["flags"] == ["different_inflation"]
    assert changes(first, first)["flags"] == []


def test_the_spread_of_bias_against_severity() -> None:
    found = spread([-860.0, -830.0, -890.0], [20.0, 25.0, 15.0])
    assert found.scans == 3
    assert found.noise_ratio == pytest.approx(6.0)
    assert found.masking == pytest.approx(1.0)
    assert spread([-860.0] * 3, [20.0] * 3).noise_ratio is None
    with pytest.raises(InputError, match="3 scans"):
        spread([-860.0, -850.0], [20.0, 21.0])
