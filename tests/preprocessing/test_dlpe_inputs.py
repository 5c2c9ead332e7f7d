"""What DLPE takes for a scan: odd and bad series, and volumes that come normalised."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from ct_files import VOLUME, edit, files
from pydicom.uid import RLELossless, generate_uid

from hilum.catalog.errors import InputError
from hilum.preprocessing.dlpe import ready as dlpe_ready
from hilum.preprocessing.dlpe.source import as_published, by_position
from hilum.preprocessing.dlpe.space import normalise, read_normalised, to_source
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading import ct_headers
from hilum.preprocessing.reading.ct_stack import in_order
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Reorientation, Volume


def published_error(folder: Path) -> str:
    """Message with which mode parity refuses what mode corrected takes."""
    assert normalise(open_series(folder), "corrected", 16).voxels.shape == (16, 16, 16)
    with pytest.raises(InputError) as refused:
        normalise(open_series(folder), "parity", 16)
    message = str(refused.value)
    assert "choose mode corrected" in message
    for secret in ("PHANTOM", "1.2.826", str(folder), ".dcm"):
        assert secret not in message
    return message


def test_fractional_slopes_keep_their_fractions(folder: Path) -> None:
    for i, path in enumerate(files(folder)):
        edit(path, RescaleSlope=f"0.{i + 1:02d}", RescaleIntercept="-100.25")
    for make in (as_published, by_position):
        source = make(open_series(folder))
        for z in range(12):
            slope = (12 - z) / 100  # the lowest slice has the largest number
            stored = VOLUME.voxels[z].astype(float) + 1024
            expected = (stored * slope - 100.25).astype(np.float32)
            assert np.array_equal(source.plane(z), expected)


def test_parity_neither_limits_nor_treats_padding(folder: Path) -> None:
    for path in files(folder):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.copy()
        pixels[:3], pixels[3:6], pixels[6:9] = -2000, 30000, 1024
        dataset.PixelData = pixels.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", 30000)
        dataset.save_as(path)
    edit(files(folder)[0], RescaleSlope=4)
    published, corrected = (f(open_series(folder)) for f in (as_published, by_position))
    assert [published.plane(5)[i, 0] for i in (0, 3, 6)] == [-3024, 28976, 0]
    # More than 16 bits hold: the slice with slope 4.
    assert [published.plane(11)[i, 0] for i in (0, 3)] == [-9024, 118976]
    assert [corrected.plane(5)[i, 0] for i in (0, 3, 6)] == [-1024, -1024, 0]
    edit(files(folder)[6], PixelPaddingValue=1024)
    # Padding is what the file says it is, though tissue may have the value, too.
    assert by_position(open_series(folder)).plane(5)[6, 0] == -1024


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({4: None}, "1 of 12 slices have no InstanceNumber"),
        ({4: 4}, "InstanceNumber 4 occurs more than once"),
        ({11: 13}, r"not consecutive \(12 missing\)"),
        ({11: 2_000_000_000}, r"not consecutive \(12, 13, 14, 15, 16 …"),
    ],
)
def test_unusable_numbers(folder: Path, numbers: dict[int, Any], message: str) -> None:
    for index, number in numbers.items():
        edit(files(folder)[index], InstanceNumber=number)
    with pytest.raises(InputError, match=message):
        as_published(open_series(folder))
    published_error(folder)


def test_missing_thickness(folder: Path) -> None:
    for path in files(folder):
        edit(path, SliceThickness=None)
    assert "no SliceThickness (0018,0050)" in published_error(folder)


def test_spacing_is_that_of_the_first_file(folder: Path) -> None:
    for i, path in enumerate(files(folder)):
        edit(path, SliceThickness=f"{3 + i}")
    assert as_published(open_series(folder)).spacing[2] == 3


def test_copies_are_left_out_and_second_acquisitions_refused(folder: Path) -> None:
    (folder / "copy.dcm").write_bytes(files(folder)[2].read_bytes())
    assert len(as_published(open_series(folder)).geometry.shape) == 3
    edit(folder / "copy.dcm", InstanceNumber=13, SOPInstanceUID=generate_uid())
    assert "1 slice(s) with InstanceNumbers of their own" in published_error(folder)
    assert "(number 13)" in published_error(folder)


def test_multi_frame_files(folder: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(files(folder)[0])
    parts = [pydicom.dcmread(path) for path in files(folder)]
    dataset.NumberOfFrames, dataset.PixelData = 12, b"".join(p.PixelData for p in parts)
    frames = []
    for part in parts:
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = part.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.save_as(tmp_path / "enhanced.dcm")
    assert "a file of several slices" in published_error(tmp_path / "enhanced.dcm")
    whole = normalise(open_series(tmp_path / "enhanced.dcm"), "corrected", 64)
    assert np.array_equal(whole.voxels, normalise(open_series(folder), "corrected", 64).voxels)


def test_five_thousand_slices_are_refused(folder: Path) -> None:
    group = ct_headers.scan(files(folder)).groups[0]
    frames = [dataclasses.replace(group.frames[0], number=i) for i in range(5000)]
    with pytest.raises(InputError, match="5000 slices, more than the limit of 3000"):
        in_order(dataclasses.replace(group, frames=tuple(frames)))


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_damaged_slice_in_a_good_series(folder: Path, mode: Any) -> None:
    path = files(folder)[3]
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.PixelData = dataset.PixelData[:80] + bytes(len(dataset.PixelData) - 80)
    dataset.save_as(path)
    with pytest.raises(
        InputError, match=r"slice 4 of 12 from the head \(file 4 in the order of names\)"
    ):
        normalise(open_series(folder), mode, 64)


def test_reports_of_a_tilted_gantry_in_the_published_way(tmp_path: Path) -> None:
    geometry = dataclasses.replace(
        VOLUME.geometry,
        direction=((0.0, 0.26, (1 - 0.26**2) ** 0.5), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    write_dicom_series(Volume(VOLUME.voxels, geometry), tmp_path)
    published = as_published(open_series(tmp_path))
    assert any("gantry was tilted" in note for note in published.notes)
    assert all(np.array_equal(published.plane(z), VOLUME.voxels[z]) for z in range(12))
    assert normalise(open_series(tmp_path), "parity", 64).space.straight
    assert not normalise(open_series(tmp_path), "corrected", 64).space.straight


def test_a_series_that_is_not_axial_in_both_modes(tmp_path: Path) -> None:
    coronal = VOLUME.reoriented(Reorientation((1, 0, 2), (False, True, False)))
    write_dicom_series(coronal, tmp_path)
    upright = normalise(open_series(tmp_path), "corrected", 64)
    assert np.abs(upright.voxels - normalise(VOLUME, "corrected", 64).voxels).max() < 1e-6
    published = normalise(open_series(tmp_path), "parity", 64)
    assert any("mode corrected turns the scan" in note for note in published.notes)
    assert published.space.source_shape == (12, 40, 40)


def save(path: Path, array: np.ndarray, **others: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, array=array, **others)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ready_volumes(tmp_path: Path, suffix: str, dtype: type) -> None:
    values = np.linspace(-0.5, 1, 32**3).reshape(32, 32, 32).astype(dtype)
    ready = read_normalised(save(tmp_path / f"ready{suffix}", np.asfortranarray(values)))
    assert (ready.voxels.dtype, ready.voxels.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(ready.voxels, values.astype(np.float32))
    assert ready.space.voxel_mm == pytest.approx((334 / 32, 334 / 32, 16))
    assert ready.geometry.spacing == pytest.approx((16, 334 / 32, 334 / 32))
    assert ready.geometry.point((15.5, 15.5, 15.5)) == pytest.approx([0, 0, 0])
    back = to_source(ready.voxels, ready.space, "linear")
    assert np.array_equal(back, ready.voxels.transpose(2, 0, 1))
    assert any("came normalised" in note for note in ready.notes)


def test_ready_volumes_of_other_shapes_have_the_published_voxels(tmp_path: Path) -> None:
    ready = read_normalised(save(tmp_path / "x.npy", np.zeros((48, 32, 16), np.float32)))
    assert ready.space.voxel_mm == pytest.approx((334 / 512, 334 / 512, 1))
    assert ready.geometry.shape == (16, 48, 32)
    assert to_source(ready.voxels, ready.space).shape == (16, 48, 32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((32, 32), np.float32), r"\[32, 32\] is no normalised volume"),
        (np.zeros((32, 32, 33), np.float32), "multiples of 16"),
        (np.zeros((2048, 16, 16), np.float32), "up to 1024"),
        (np.zeros((0, 16, 16), np.float32), "multiples of 16"),
        (np.zeros((16, 16, 16), np.int16), "an array of int16"),
        (np.full((16, 16, 16), -1000, np.float32), "values from -1000 to -1000 are not normalised"),
        (np.full((16, 16, 16), np.nan, np.float32), "are not normalised"),
    ],
    ids=["2-D", "33", "2048", "empty", "int16", "HU", "nan"],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    for suffix in (".npy", ".npz"):
        with pytest.raises(InputError, match=message):
            read_normalised(save(tmp_path / f"x{suffix}", array))


def test_unreadable_arrays_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", np.zeros((16, 16, 16), np.float32))
    whole = path.read_bytes()
    for name, data in {
        "cut.npy": whole[:5000],
        "header.npy": whole[:20],
        "text.npy": b"not an array",
        "text.npz": b"not an archive",
        "empty.npz": b"",
        "version.npy": b"\x93NUMPY\x09\x00" + whole[8:],
        "shape.npy": whole.replace(b"(16, 16, 16)", b"(16, 16,(16 "),
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="no readable"):
            read_normalised(tmp_path / name)
    np.savez(tmp_path / "other.npz", volume=np.zeros((16, 16, 16), np.float32))
    with pytest.raises(InputError, match="the key 'array'"):
        read_normalised(tmp_path / "other.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"\[1\] is no normalised volume"):
        read_normalised(tmp_path / "pickled.npy")
    with pytest.raises(InputError, match="no such file"):
        read_normalised(tmp_path / "absent.npy")


def test_declared_size_is_checked_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "x.npz", np.zeros((16, 16, 16), np.float32))
    with zipfile.ZipFile(path) as archive:
        whole = archive.read("array.npy")
    with zipfile.ZipFile(path, "w") as archive:
        huge = whole.replace(b"(16, 16, 16), }    ", b"(160016, 16, 16), }")
        archive.writestr("array.npy", huge)
    monkeypatch.setattr(dlpe_ready.npy, "read_array", lambda *a, **k: pytest.fail("was read"))
    with pytest.raises(InputError, match=r"\[160016, 16, 16\]"):
        read_normalised(path)
