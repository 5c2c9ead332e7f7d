"""What DLPE measures in a generated chest whose truth is known, and in odd ones; files of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from dlpe_study import Study, make_study
from PIL import Image
from scipy import ndimage

from hilum.postprocessing.dlpe.chest import cut_chest
from hilum.postprocessing.dlpe.lesion_table import COLUMNS
from hilum.postprocessing.dlpe.quantities import quantify
from hilum.preprocessing.dlpe.placement import patient_affine
from hilum.preprocessing.reading.volume import Reorientation
from hilum.systems.dlpe.files import write_files, write_pictures
from hilum.systems.dlpe.meshes import make_surfaces
from hilum.systems.dlpe.quantities import EMPTY, measure, published_map

TURNED = Reorientation((0, 2, 1), (True, False, True))


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(side=160, size=160, slices=80, mode="corrected", turn=TURNED)


def measured(study: Study, **masks):
    result = study.result
    given = {name: mask for name, mask in {**result.masks, **masks}.items() if mask is not None}
    return measure(result.normalised, given, result.enhancement, branching=True)


def test_volume_severity_and_place_of_known_lesions_come_back(study) -> None:
    phantom, result = study.phantom, study.result
    hu, geometry = phantom.volume.voxels.astype(float), phantom.volume.geometry
    structures = (phantom.airway | phantom.vessel) > 0
    lesion = (phantom.lesion > 0) & (phantom.lung > 0) & ~structures
    healthy = (phantom.lung > 0) & ~structures & ~lesion
    baseline = float(np.median(hu[healthy]))
    masks = {n: result.masks[n] for n in ("lung", "airway", "vessel")}
    mm = result.normalised.space.voxel_mm
    chest = cut_chest(result.normalised.voxels, masks, mm, baseline)
    assert chest is not None
    found = quantify(chest, result.masks, lps_affine=patient_affine(result.normalised))
    volume, severity = lesion.sum() * geometry.voxel_ml, np.median(hu[lesion]) - baseline
    assert found.sets["all"].volume_ml == pytest.approx(volume, rel=0.03)
    assert found.sets["all"].median_severity_hu == pytest.approx(severity, abs=3)
    labels, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    centre = geometry.affine @ [*ndimage.center_of_mass(labels == largest), 1]
    np.testing.assert_allclose(found.lesions[0].centroid_mm, centre[:3], atol=1.0)


def test_the_report_has_every_field_and_is_json(study) -> None:
    result = replace(study.result, quantities=measured(study))
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert set(EMPTY) <= set(report)
    assert report["severity_reference_hu"] == pytest.approx(result.enhancement.window_level)
    assert set(report["lesions"]) == {"visible", "in_patient", "sub_visual", "all"}
    assert report["lesions"]["all"]["median_severity_hu"] > 0
    assert report["lesions"]["sub_visual"]["median_severity_hu"] is None
    assert report["lesion_table"]["rows"] == len(result.quantities.lesions) > 0
    assert report["quantification_flags"] == ["preview_grid"]
    without = study.result.report()
    assert {key: without[key] for key in EMPTY} == EMPTY
    assert without["surfaces"] is without["published_branching"] is None


def test_the_lesion_table_is_a_file(study, tmp_path) -> None:
    result = replace(study.result, quantities=measured(study), series=None)
    assert "lesions.csv" in write_files(result, tmp_path)
    with (tmp_path / "lesions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["voxels"]) for row in rows] == [one.voxels for one in result.quantities.lesions]


def test_meshes_lie_on_the_anatomy_and_are_closed(study, tmp_path) -> None:
    found = measured(study)
    made, empty = make_surfaces(study.result.normalised, study.result.masks, found)
    assert empty == ("lesions-sub-visual",)
    assert all(one.closed and one.volume_ml > 0 for one in made)
    by_name = {one.name: one for one in made}
    lung = study.phantom.lung
    affine = study.phantom.volume.geometry.affine
    for name, label in (("lung-right", 1), ("lung-left", 2)):
        places = np.argwhere(lung == label) @ affine[:3, :3].T + affine[:3, 3]
        low, high = places.min(axis=0), places.max(axis=0)
        np.testing.assert_allclose(by_name[name].vertices.min(axis=0), low, atol=5)
        np.testing.assert_allclose(by_name[name].vertices.max(axis=0), high, atol=5)
    result = replace(study.result, quantities=found, surfaces=made, series=None, mode="parity")
    assert "meshes/" in write_files(result, tmp_path)
    names = {p.relative_to(tmp_path / "meshes").as_posix() for p in tmp_path.rglob("*.stl")}
    assert {"lung-left.stl", "vessel.stl", "lesions-all.stl", "published/vessel.stl"} <= names
    assert (tmp_path / "meshes/scene.glb").is_file()
    assert json.dumps(result.report(), allow_nan=False)


def test_surfaces_of_a_coarse_preview_are_closed_and_keep_their_volume() -> None:
    coarse = make_study(side=48, size=96, slices=48).result
    found = measure(coarse.normalised, coarse.masks, coarse.enhancement, branching=True)
    assert found is not None
    assert found.lesions
    made, _ = make_surfaces(coarse.normalised, coarse.masks, found)
    volumes = {one.name: one.volume_ml for one in made}
    assert all(one.closed for one in made)
    ml = coarse.normalised.space.voxel_ml
    for name in ("vessel", "airway"):
        assert volumes[name] == pytest.approx(int(coarse.masks[name].sum()) * ml, rel=0.01)
    report = replace(coarse, quantities=found, surfaces=made).report()
    assert "preview_grid" in report["quantification_flags"]
    assert json.dumps(report, allow_nan=False)


def test_a_study_without_lungs_has_no_surfaces(study) -> None:
    nothing = {name: np.zeros_like(mask) for name, mask in study.result.masks.items()}
    made, empty = make_surfaces(study.result.normalised, nothing, None)
    assert made == ()
    assert {"lung", "vessel", "lesions-all"} <= set(empty)


@pytest.mark.parametrize(
    ("masks", "flags"),
    [
        ({"visible": "empty", "in_patient": "empty"}, {"no_lesions"}),
        ({"visible": None, "in_patient": None}, {"no_lesions"}),
        ({"vessel": "empty"}, {"no_vessel"}),
        ({"airway": "empty", "vessel": "empty"}, {"no_airway", "no_vessel"}),
    ],
)
def test_what_is_missing_is_a_flag_and_empty_fields(study, masks, flags) -> None:
    nothing = np.zeros_like(study.result.masks["lung"])
    given = {name: nothing if kind == "empty" else None for name, kind in masks.items()}
    found = measured(study, **given)
    assert set(found.flags) == flags
    report = replace(study.result, quantities=found).report()
    assert json.dumps(report, allow_nan=False)
    if "no_lesions" in flags:
        assert found.lesions == ()
    else:
        assert found.branching.level is None
        assert "branching" not in found.distributions["all"]
        assert found.lesions[0].vessel_min_mm is None


def test_lungs_that_touch_are_cut_and_a_single_one_is_named(study) -> None:
    lung = study.result.masks["lung"].copy()
    x, y, z = (slice(int(w.min()), int(w.max()) + 1) for w in np.nonzero(lung))
    middle = lung[(x.start + x.stop) // 2 - 2 : (x.start + x.stop) // 2 + 2, y,
                  (z.start + z.stop) // 2 - 2 : (z.start + z.stop) // 2 + 2]  # fmt: skip
    middle[...] = 1
    touching = measured(study, lung=lung)
    assert touching.sides.flag == "merged_lungs"
    assert touching.lung_ml["left"] / touching.lung_ml["right"] == pytest.approx(1, abs=0.5)
    lung = study.result.masks["lung"].copy()
    lung[:, lung.shape[1] // 2 :] = 0
    single = measured(study, lung=lung)
    assert single.sides.flag == "single_lung"
    assert single.lung_ml["left"] == 0
    assert single.zones["all"]["left_upper"]["share"] is None
    assert json.dumps(replace(study.result, quantities=single).report(), allow_nan=False)


def test_without_lungs_nothing_is_measured(study) -> None:
    nothing = np.zeros_like(study.result.masks["lung"])
    assert measured(study, lung=nothing) is None
    assert measure(study.result.normalised, study.result.masks, None, branching=True) is None


def test_pictures_are_drawn_of_all_that_was_measured(study, tmp_path) -> None:
    published = published_map(study.result.masks, study.result.enhancement, seed=1)
    result = replace(study.result, quantities=measured(study), published_branching=published)
    files = write_pictures(result, tmp_path, "a note")
    names = ("severity", "distribution", "zones", "lesions", "projection", "largest", "branching",
             "branching-published")  # fmt: skip
    for name in names:
        assert f"{name}.png" in files
        colours = Image.open(tmp_path / f"{name}.png").convert("RGB").getcolors(1 << 24)
        assert len(colours or ()) > 40
    assert result.report()["published_branching"]["unresolved_voxels"] > 0
    assert {"branching", "branching_published"} <= set(result.arrays())
    nothing = np.zeros_like(study.result.masks["lung"])
    bare = measured(study, visible=nothing, in_patient=nothing, vessel=nothing, airway=nothing)
    result = replace(study.result, quantities=bare)
    assert "distribution.png" in write_pictures(result, tmp_path, "")
    assert "severity.png" not in write_pictures(study.result, tmp_path, "")
