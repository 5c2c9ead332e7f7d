"""CT series: which slices are read, in which order, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import VOLUME, edit, edit_all, files
from pydicom.uid import RLELossless, generate_uid

from hilum.catalog.errors import InputError
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading import ct_headers, ct_pixels, ct_stack
from hilum.preprocessing.reading.series import list_series, open_series
from hilum.preprocessing.reading.volume import Geometry, Volume


def error_of(path: Path, **options: int | str) -> str:
    """Message with which a series is refused; it must not identify anybody or any file."""
    with pytest.raises(InputError) as refused:
        open_series(path, **options).volume()
    message = str(refused.value)
    for secret in ("PHANTOM", "1.2.826", str(path), ".dcm"):
        assert secret not in message
    return message


def test_a_series_comes_back_as_it_was_written(folder: Path) -> None:
    series = open_series(folder)
    volume = series.volume()
    assert np.array_equal(volume.voxels, VOLUME.voxels)
    assert volume.voxels.dtype == np.int16
    assert np.allclose(volume.geometry.affine, VOLUME.geometry.affine, atol=1e-4)
    assert (len(series), series.notes, series.breaks, series.kind) == (12, (), (), "DICOM")
    assert series.numbers == tuple(range(12, 0, -1))
    assert all(np.array_equal(a, b) for a, b in zip(series, VOLUME.voxels, strict=True))
    assert np.diff(series.positions) == pytest.approx(VOLUME.geometry.spacing[0])
    with pytest.raises(IndexError):
        series.slice(12)


def test_names_duplicates_and_strangers_do_not_matter(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "deep" / "er").mkdir(parents=True)
    for path, name in zip(files(folder), rng.permutation(12), strict=True):
        path.rename(folder / "deep" / f"x{name:02d}")
    shutil.copy(folder / "deep" / "x03", folder / "deep" / "er" / "again.dcm")
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty.dcm").touch()
    series = open_series(folder)
    assert np.array_equal(series.volume().voxels, VOLUME.voxels)
    assert any("2 file(s) that are no DICOM" in note for note in series.notes)
    assert any("1 slice(s) at the place of another" in note for note in series.notes)


def test_localisers_are_left_out(folder: Path) -> None:
    edit(files(folder)[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=20)
    series = open_series(folder)
    assert len(series) == 11
    assert "1 localiser(s) were left out" in series.notes


def test_the_larger_of_two_series_is_chosen_and_either_can_be_named(folder: Path) -> None:
    small = Volume(
        VOLUME.voxels[:5],
        Geometry(
            (5, 40, 40), VOLUME.geometry.origin, VOLUME.geometry.spacing, VOLUME.geometry.direction
        ),
    )
    paths = write_dicom_series(small, folder, series_number=2)
    assert len(open_series(folder)) == 12
    assert any("one of 2 series" in note for note in open_series(folder).notes)
    assert [info.slices for info in list_series(folder)] == [12, 5]
    assert len(open_series(folder, series=2)) == 5
    assert len(open_series(folder, series="2")) == 5
    assert len(open_series(folder, series=pydicom.dcmread(paths[0]).SeriesInstanceUID)) == 5
    assert "1: CT, 12 slices" in error_of(folder, series=3)
    assert len(open_series(paths)) == 5
    assert len(open_series(paths[0])) == 1


def test_series_of_equal_claims_are_not_chosen_between(folder: Path) -> None:
    write_dicom_series(VOLUME, folder, series_number=2)
    assert "equal claims" in error_of(folder)
    for path in folder.glob("PHANTOM_2*"):
        edit(path, BodyPartExamined="HEAD")
    assert open_series(folder).numbers[0] == 12


def test_a_gap_is_reported(folder: Path) -> None:
    for path in files(folder)[4:6]:
        path.unlink()
    series = open_series(folder)
    assert series.breaks == (5,)
    assert any("1 gap(s)" in note for note in series.notes)
    assert series.flags == ("uneven_slices",)
    # In equal steps from the first slice to the last, which both lie where they do.
    assert series.geometry.spacing[0] == pytest.approx(VOLUME.geometry.spacing[0] * 11 / 9)
    assert np.allclose(series.geometry.point((9, 0, 0)), VOLUME.geometry.point((11, 0, 0)))


def test_uneven_and_shifted_slices_are_reported(folder: Path) -> None:
    path = files(folder)[5]
    place = list(pydicom.dcmread(path).ImagePositionPatient)
    edit(path, ImagePositionPatient=[place[0] + 5, place[1], place[2] + 4])
    notes = open_series(folder).notes
    assert any("uneven slices" in note for note in notes)
    assert any("shifted against each other" in note for note in notes)


def test_a_tilted_gantry_is_reported(tmp_path: Path) -> None:
    angle = np.radians(15)
    tilted = Geometry(
        VOLUME.geometry.shape,
        VOLUME.geometry.origin,
        VOLUME.geometry.spacing,
        ((0.0, float(np.sin(angle)), float(np.cos(angle))), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    write_dicom_series(Volume(VOLUME.voxels, tilted), tmp_path)
    series = open_series(tmp_path)
    assert series.tilt == pytest.approx(15, abs=0.01)
    assert any("tilted by 15.0°" in note for note in series.notes)
    assert np.allclose(series.geometry.affine, tilted.affine, atol=1e-4)
    assert np.array_equal(series.volume().voxels, VOLUME.voxels)


@pytest.mark.parametrize(("intercept", "signed"), [(0, True), (-1024, True), (-2000, False)])
def test_intercepts(tmp_path: Path, intercept: int, signed: bool) -> None:
    write_dicom_series(VOLUME, tmp_path, intercept=intercept)
    if not signed:
        edit_all(tmp_path, PixelRepresentation=0)
    assert np.array_equal(open_series(tmp_path).volume().voxels, VOLUME.voxels)


def test_a_fractional_slope_is_rounded(folder: Path) -> None:
    edit_all(folder, RescaleSlope="0.5", RescaleIntercept="-1000.25")
    expected = np.rint((VOLUME.voxels[0].astype(float) + 1024) * 0.5 - 1000.25)
    assert np.array_equal(open_series(folder).slice(0), expected)


def test_padding_above_every_tissue_becomes_air(folder: Path) -> None:
    for path in files(folder):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.copy()
        pixels[:3] = 30000
        dataset.PixelData = pixels.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", 30000)
        dataset.save_as(path)
    plane = open_series(folder).slice(6)
    assert (plane[:3] == -1024).all()
    assert np.array_equal(plane[3:], VOLUME.voxels[6][3:])


def enhanced(source: list[Path]) -> pydicom.Dataset:
    """One multi-frame file of single-frame ones, in the order given."""
    parts = [pydicom.dcmread(path) for path in source]
    whole = pydicom.dcmread(source[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
        "RescaleSlope", "RescaleIntercept", "InstanceNumber",
    ):  # fmt: skip
        delattr(whole, keyword)
    whole.NumberOfFrames = len(parts)
    shared, frames = pydicom.Dataset(), []
    for group, keywords in {
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    }.items():
        item = pydicom.Dataset()
        for keyword in keywords:
            setattr(item, keyword, parts[0][keyword].value)
        setattr(shared, group, [item])
    for part in parts:
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = part.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = frames
    whole.PixelData = b"".join(part.PixelData for part in parts)
    return whole


@pytest.mark.parametrize("compressed", [False, True])
def test_enhanced_multiframe(folder: Path, tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(1)
    source = files(folder)
    whole = enhanced([source[i] for i in rng.permutation(12)])
    if compressed:
        whole.compress(RLELossless)
    path = tmp_path / "enhanced.dcm"
    whole.save_as(path)
    series = open_series(path)
    assert np.array_equal(series.volume().voxels, VOLUME.voxels)
    assert np.allclose(series.geometry.affine, VOLUME.geometry.affine, atol=1e-4)


def test_a_file_of_several_frames_may_have_so_many_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "enhanced.dcm"
    enhanced(files(folder)).save_as(path)
    size = path.stat().st_size
    monkeypatch.setattr(ct_pixels, "MAX_MULTIFRAME_BYTES", size)
    assert open_series(path).slice(0).shape == VOLUME.geometry.shape[1:]
    monkeypatch.setattr(ct_pixels, "MAX_MULTIFRAME_BYTES", size - 1)
    with pytest.raises(InputError, match="more than the limit"):
        open_series(path).slice(0)


def test_slices_are_decoded_only_when_asked_for(folder: Path) -> None:
    path = files(folder)[3]
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.PixelData = dataset.PixelData[:80] + bytes(len(dataset.PixelData) - 80)
    dataset.save_as(path)
    series = open_series(folder)
    assert np.array_equal(series.slice(0), VOLUME.voxels[0])
    with pytest.raises(InputError, match=r"slice 4 of 12 from the head \(file 4 in"):
        series.slice(8)
    assert np.array_equal(series.slice(11), VOLUME.voxels[11])


def test_a_file_with_a_damaged_header_is_left_out_and_named(folder: Path) -> None:
    path = files(folder)[0]
    path.write_bytes(path.read_bytes()[:400])
    series = open_series(folder)
    assert len(series) == 11
    assert any("left out" in note for note in series.notes)


REFUSED = {
    "no slope": ({"RescaleSlope": None}, "RescaleSlope or RescaleIntercept"),
    "no intercept": ({"RescaleIntercept": None}, "RescaleSlope or RescaleIntercept"),
    "slope zero": ({"RescaleSlope": 0}, "RescaleSlope or RescaleIntercept"),
    "no orientation": ({"ImageOrientationPatient": None}, "left and right are unknown"),
    "no position": ({"ImagePositionPatient": None}, "order of the slices"),
    "no spacing": ({"PixelSpacing": None}, "no PixelSpacing"),
    "MR": (
        {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
        "no CT series; there are: 1: MR, 12 slices",
    ),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME2"),
    "too wide": ({"Columns": 60000, "Rows": 60000}, "more than the limit|shorter"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_series_are_refused(folder: Path, case: str) -> None:
    changes, message = REFUSED[case]
    edit_all(folder, **changes)
    with pytest.raises(InputError, match=message):
        open_series(folder)
    error_of(folder)


ONE_BAD_SLICE = {
    "other size": ({"Rows": 20}, "different sizes"),
    "other spacing": ({"PixelSpacing": [3, 3]}, "different pixel spacing"),
    "other orientation": ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation"),
    "no rescale": ({"RescaleSlope": None}, "file 5 in the order of names"),
}


@pytest.mark.parametrize("case", ONE_BAD_SLICE)
def test_one_bad_slice_is_refused(folder: Path, case: str) -> None:
    changes, message = ONE_BAD_SLICE[case]
    edit(files(folder)[4], **changes)
    assert message in error_of(folder)


def test_a_truncated_file_is_refused_before_anything_is_decoded(folder: Path) -> None:
    path = files(folder)[2]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="file 3 in the order of names: shorter"):
        open_series(folder)


def test_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_stack, "MAX_VOXELS", 12 * 40 * 40 - 1)
    assert "voxels" in error_of(folder)
    monkeypatch.setattr(ct_stack, "MAX_SLICES", 11)
    assert "12 slices, more than the limit of 11" in error_of(folder)
    monkeypatch.setattr(ct_headers, "MAX_FILES", 11)
    assert "more than 11 files" in error_of(folder)


def test_nothing_usable(tmp_path: Path) -> None:
    assert "no such file or folder" in error_of(tmp_path / "missing")
    assert "no DICOM images among 0 file(s)" in error_of(tmp_path)
    (tmp_path / "x.nii.gz").touch()
    assert "1 NIfTI file(s)" in error_of(tmp_path)


def test_a_single_slice_needs_no_position(folder: Path) -> None:
    path = files(folder)[0]
    edit(path, ImagePositionPatient=None, SOPInstanceUID=generate_uid())
    series = open_series(path)
    assert len(series) == 1
    assert series.notes == ("the slice has no position; it is taken as 0",)
    assert series.geometry.spacing[0] == pytest.approx(VOLUME.geometry.spacing[0])


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_refused_or_read(folder: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = files(folder)[0].read_bytes()
    path = tmp_path / "damaged"
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(6):
            data[rng.integers(132, 1100)] = rng.integers(256)
        path.write_bytes(data)
        try:
            open_series(path).volume()
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_frames_without_description_are_left_out(folder: Path) -> None:
    edit(files(folder)[0], NumberOfFrames=2_000_000_000)
    assert len(open_series(folder)) == 11
