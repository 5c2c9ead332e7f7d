"""DICOM objects made of masks, numbers and pictures, judged by programs other than Hilum's.

dciodvfy (dicom3tools) knows the standard's tables; dcmqi reads segmentations and reports in C++.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from hilum.preprocessing.phantoms import ct as phantom
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.series import Series, open_series
from hilum.preprocessing.reading.volume import Volume
from hilum.results.nifti import nifti_image, save_nifti

pytest.importorskip("highdicom")

from dicom_content import AXES, PROVENANCE, content, geometry, made_series, masks, one_file, walk
from dicom_judges import assert_valid, complaints, tabled

from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Segment
from hilum.results.dicom.writer import Choice, write_objects


def test_every_object_is_valid_by_dicom3tools(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools is not installed")
    series = made_series(tmp_path / "in")
    choice = Choice(parametric_map=True)
    names = write_objects(content(series), series.files, PROVENANCE, tmp_path, choice)
    assert len(names) == 4 + 6 + 1 + 1 + 1
    assert_valid([*(tmp_path / name for name in names), *series.files])


def test_the_tables_of_the_standard_find_what_lacks_and_what_is_foreign(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    write_objects(content(series), series.files, PROVENANCE, tmp_path)
    for path in (tmp_path / "dicom/enhanced/0002.dcm", tmp_path / "dicom/picture-1.dcm"):
        assert tabled(path) == []
        broken = dcmread(path)
        del broken[next(k for k in ("ConversionType", "RescaleSlope") if k in broken)]
        broken.EchoTime = 3
        broken.ContributingEquipmentSequence[0].Manufacturer = None
        broken.save_as(tmp_path / "broken.dcm")
        assert len(tabled(tmp_path / "broken.dcm")) == 3


def test_objects_of_a_file_of_several_frames_are_valid_as_it_is(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools is not installed")
    single = made_series(tmp_path / "in", "oblique")
    one_file([single.files[i] for i in (3, 0, 5, 1, 4, 2)], tmp_path / "whole.dcm")
    series = open_series(tmp_path / "whole.dcm")
    given = content(series)
    heat = given.lesions[0].mask * np.uint8(200)
    known = replace(given, lesions=[replace(given.lesions[0], probability=heat)])
    choice = Choice(parametric_map=True, probability=True)
    names = write_objects(known, series.files, PROVENANCE, tmp_path, choice)
    assert len(names) == 8
    assert_valid([*(tmp_path / name for name in names), tmp_path / "whole.dcm"])


def test_generated_studies_are_valid_dicom(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools is not installed")
    xray = chest_xray(3, height=320, width=320, severity=1.0)
    write_dicom(xray, tmp_path / "xray.dcm", window=(2048, 4096))
    series = write_dicom_series(phantom.chest_ct(1, slices=3, size=48).volume, tmp_path / "ct")
    assert_valid(series)
    assert_valid([tmp_path / "xray.dcm"])


def test_dcmqi_reads_the_report_with_the_same_numbers(tmp_path: Path) -> None:
    reader = shutil.which("tid1500reader", path=str(Path(sys.executable).parent))
    reader = reader or shutil.which("tid1500reader")
    if reader is None:
        pytest.skip("dcmqi is not installed")
    series = made_series(tmp_path / "in")
    given = content(series)
    write_objects(given, series.files, PROVENANCE, tmp_path)
    done = subprocess.run(
        [reader, "--inputDICOM", str(tmp_path / "dicom/report.dcm"), "--outputMetadata",
         str(tmp_path / "report.json")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    groups = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    volumes = {
        group["TrackingIdentifier"]: float(item["value"])
        for group in groups
        for item in group.get("measurementItems", [])
    }
    for finding in given.findings:
        if finding.segment is not None:
            assert volumes[finding.name] == pytest.approx(finding.quantities[0].value, rel=1e-5)


@pytest.mark.parametrize("kind", ["axial", "oblique"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]])
def test_dcmqi_sees_masks_of_a_file_of_several_frames(
    tmp_path: Path, kind: str, order: list[int]
) -> None:
    single = made_series(tmp_path / "in", kind)
    one_file([single.files[i] for i in order], tmp_path / "whole.dcm")
    series = open_series(tmp_path / "whole.dcm")
    assert_dcmqi_sees_lungs(series, tmp_path)
    report = dcmread(tmp_path / "dicom/report.dcm")
    (frame,) = (
        item.ReferencedFrameNumber for item in walk(report) if "ReferencedFrameNumber" in item
    )
    assert frame == series.frames[2] + 1


def test_masks_of_uneven_slices_lie_on_their_own_slices(tmp_path: Path) -> None:
    import highdicom as hd

    source = made_series(tmp_path / "in")
    for number, path in enumerate(source.files):
        dataset = dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + (number > 3) * 1.7]
        dataset.save_as(path)
    series = open_series(tmp_path / "in")
    assert not series.even
    write_objects(content(series), series.files, PROVENANCE, tmp_path)
    made = hd.seg.segread(tmp_path / "dicom/seg-anatomy.dcm")
    headers = [dcmread(path, stop_before_pixels=True) for path in series.files]
    heights = [float(header.ImagePositionPatient[2]) for header in headers]
    for number, name in enumerate(("right lung", "left lung"), 1):
        expected = {
            height: int(plane.sum())
            for height, plane in zip(heights, masks(series)[name], strict=True)
            if plane.any()
        }
        found = {}
        for frame, plane in zip(
            made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True
        ):
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
                place = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
                found |= {place: int(plane.sum())} if plane.any() else {}
        assert found == pytest.approx(expected)
    # One affine has one step, so dcmqi's and ours place slices within the largest irregularity.
    assert_dcmqi_sees_lungs(series, tmp_path, within=1.7)


@pytest.mark.parametrize("kind", AXES)
def test_dcmqi_sees_each_mask_where_the_nifti_has_it(tmp_path: Path, kind: str) -> None:
    assert_dcmqi_sees_lungs(made_series(tmp_path / "in", kind), tmp_path)


def assert_dcmqi_sees_lungs(series: Series, folder: Path, within: float = 0.01) -> None:
    """Write objects and NIfTI files of a series; both have the lungs in one place (mm)."""
    dcmqi = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    dcmqi = dcmqi or shutil.which("segimage2itkimage")
    if dcmqi is None:
        pytest.skip("dcmqi is not installed")
    write_objects(content(series), series.files, PROVENANCE, folder)
    out = folder / "read"
    out.mkdir()
    done = subprocess.run(
        [dcmqi, "--inputDICOM", str(folder / "dicom/seg-anatomy.dcm"), "--outputDirectory",
         str(out), "--outputType", "nifti", "--prefix", "s"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    described = json.loads((out / "s-meta.json").read_text())
    assert len(described["segmentAttributes"]) == 2  # the empty heart is left out
    for number, name in enumerate(("right lung", "left lung"), 1):
        ours = folder / f"{number}.nii.gz"
        save_nifti(nifti_image(masks(series)[name], series.stored_geometry), ours)
        expected, found = (nib.load(path) for path in (ours, out / f"s-{number}.nii.gz"))
        np.testing.assert_allclose(points(found), points(expected), atol=within)


def points(image: nib.Nifti1Image) -> np.ndarray:
    """Places of the voxels of a mask in patient space, sorted."""
    voxels = np.argwhere(np.asarray(image.dataobj) > 0)
    places = nib.affines.apply_affine(image.affine, voxels)
    return places[np.lexsort(np.round(places, 1).T)]


def test_numbers_of_the_report_are_those_that_were_given(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    given = content(series)
    write_objects(given, series.files, PROVENANCE, tmp_path)
    report = dcmread(tmp_path / "dicom/report.dcm")
    values = sorted(
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in walk(report)
        if item.get("ValueType") == "NUM"
    )
    expected = sorted(q.value for finding in given.findings for q in finding.quantities)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.PreliminaryFlag == "PRELIMINARY"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*.dcm"))
    }


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    for name in ("a", "b"):
        write_objects(content(series), series.files, PROVENANCE, tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    other = replace(PROVENANCE, key="f" * 64)
    write_objects(content(series), series.files, other, tmp_path / "c")
    uids = [
        {str(dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in f.rglob("*.dcm")}
        for f in (tmp_path / "a", tmp_path / "c")
    ]
    assert not uids[0] & uids[1]


@pytest.mark.filterwarnings("error")
def test_patient_and_study_are_taken_over_as_they_are(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    for path in series.files:
        dataset = dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName, dataset.PatientID = "Müller^Jürgen", "0815"
        dataset.save_as(path)
    names = write_objects(content(series), series.files, PROVENANCE, tmp_path)
    for name in names:
        made = dcmread(tmp_path / name, stop_before_pixels=True)
        assert str(made.PatientName) == "Müller^Jürgen"
        assert made.PatientID == "0815"
        assert made.StudyInstanceUID == dcmread(series.files[0]).StudyInstanceUID
        assert "RESEARCH ONLY" in made.SeriesDescription
        assert "ller" not in name


def test_values_of_the_enhanced_series_come_back(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    given = content(series)
    write_objects(given, series.files, PROVENANCE, tmp_path)
    assert given.enhanced is not None
    for index, path in enumerate(sorted((tmp_path / "dicom/enhanced").glob("*.dcm"))):
        made, source = dcmread(path), dcmread(series.files[index])
        found = made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)
        np.testing.assert_allclose(found, given.enhanced.voxels[index], atol=5 / 4095)
        assert made.ImagePositionPatient == source.ImagePositionPatient
        assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert made.RescaleType == "US"


def test_labels_in_one_map_are_the_same_masks(tmp_path: Path) -> None:
    import highdicom as hd

    series = made_series(tmp_path / "in")
    write_objects(
        content(series), series.files, PROVENANCE, tmp_path, Choice(segmentation="labelmap")
    )
    made = hd.seg.segread(tmp_path / "dicom/seg-anatomy.dcm")
    assert made.SegmentationType == "LABELMAP"
    counts = np.bincount(made.pixel_array.ravel(), minlength=3)
    found = masks(series)
    assert counts[1:].tolist() == [found["right lung"].sum(), found["left lung"].sum()]


def test_lesions_that_overlap_are_binary_though_one_map_was_asked_for(tmp_path: Path) -> None:
    import highdicom as hd

    series = made_series(tmp_path / "in")
    given = content(series)
    wide = replace(given.lesions[0], name="in-patient", mask=masks(series)["right lung"])
    both = replace(given, lesions=(*given.lesions, wide))
    write_objects(both, series.files, PROVENANCE, tmp_path, Choice(segmentation="labelmap"))
    made = hd.seg.segread(tmp_path / "dicom/seg-lesions.dcm")
    assert made.SegmentationType == "BINARY"
    counts = made.pixel_array.reshape(2, -1).sum(axis=1)
    assert counts.tolist() == [np.count_nonzero(s.mask) for s in both.lesions]


def test_masks_that_overlap_take_few_bytes_a_voxel(tmp_path: Path) -> None:
    """Four masks of a series of 300 slices of 512² are written within 1 GB."""
    shape = (24, 256, 256)
    hu = np.zeros(shape, np.int16)
    write_dicom_series(Volume(hu, geometry("axial", shape), ()), tmp_path / "in")
    mask = np.zeros(shape, np.uint8)
    mask[2:20, 30:220, 30:220] = 1
    wide = {"category": codes.ANATOMY, "type": codes.LUNG, "colour": (1, 2, 3)}
    given = Content(
        system="dlpe", procedure=codes.CT_CHEST,
        anatomy=[Segment(name=f"mask {n}", mask=np.roll(mask, n, 1), **wide) for n in range(4)],
    )  # fmt: skip
    files = open_series(tmp_path / "in").files
    write_objects(given, files, PROVENANCE, tmp_path)  # highdicom loads its tables
    tracemalloc.start()
    write_objects(given, files, PROVENANCE, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made = dcmread(tmp_path / "dicom/seg-anatomy.dcm")
    assert made.SegmentsOverlap == "YES"
    assert peak / hu.size < 9


def test_probabilities_come_back_from_a_fractional_object(tmp_path: Path) -> None:
    import highdicom as hd

    series = made_series(tmp_path / "in")
    given = content(series)
    heat = np.random.default_rng(1).integers(0, 256, given.lesions[0].mask.shape).astype(np.uint8)
    heat[4:] = 0
    known = replace(given, lesions=[replace(given.lesions[0], probability=heat)])
    names = write_objects(known, series.files, PROVENANCE, tmp_path, Choice(probability=True))
    assert "dicom/seg-probability.dcm" in names
    made = hd.seg.segread(tmp_path / "dicom/seg-probability.dcm")
    assert made.SegmentationFractionalType == "PROBABILITY"
    uids = [str(dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in series.files]
    read = made.get_pixels_by_source_instance(
        uids, segment_numbers=[1], rescale_fractional=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_allclose(read[..., 0] * 255, heat, atol=1e-3)
    if shutil.which("dciodvfy"):
        assert complaints(tmp_path / "dicom/seg-probability.dcm") == []


def test_a_surface_and_a_parametric_map_hold_what_was_given(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    series = made_series(tmp_path / "in")
    given = content(series)
    write_objects(given, series.files, PROVENANCE, tmp_path, Choice(parametric_map=True))
    made = dcmread(tmp_path / "dicom/surfaces/visible.dcm")
    assert made.FrameOfReferenceUID == dcmread(series.files[0]).FrameOfReferenceUID
    stored = made.EncapsulatedDocument[: made.EncapsulatedDocumentLength]
    mesh = trimesh.load(io.BytesIO(stored), file_type="stl")
    (surface,) = given.surfaces
    assert mesh.is_watertight
    assert mesh.volume / 1000 == pytest.approx(surface.volume_ml, rel=1e-5)
    mapped = dcmread(tmp_path / "dicom/parametric-map.dcm")
    assert given.enhanced is not None
    frames = np.frombuffer(mapped.FloatPixelData, "<f4").reshape(given.enhanced.voxels.shape)
    places = [
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in mapped.PerFrameFunctionalGroupsSequence
    ]
    for path, expected in zip(series.files, given.enhanced.voxels, strict=True):
        place = tuple(dcmread(path, stop_before_pixels=True).ImagePositionPatient)
        np.testing.assert_array_equal(frames[places.index(place)], expected)


def test_a_generated_chest_keeps_its_lungs(tmp_path: Path) -> None:
    """Sums of voxels of a real shape, read back by highdicom."""
    import highdicom as hd

    made = phantom.chest_ct(1, slices=12, size=48)
    write_dicom_series(made.volume, tmp_path / "in")
    series = open_series(tmp_path / "in")
    lung = series.reorientation.undo(made.lung)
    given = Content(
        system="lungmask",
        procedure=codes.CT_CHEST,
        anatomy=[
            Segment(name=name, mask=lung == label, category=codes.ANATOMY, type=codes.LUNG,
                    colour=(1, 2, 3))
            for label, name in ((1, "right lung"), (2, "left lung"))
        ],
    )  # fmt: skip
    write_objects(given, series.files, PROVENANCE, tmp_path)
    read = hd.seg.segread(tmp_path / "dicom/seg-anatomy.dcm")
    for number in (1, 2):
        frames = read.get_pixels_by_source_instance(
            [str(dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in series.files],
            segment_numbers=[number],
        )
        np.testing.assert_array_equal(frames[..., 0], (lung == number).astype(np.uint8))
