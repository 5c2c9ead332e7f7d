"""NIfTI headers: two forms that disagree, units, and results that keep both forms."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading import nifti
from hilum.preprocessing.reading.series import Series, open_series
from hilum.results.nifti import nifti_image, save_nifti

AFFINE = np.array([[-1.2, 0, 0, 40], [0, -1.5, 0, 55], [0, 0, 2.0, -100], [0, 0, 0, 1]])
DATA = np.random.default_rng(0).integers(-1000, 400, (30, 32, 10)).astype(np.int16)


def written(path: Path, qform: np.ndarray | None = AFFINE, unit: int = 2, **fields: object) -> Path:
    image = nibabel.Nifti1Image(DATA, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(qform, 0 if qform is None else 1)
    image.header["xyzt_units"] = unit
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def mask_of(series: Series, path: Path) -> nibabel.Nifti1Image:
    mask = np.ones(series.geometry.shape, np.uint8)
    stored = series.reorientation.undo(mask)
    save_nifti(nifti_image(stored, series.stored_geometry, forms=series.forms), path)
    return nibabel.load(path)


def other(**changes: float) -> np.ndarray:
    form = AFFINE.copy()
    for place, value in changes.items():
        form[int(place[1]), int(place[2])] = value
    return form


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (other(a00=1.2), "left on different sides"),
        (other(a03=42.0), "differ by more than a voxel"),
        (other(a00=1.2, a11=1.5), "differ by more than a voxel"),
        (other(a03=40.5), ""),
        (AFFINE, ""),
    ],
)
def test_forms_that_disagree_are_reported_and_kept(
    tmp_path: Path, form: np.ndarray, words: str
) -> None:
    path = written(tmp_path / "in.nii.gz", form)
    series = open_series(path)
    assert series.flags == (("sform_qform_disagree",) if words else ())
    assert words in " ".join(series.notes)
    mask, source = mask_of(series, tmp_path / "mask.nii.gz"), nibabel.load(path)
    for name in ("sform", "qform"):
        wanted, code = getattr(source, f"get_{name}")(coded=True)
        found, found_code = getattr(mask, f"get_{name}")(coded=True)
        assert (found_code, np.array_equal(found, wanted)) == (code, True)
    assert mask.shape == source.shape


def test_codes_are_kept_as_they_were(tmp_path: Path) -> None:
    path = written(tmp_path / "in.nii", None, sform_code=4)
    mask = mask_of(open_series(path), tmp_path / "mask.nii.gz")
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (4, 0)
    path = written(tmp_path / "other.nii", sform_code=0, qform_code=3)
    mask = mask_of(open_series(path), tmp_path / "mask.nii.gz")
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (0, 3)
    assert np.allclose(mask.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(("unit", "scale"), [(1, 0.001), (2, 1), (3, 1000)])
def test_units_of_length_are_honoured(tmp_path: Path, unit: int, scale: float) -> None:
    image = nibabel.Nifti1Image(DATA, np.diag([scale, scale, scale, 1]) @ AFFINE)
    image.header["xyzt_units"] = unit | 8  # seconds along a fourth axis
    nibabel.save(image, tmp_path / "x.nii")
    series = open_series(tmp_path / "x.nii")
    assert series.geometry.spacing == pytest.approx((2, 1.5, 1.2))
    assert series.geometry.origin[2] == pytest.approx(-100)
    assert series.flags == ()
    mask = mask_of(series, tmp_path / "mask.nii.gz")
    assert int(mask.header["xyzt_units"]) & 7 == unit
    assert np.allclose(mask.affine, image.affine, rtol=1e-5)


@pytest.mark.parametrize("unit", [0, 5])
def test_a_unit_that_is_not_known_is_taken_as_mm_and_noted(tmp_path: Path, unit: int) -> None:
    series = open_series(written(tmp_path / "x.nii", unit=unit))
    assert series.geometry.spacing == pytest.approx((2, 1.5, 1.2))
    assert [remark.code for remark in series.remarks] == ["units_unknown"]


def test_a_unit_that_cannot_be_meant_is_flagged(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(DATA, np.diag([0.001, 0.001, 0.001, 1]) @ AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "x.nii")
    assert open_series(tmp_path / "x.nii").flags == ("implausible_spacing",)


def test_a_long_extension_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.nii", vox_offset=2**25)
    header = bytearray(path.read_bytes()[:352])
    header[108:112] = np.float32(2**25).tobytes()
    with gzip.open(tmp_path / "y.nii.gz", "wb") as packed:
        packed.write(bytes(header) + bytes(100))
    with pytest.raises(InputError, match="header extension"):
        open_series(tmp_path / "y.nii.gz")


def test_voxels_that_would_fill_gigabytes_are_refused(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((512, 512, 1500))
    header.set_sform(AFFINE, 1)
    with gzip.open(tmp_path / "x.nii.gz", "wb") as packed:
        packed.write(header.binaryblock + bytes(4000))
    with pytest.raises(InputError, match="would unpack to 3000 MiB"):
        open_series(tmp_path / "x.nii.gz")


def test_nibabels_log_is_left_alone() -> None:
    assert logging.getLogger("nibabel.global").level != logging.CRITICAL
    assert nifti.SUFFIXES == (".nii", ".nii.gz")


def test_lack_of_memory_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    path = written(tmp_path / "x.nii")
    monkeypatch.setattr(nifti.Nifti1Header, "get_data_shape", none_left)
    with pytest.raises(MemoryError):
        open_series(path)


def test_a_file_is_unpacked_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    plain = written(tmp_path / "x.nii").read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    for name in ("packed.nii", "plain.nii.gz"):
        series = open_series(tmp_path / name)
        assert np.array_equal(series.reorientation.undo(series.volume().voxels).T, DATA)


def test_a_qform_that_is_no_rotation_is_told_and_the_sform_taken(tmp_path: Path) -> None:
    spoilt = {"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}
    series = open_series(written(tmp_path / "x.nii", **spoilt))
    assert series.flags == ("sform_qform_disagree",)
    assert any("the qform is not usable" in note for note in series.notes)
    header = mask_of(series, tmp_path / "mask.nii.gz").header
    assert float(header["quatern_b"]) == pytest.approx(0.9)
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[254:256] = bytes(2)  # sform_code
    (tmp_path / "alone.nii").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        open_series(tmp_path / "alone.nii")


def test_distances_that_contradict_the_only_form_are_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(DATA, np.diag([-1, -1, 1, 1]))
    image.header["pixdim"][1:4] = 0.7, 0.7, 5
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "x.nii")
    series = open_series(tmp_path / "x.nii")
    assert series.flags == ("sform_qform_disagree",)
    assert any("sform and pixdim differ" in note for note in series.notes)
