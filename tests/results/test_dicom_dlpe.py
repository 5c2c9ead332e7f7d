"""DLPE's result as DICOM objects: masks lie where its NIfTI files have them, numbers agree.

The masks are the truth of a phantom in a file whose slices run downwards; all else is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_judges import assert_valid
from dicom_reports import Group, groups
from dlpe_study import result_of, truth_volume
from pydicom import dcmread

from hilum.postprocessing.dlpe.quantities import Quantities
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.systems.dlpe.files import write
from hilum.systems.dlpe.meshes import make_surfaces
from hilum.systems.dlpe.quantities import measure
from hilum.systems.dlpe.result import DlpeResult
from hilum.systems.dlpe.system import SYSTEM
from hilum.systems.studies import open_study

pytest.importorskip("highdicom")
pytest.importorskip("skimage")

import highdicom as hd

from hilum.results.dicom.content import Content, Provenance
from hilum.results.dicom.writer import write_objects

STEMS = {
    "airways": "airway",
    "vessels": "vessel",
    "visible lesions": "visible",
    "in-patient lesions": "in-patient",
}
"""NIfTI file of each segment; both lungs are in one."""

VOLUME, ZONE = "118565006", "zone"


@dataclass(frozen=True)
class Written:
    """A study's folder and what went into it."""

    folder: Path
    names: list[str]
    content: Content
    result: DlpeResult
    measured: Quantities
    report: dict[str, Any]
    groups: dict[str, Group]

    def points(self, product: str, number: int) -> np.ndarray:
        """Centres of a segment's voxels in the patient (LPS, mm), float [n, 3]."""
        read = hd.seg.segread(self.folder / f"dicom/seg-{product}.dcm")
        volume = read.get_volume(segment_numbers=[number], combine_segments=False)
        at = np.argwhere(volume.array[..., 0] > 0)
        return (np.c_[at, np.ones(len(at))] @ volume.affine.T)[:, :3]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("study")
    phantom = chest_ct(3, slices=24, size=64)
    write_dicom_series(phantom.volume, folder / "in")
    series = open_series(folder / "in")
    normalised = normalise(series, "parity", 64)
    masks = {name: in_space(phantom, mask) for name, mask in truth(phantom)}
    found = result_of(normalised, masks, series, "parity").enhancement
    measured = measure(normalised, masks, found, branching=False)
    assert measured is not None
    surfaces, _ = make_surfaces(normalised, masks, measured)
    result = result_of(normalised, masks, series, "parity", quantities=measured, surfaces=surfaces)
    write(result, folder, note="", pictures=False)
    files = SYSTEM.dicom_files(folder / "in", result)
    content = SYSTEM.dicom_content(result, files)
    assert content is not None
    names = write_objects(content, files, Provenance(key="a", mode="parity", version="0"), folder)
    report = json.loads(json.dumps(result.report()))
    told = groups(folder / "dicom/report.dcm")
    return Written(folder, names, content, result, measured, report, told)


def truth(phantom: CtPhantom) -> Iterator[tuple[str, np.ndarray]]:
    yield from (
        ("lung", phantom.lung),
        ("airway", phantom.airway),
        ("vessel", phantom.vessel),
        ("visible", phantom.lesion),
        ("in_patient", phantom.lesion | np.roll(phantom.lesion, 3, 2)),
    )


def in_space(phantom: CtPhantom, mask: np.ndarray) -> np.ndarray:
    volume = open_study(truth_volume(phantom, mask))
    return (normalise(volume, "parity", 64, fill_hu=-600).voxels > 0.5).astype(np.uint8)


def test_all_objects_are_there_and_valid(written: Written) -> None:
    assert_valid(written.folder / name for name in written.names)
    surfaces = {f"dicom/surfaces/{one.name}.dcm" for one in written.content.surfaces}
    others = {"dicom/window.dcm", "dicom/enhanced/0024.dcm", "dicom/report.dcm"}
    assert surfaces
    assert surfaces | others <= set(written.names)


def test_masks_lie_where_the_nifti_files_have_them(written: Written) -> None:
    found: dict[str, np.ndarray] = {}
    for product, segments in (
        ("anatomy", written.content.anatomy),
        ("lesions", written.content.lesions),
    ):
        for number, segment in enumerate(segments, 1):
            found[segment.name] = written.points(product, number)
            assert len(found[segment.name]) == np.count_nonzero(segment.mask) > 0
    found["lungs"] = np.concatenate([found["right lung"], found["left lung"]])
    for name, stem in {**STEMS, "lungs": "lung"}.items():
        image = nibabel.load(written.folder / f"{stem}.nii.gz")
        inside = np.argwhere(np.asarray(image.dataobj) > 0)
        expected = nibabel.affines.apply_affine(image.affine, inside) * (-1, -1, 1)
        assert len(found[name]) == len(inside)
        np.testing.assert_allclose(found[name].mean(0), expected.mean(0), atol=0.01)
        np.testing.assert_allclose(np.sort(found[name], 0), np.sort(expected, 0), atol=0.01)


def test_lungs_have_their_side_where_the_patient_has_it(written: Written) -> None:
    header = dcmread(written.folder / "dicom/seg-anatomy.dcm", stop_before_pixels=True)
    sides = {
        str(item.SegmentLabel): str(
            item.SegmentedPropertyTypeCodeSequence[0]
            .SegmentedPropertyTypeModifierCodeSequence[0]
            .CodeMeaning
        )
        for item in header.SegmentSequence
        if item.SegmentLabel.endswith("lung")
    }
    assert sides == {"Right lung": "Right", "Left lung": "Left"}
    right, left = (written.points("anatomy", number)[:, 0].mean() for number in (1, 2))
    assert right < left  # x runs to the patient's left
    for side in ("right", "left"):
        assert written.groups[f"{side} lung"].numbers[VOLUME] == pytest.approx(
            written.report["sides"][f"{side}_ml"]
        )


def test_volumes_shares_and_severities_are_those_of_the_report(written: Written) -> None:
    for name, stem in (("airways", "airway"), ("vessels", "vessel")):
        volume = written.groups[name].numbers[VOLUME]
        assert volume == pytest.approx(written.report["volumes_ml"][stem], abs=1e-3)
    for title, name in (("visible lesions", "visible"), ("in-patient lesions", "in_patient")):
        told, expected = written.groups[title].numbers, written.report["lesions"][name]
        assert told[VOLUME] == pytest.approx(expected["volume_ml"], abs=1e-3)
        for code, key in (
            ("lung-share", "share_of_lungs"),
            ("severity-median", "median_severity_hu"),
            ("severity-mean", "mean_severity_hu"),
            ("severity-p90", "p90_severity_hu"),
            ("severity-total", "total_severity_hu_ml"),
            ("severity-index", "severity_index_hu"),
            ("excess-mass", "excess_mass_g"),
            ("lesion-count", "lesion_count"),
        ):
            assert told[code] == pytest.approx(expected[key], rel=1e-4), (title, code)


def test_the_window_and_the_baseline_are_those_of_the_report(written: Written) -> None:
    told = written.groups["window"]
    exact = written.report["window_level"], written.report["window_width"]
    assert (told.numbers["window-level"], told.numbers["window-width"]) == tuple(map(round, exact))
    assert told.numbers["baseline"] == pytest.approx(written.report["severity_reference_hu"])
    assert set(told.units.values()) == {"[hnsf'U]"}


def test_zones_have_the_shares_and_scores_of_the_report(written: Written) -> None:
    zones = written.report["zones"]["all"]
    assert written.groups["zones"].numbers == {"zones-score": zones["score_0_24"]}
    assert zones["score_0_24"] > 0
    for side in ("right", "left"):
        for zone in ("upper", "middle", "lower"):
            told, expected = written.groups[f"{side} {zone} zone"], zones[f"{side}_{zone}"]
            assert told.numbers["zone-share"] == pytest.approx(expected["share"], abs=1e-6)
            assert told.numbers["zone-score"] == expected["score"]
            assert told.numbers[VOLUME] == pytest.approx(expected["lesion_ml"], rel=1e-5)
            assert told.answers[ZONE] == f"{zone} zone"


def test_rows_of_the_table_refer_to_the_segments_they_lie_in(written: Written) -> None:
    numbers: dict[tuple[str, int], str] = {}
    for product, segments in (
        ("anatomy", written.content.anatomy),
        ("lesions", written.content.lesions),
    ):
        uid = dcmread(written.folder / f"dicom/seg-{product}.dcm").SOPInstanceUID
        numbers |= {(str(uid), n): s.name for n, s in enumerate(segments, 1)}
    assert written.measured.lesions
    for lesion in written.measured.lesions:
        told = written.groups[f"lesion {lesion.lesion_id}"]
        within = {numbers[place] for place in told.segments}
        cells = tuple(slice(*span) for span in lesion.box)
        sets = {
            f"{name.replace('_', '-')} lesions"
            for name in ("visible", "in_patient")
            if written.result.masks[name][cells].any()
        }
        assert f"{lesion.side} lung" in within
        assert within - {"sub-visual lesions", f"{lesion.side} lung"} <= sets
        assert ("visible lesions" in within) == (lesion.visible_share > 0)
        assert ("sub-visual lesions" in within) == (lesion.visible_share < 1)
        assert told.numbers[VOLUME] == pytest.approx(lesion.volume_ml)
        assert told.numbers["severity-median"] == pytest.approx(lesion.median_severity_hu)
        assert told.numbers["103339001"] == pytest.approx(lesion.axial_diameter_mm)
        centre = [told.numbers[f"centre-{axis}"] for axis in ("left", "back", "head")]
        assert centre == pytest.approx(lesion.centroid_mm)
