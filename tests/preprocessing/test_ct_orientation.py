"""Left is left: DICOM, NIfTI in LPS and NIfTI in RAS agree, however the file is stored."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.postprocessing.ct_classifier.gradcam import laterality
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Reorientation, Volume, find_breaks

PHANTOM = chest_ct(7, slices=20, size=48, spacing=(11.0, 7.0, 7.5))
VOLUME = PHANTOM.volume
WAYS = [
    Reorientation((a[0], a[1], a[2]), f)
    for a in permutations(range(3))
    for f in product((False, True), repeat=3)
]


def write_nifti(volume: Volume, path: Path, dtype: type = np.int16) -> None:
    voxels = np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)).astype(dtype)
    image = nibabel.Nifti1Image(voxels, volume.geometry.nifti_affine)
    nibabel.save(image, path)


@pytest.mark.parametrize("way", WAYS[::5] + WAYS[:8])
def test_reorientation_keeps_every_voxel_at_its_place(way: Reorientation) -> None:
    turned = VOLUME.reoriented(way)
    index = (4, 7, 11)
    point = turned.geometry.point(index)
    source = np.linalg.inv(VOLUME.geometry.affine) @ [*point, 1]
    z, y, x = np.rint(source[:3]).astype(int)
    assert source[:3] == pytest.approx([z, y, x], abs=1e-6)
    assert turned.voxels[index] == VOLUME.voxels[z, y, x]
    assert np.array_equal(way.undo(turned.voxels), VOLUME.voxels)
    back = turned.reoriented(turned.geometry.lps_order())
    assert np.array_equal(back.voxels, VOLUME.voxels)
    assert np.allclose(back.geometry.affine, VOLUME.geometry.affine)


@pytest.mark.parametrize("way", [*WAYS[:8], WAYS[13], WAYS[22], WAYS[35], WAYS[44]])
def test_dicom_and_nifti_agree_in_every_stored_order(way: Reorientation, tmp_path: Path) -> None:
    stored = VOLUME.reoriented(way)
    write_dicom_series(stored, tmp_path / "dicom")
    write_nifti(stored, tmp_path / "a.nii")
    write_nifti(stored, tmp_path / "b.nii.gz", np.float32)
    for path in (tmp_path / "dicom", tmp_path / "a.nii", tmp_path / "b.nii.gz"):
        series = open_series(path)
        assert np.array_equal(series.volume().voxels, VOLUME.voxels), path
        assert np.array_equal(series.slice(6), VOLUME.voxels[6]), path
        assert np.allclose(series.geometry.affine, VOLUME.geometry.affine, atol=1e-3), path
        lung = series.reorientation.undo(PHANTOM.lung)
        assert lung.shape == series.stored_geometry.shape
        assert np.diff(series.positions) == pytest.approx(11.0, abs=1e-3)


def test_nifti_in_ras_and_lps_agree(tmp_path: Path) -> None:
    voxels = VOLUME.voxels.transpose(2, 1, 0)
    affine = VOLUME.geometry.nifti_affine
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "lps.nii")
    ras = nibabel.as_closest_canonical(nibabel.load(tmp_path / "lps.nii"))
    assert nibabel.aff2axcodes(affine) == ("L", "P", "S")
    assert nibabel.aff2axcodes(ras.affine) == ("R", "A", "S")
    nibabel.save(ras, tmp_path / "ras.nii")
    assert not np.array_equal(np.asarray(ras.dataobj), voxels)
    for name in ("lps.nii", "ras.nii"):
        assert np.array_equal(open_series(tmp_path / name).volume().voxels, VOLUME.voxels)


def seen_side(series_folder: Path) -> str:
    """Side on which a haze lies, judged by position alone, as a network would."""
    series = open_series(series_folder)
    voxels = series.volume().voxels[10]
    side = np.where(np.arange(voxels.shape[1]) < voxels.shape[1] / 2, 1, 2).astype(np.uint8)
    lung = np.broadcast_to(side, voxels.shape).copy()
    return laterality((voxels == 500).astype(np.float32), lung).dominance


def test_laterality_follows_the_patient_and_not_the_file(tmp_path: Path) -> None:
    marked = np.where(PHANTOM.lung == 1, 500, VOLUME.voxels.clip(-1024, 400)).astype(np.int16)
    patient = Volume(marked, VOLUME.geometry)
    mirrored_patient = Volume(marked[:, :, ::-1].copy(), VOLUME.geometry)
    mirror_file = Reorientation((0, 1, 2), (False, False, True))
    for name, volume, expected in (
        ("patient", patient, "right"),
        ("mirrored patient", mirrored_patient, "left"),
        ("stored from the other side", patient.reoriented(mirror_file), "right"),
        ("both", mirrored_patient.reoriented(mirror_file), "left"),
    ):
        write_dicom_series(volume, tmp_path / name)
        write_nifti(volume, tmp_path / f"{name}.nii")
        assert seen_side(tmp_path / name) == expected, name
        assert seen_side(tmp_path / f"{name}.nii") == expected, name


def test_real_nifti_slice_is_not_mirrored(shared: Path) -> None:
    path = shared / "data/ct-densenet-samples/IM2048_cruda.nii"
    stored = np.asarray(nibabel.load(path).dataobj)[:, :, 0].T
    series = open_series(path)
    assert np.array_equal(series.slice(0), stored)
    assert series.reorientation == Reorientation()
    assert np.diag(series.geometry.affine)[:3] == pytest.approx([0, 0.7265625, 0], abs=1e-6)


def test_nifti_without_orientation_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, tmp_path / "x.nii")
    with pytest.raises(InputError, match="left and right are unknown"):
        open_series(tmp_path / "x.nii")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 8), np.int16, "without a third axis"),
        ((8, 8, 4, 2), np.int16, "no single volume"),
        ((8, 8, 4), np.complex64, "of type complex64"),
        ((8, 8, 3001), np.int16, "more than the limit"),
    ],
)
def test_unusable_nifti_is_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, message: str
) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(InputError, match=message):
        open_series(tmp_path / "x.nii")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_truncated_nifti_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    write_nifti(VOLUME, path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated or damaged"):
        open_series(path).volume()
    path.write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(InputError, match="damaged"):
        open_series(path)


def test_nifti_scaling_missing_values_and_extra_axes(tmp_path: Path) -> None:
    values = np.full((6, 5, 4, 1), 2.25, np.float32)
    values[0, 0, 0] = np.nan
    values[1, 0, 0] = 1e9
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1])), tmp_path / "x.nii")
    plane = open_series(tmp_path / "x.nii").slice(0)
    assert plane.shape == (5, 6)
    assert plane[0, :3].tolist() == [-1024, 32767, 2]


def test_eight_bit_nifti_is_doubted(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.eye(4)), tmp_path / "x.nii")
    assert any("8 bits" in note for note in open_series(tmp_path / "x.nii").notes)


def test_unusable_geometry_is_refused() -> None:
    with pytest.raises(InputError, match="not usable"):
        Geometry.from_steps((2, 2, 2), np.zeros(3), np.diag([1.0, 0.0, 1.0]))
    with pytest.raises(InputError, match="parallel"):
        Geometry.from_steps((2, 2, 2), np.zeros(3), np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(InputError, match="do not fit"):
        Volume(np.zeros((2, 2, 2), np.int16), VOLUME.geometry)


def test_breaks_are_steps_above_one_and_a_half_medians() -> None:
    assert find_breaks([0, 1, 2, 3.5, 4.5]) == ()
    assert find_breaks([0, 1, 2, 3.6, 4.6, 9]) == (2, 4)
    assert find_breaks([5]) == ()
