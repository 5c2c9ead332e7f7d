"""Severity, lesion table, distances, zones and distribution: three golden chests, and odd ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hilum.postprocessing.dlpe.chest import cut_chest
from hilum.postprocessing.dlpe.lesion_table import COLUMNS, csv_text
from hilum.postprocessing.dlpe.quantities import quantify

CASES = ("a", "b", "c")
NAMES = ("lung", "airway", "vessel", "visible", "follow_up")


def scan(golden, case):
    stored = np.load(golden / "dlpe_quant" / f"07_scan_{case}.npz")
    return stored, {name: stored[name] for name in NAMES}


def measured(stored, masks, *, added=0.0, **options):
    hu = stored["hu"].astype(np.float32) + np.float32(added)
    mm = tuple(stored["voxel_mm"].tolist())
    chest = cut_chest(hu, masks, mm, float(stored["baseline_hu"]) + added, scale=1.0, offset=0.0)

    # The golden phantoms count lesions of 24 of their own large voxels.
    class Golden(type(chest)):
        min_voxels = 24

    fields = {f: getattr(chest, f) for f in chest.__dataclass_fields__}
    return quantify(Golden(**fields), masks, **options)


def close(value):
    """What a value may differ from the golden one."""
    if isinstance(value, dict):
        return {key: close(one) for key, one in value.items()}
    if isinstance(value, list):
        return [close(one) for one in value]
    exact = value is None or isinstance(value, str | bool)
    return value if exact else pytest.approx(value, rel=1e-6)


@pytest.fixture(scope="module", params=CASES)
def case(golden, request):
    stored, masks = scan(golden, request.param)
    report = json.loads((golden / "dlpe_quant" / f"07_report_{request.param}.json").read_text())
    return stored, measured(stored, masks), report


def test_lungs_and_sides(case) -> None:
    stored, found, report = case
    assert found.lung_voxels == report["lung_voxels"]
    assert found.parenchyma_voxels == report["parenchyma_voxels"]
    assert found.sides.flag == report["side_flag"]
    assert found.lung_ml["right"] == pytest.approx(report["right_lung_ml"], rel=1e-9)
    assert found.lung_ml["left"] == pytest.approx(report["left_lung_ml"], rel=1e-9)
    assert found.lung_density_hu == pytest.approx(report["mean_lung_density_hu"], rel=1e-6)
    np.testing.assert_array_equal(found.crop.uncut(found.sides.labels), stored["side"])


def test_severity_of_each_set(case) -> None:
    _, found, report = case
    for name, expected in report["sets"].items():
        ours = found.sets_report()[name]
        for key, value in expected.items():
            assert ours[key] == close(value), (name, key)


def test_zones(case) -> None:
    _, found, report = case
    for name, expected in report["zones"].items():
        assert found.zones[name] == close(expected), name


def test_distribution(case) -> None:
    _, found, report = case
    for name, maps in report["distribution"].items():
        loose = report["branching"]["ambiguous_lesion_voxels"][name]
        ambiguous = report["branching"]["ambiguous_lung_voxels"]
        for key, expected in maps.items():
            ours = found.distributions[name][key].report()
            if key == "branching":
                assert np.abs(np.subtract(ours["lesion"], expected["lesion"])).max() <= loose
                apart = np.abs(np.subtract(ours["parenchyma"], expected["parenchyma"]))
                assert apart.max() <= ambiguous
                continue
            for field, values in expected.items():
                assert ours[field] == close(values), (name, key, field)


def test_lesion_table(case) -> None:
    _, found, report = case
    assert len(found.lesions) == len(report["lesions"])
    for lesion, expected in zip(found.lesions, report["lesions"], strict=True):
        ours = lesion.row()
        assert tuple(ours) == COLUMNS
        box = [list(span) for span in lesion.box]
        assert box == expected.pop("box")
        branching = expected.pop("branching_mean")
        assert ours["branching_mean"] == pytest.approx(branching, abs=0.05)
        for key, value in expected.items():
            assert ours[key] == close(value), key
    lines = csv_text((one.row() for one in found.lesions), COLUMNS).splitlines()
    assert lines[0].split(",") == list(COLUMNS)
    assert len(lines) == 1 + len(found.lesions)


def test_radii_of_the_branching_map(case) -> None:
    _, found, report = case
    for key in ("flag", "r1_mm", "r10_mm", "alpha"):
        assert getattr(found.branching, key) == close(report["branching"][key])


def test_a_constant_added_to_the_scan_changes_no_severity(golden) -> None:
    stored, masks = scan(golden, "a")
    wanted = json.loads((golden / "dlpe_quant" / "09_follow_up.json").read_text())["bias_of_37_hu"]
    before = measured(stored, masks, with_branching=False).sets_report()["follow_up"]
    after = measured(stored, masks, added=37.0, with_branching=False).sets_report()["follow_up"]
    for key, pair in wanted.items():
        assert before[key] == pytest.approx(pair["before"], rel=1e-6)
        assert after[key] == pytest.approx(pair["after"], rel=1e-6)
