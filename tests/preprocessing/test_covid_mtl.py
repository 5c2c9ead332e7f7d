"""COVID-MTL's intake, resampling, common box and window, against golden files and vectors."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from hilum.catalog.covid_mtl import CROP, WINDOW_STEP
from hilum.catalog.errors import InputError
from hilum.preprocessing.covid_mtl import cubic, resample
from hilum.preprocessing.covid_mtl.intake import published_values, take_in
from hilum.preprocessing.covid_mtl.pipeline import (
    box_offsets,
    common_box,
    network_window,
    normalise,
    prepare,
    published_box,
    window_share,
    window_step,
)
from hilum.preprocessing.covid_mtl.resample import resampled_geometry, target_shape, to_millimetres
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Reorientation, Volume
from hilum.preprocessing.workers import Watch

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def volume(voxels: np.ndarray, spacing: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Volume:
    return Volume(voxels, Geometry(voxels.shape, (-9.0, -8.0, 5.0), spacing, AXES))


def some_hu(shape: tuple[int, int, int] = (4, 6, 5), seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)


def pad(folder: Path, value: int) -> None:
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", value)
        dataset.save_as(path)


# --- intake ---------------------------------------------------------------------------------------


def test_stored_values_are_hu_plus_1024_in_both_modes(tmp_path: Path) -> None:
    hu = some_hu()
    write_dicom_series(volume(hu), tmp_path)
    series = open_series(tmp_path)
    for mode in ("parity", "corrected"):
        taken = take_in(series, mode)
        assert taken.stored.dtype == np.uint16
        assert np.array_equal(taken.stored, hu + 1024)
        assert taken.spacing == pytest.approx((2.0, 1.0, 1.0))
        assert np.allclose(taken.geometry.affine, volume(hu).geometry.affine)
        assert taken.notes == ()


def test_a_volume_is_limited_and_rounded() -> None:
    hu = np.array([-5000, -1025, -1024, 0, 3071, 9000], np.int16).reshape(3, 2, 1)
    taken = take_in(volume(hu), "corrected")
    assert taken.stored.ravel().tolist() == [0, 0, 0, 1024, 4095, 4095]


def test_mode_corrected_applies_slope_and_intercept_and_parity_does_not(tmp_path: Path) -> None:
    hu = some_hu()
    hu[0, 0, 0] = -1024
    write_dicom_series(volume(hu), tmp_path, intercept=0)
    series = open_series(tmp_path)
    assert np.array_equal(take_in(series, "corrected").stored, hu + 1024)
    taken = take_in(series, "parity")
    assert taken.stored.dtype == np.int16
    assert np.array_equal(taken.stored, hu)
    assert any("not HU + 1024" in note for note in taken.notes)
    assert taken.flags == ("values_misread",)
    assert take_in(series, "corrected").flags == ()


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ([0, 100, 4095], [0, 100, 4095]),
        ([-2000, 5, 4095], [0, 5, 4095]),
        ([-1024, 0, 3071], [-1024, 0, 3071]),  # left on the HU scale
        ([-1500, 0, 3071], [0, 1024, 4095]),
        ([-3, 0, 4096], [1021, 1024, 4095]),
        ([0, 7, 60000], [0, 7, 4095]),
    ],
)
def test_published_values(raw: list[int], stored: list[int]) -> None:
    found = published_values(np.array(raw, np.int32))
    assert found.tolist() == stored
    assert found.dtype == (np.int16 if min(stored) < 0 else np.uint16)


def test_padding_is_air_in_mode_corrected(tmp_path: Path) -> None:
    hu = some_hu()
    hu[1, 2, 3] = 0
    hu[hu == 40] = 41
    hu[1, 2, 4] = 40
    write_dicom_series(volume(hu), tmp_path)
    pad(tmp_path, 1064)
    stored = take_in(open_series(tmp_path), "corrected").stored
    assert stored[1, 2, 3] == 1024
    assert stored[1, 2, 4] == 0


def test_slices_go_up_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    hu = some_hu()
    turned = volume(hu).reoriented(Reorientation(flips=(True, True, False)))
    write_dicom_series(turned, tmp_path)
    series = open_series(tmp_path)
    assert np.array_equal(take_in(series, "corrected").stored, hu + 1024)
    taken = take_in(series, "parity")
    assert np.array_equal(taken.stored, hu[:, ::-1] + 1024)  # rows as the file has them
    assert any("rows or columns" in note for note in taken.notes)
    assert taken.flags == ("orientation_misread",)


def test_published_nifti_reading(tmp_path: Path) -> None:
    hu = some_hu()
    affine = volume(hu, (5.0, 0.8, 0.7)).geometry.nifti_affine
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)
    path = tmp_path / "scan.nii"
    nibabel.save(image, path)
    taken = take_in(open_series(path), "parity")
    source = np.asarray(image.dataobj)
    for i, j, k in ((0, 0, 0), (4, 5, 3), (2, 1, 3)):
        assert taken.stored[k, j, source.shape[0] - 1 - i] == source[i, j, k]
    assert taken.spacing == pytest.approx((2.0, 0.7, 0.8))
    assert any("5.00 mm apart were taken as 2 mm" in note for note in taken.notes)
    assert taken.flags == ("spacing_misread",)
    corrected = take_in(open_series(path), "corrected")
    assert np.array_equal(corrected.stored, hu + 1024)
    assert corrected.spacing == pytest.approx((5.0, 0.8, 0.7))


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    hu = some_hu((8, 6, 5))
    write_dicom_series(volume(hu), tmp_path)
    sorted(tmp_path.iterdir())[3].unlink()
    with pytest.raises(InputError, match=r"2\.00 to 4\.00 mm apart, usually 2\.00 mm"):
        take_in(open_series(tmp_path), "corrected")


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_two_slices_are_refused(tmp_path: Path, mode: Any) -> None:
    write_dicom_series(volume(some_hu((2, 6, 5))), tmp_path)
    with pytest.raises(InputError, match=r"2 slice\(s\)"):
        take_in(open_series(tmp_path), mode)


def test_coronal_slices_are_refused_in_parity_and_turned_in_corrected(tmp_path: Path) -> None:
    hu = some_hu((7, 6, 5))
    write_dicom_series(volume(hu).reoriented(Reorientation(axes=(1, 0, 2))), tmp_path)
    series = open_series(tmp_path)
    with pytest.raises(InputError, match="not axial"):
        take_in(series, "parity")
    assert np.array_equal(take_in(series, "corrected").stored, hu + 1024)


# --- resampling -----------------------------------------------------------------------------------


def test_golden_resampling(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = np.load(golden / "mtl/phantom_seg.npz")
    spacing = tuple(case["spacing_zyx"].tolist())
    assert target_shape(case["ct"].shape, spacing) == (25, 225, 285)
    assert np.array_equal(to_millimetres(case["ct"], spacing), case["resampled"])
    # By the operations of SciPy, as a row is computed in which a value lies halfway.
    monkeypatch.setattr(resample, "_HALFWAY", 1.0)
    assert np.array_equal(to_millimetres(case["ct"], spacing), case["resampled"])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_resampling_is_that_of_scipy(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    low = 0 if dtype == np.uint16 else -1024
    stored = rng.integers(low, 4096, (7, 40, 53)).astype(dtype)
    spacing = (3.1, 0.77, 2.4)
    shape = target_shape(stored.shape, spacing)
    zoom = [t / n for t, n in zip(shape, stored.shape, strict=True)]
    wanted = np.maximum(ndimage.zoom(stored, zoom, order=3, mode="nearest"), 0)
    found = to_millimetres(stored, spacing)
    assert found.dtype == dtype
    assert np.array_equal(found, wanted)
    assert found.max() > 4095  # cubic overshoot is not cut


def test_a_constant_stays_constant() -> None:
    assert (to_millimetres(np.full((5, 20, 20), 1234, np.uint16), (2.5, 0.6, 1.7)) == 1234).all()


def test_halves_are_rounded_as_by_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves between neighbours of equal curvature: only the library's own rounding is right."""
    rows = []
    values = cubic.values

    def told(found: np.ndarray, shape: Any, target: Any, y: int, columns: slice) -> np.ndarray:
        rows.append(y)
        return values(found, shape, target, y, columns)

    monkeypatch.setattr(cubic, "values", told)
    ramp = np.broadcast_to(np.arange(0, 50, 5, dtype=np.uint16), (10, 10, 10)).copy()
    found = to_millimetres(ramp, (1.0, 1.0, 1.9))
    assert sorted(rows) == list(range(10))
    zoomed: Any = ndimage.zoom(ramp, (1, 1, 1.9), order=3, mode="nearest")
    assert np.array_equal(found, zoomed)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize(
    ("shape", "target"),
    [((7, 40, 53), (22, 31, 127)), ((3, 5, 64), (3, 30, 63)), ((31, 4, 3), (12, 4, 40))],
)
def test_cubic_splines_are_those_of_scipy_to_the_last_bit(
    dtype: Any, shape: tuple[int, int, int], target: tuple[int, int, int]
) -> None:
    low = 0 if dtype == np.uint16 else -1024
    stored = np.random.default_rng(shape[0]).integers(low, 4096, shape).astype(dtype)
    zoom = [t / n for t, n in zip(target, shape, strict=True)]
    wanted: Any = ndimage.zoom(stored, zoom, np.float64, order=3, mode="nearest")
    coefficients = cubic.coefficients(stored)
    every = slice(None)
    rows = [cubic.values(coefficients, shape, target, y, every) for y in range(target[1])]
    assert np.array_equal(np.stack(rows, axis=1), wanted)
    for n, t in zip(shape, target, strict=True):
        weights = np.empty((t, n))
        for k, sample in enumerate(np.eye(n)):
            ndimage.zoom(sample, t / n, weights[:, k], order=3, mode="nearest")
        assert np.array_equal(cubic.axis_weights(n, t), weights)


def test_resampled_geometry_keeps_the_ends() -> None:
    geometry = volume(np.zeros((10, 20, 30), np.int16), (2.5, 1.5, 0.7)).geometry
    fine = resampled_geometry(geometry, (25, 30, 21))
    assert np.allclose(fine.point((24, 29, 20)), geometry.point((9, 19, 29)))
    assert np.allclose(fine.origin, geometry.origin)


def test_unusual_voxels_are_refused() -> None:
    for spacing in ((0.2, 1, 1), (1, 1, 11), (0.5, 0.5, 0.5)):
        with pytest.raises(InputError, match="give a scan"):
            target_shape((3, 100, 100), spacing)
    with pytest.raises(InputError, match="million voxels"):
        target_shape((500, 1000, 1000), (5.0, 1.0, 1.0))


# --- common box and window ------------------------------------------------------------------------


def test_box_offsets() -> None:
    assert box_offsets((400, 512, 300)) == ((30, 61, 0), (0, 0, 45))
    assert box_offsets((341, 389, 390)) == ((0, 0, 0), (0, 0, 0))


def test_box_of_a_mixture_of_sizes() -> None:
    source = np.arange(7 * 4 * 9, dtype=np.uint16).reshape(7, 4, 9) + 1
    box = common_box(source, (4, 7, 9))
    assert box.shape == (4, 7, 9)
    assert np.array_equal(box[:, 1:5], source[1:5])
    assert not box[:, :1].any()
    assert not box[:, 5:].any()


@pytest.mark.parametrize(
    ("shape", "there"),
    [
        ((340, 390, 390), True), ((400, 512, 512), True), ((300, 300, 300), True),
        ((400, 300, 300), True), ((300, 400, 400), True), ((400, 300, 400), False),
        ((300, 300, 400), False),
    ],
)  # fmt: skip
def test_which_boxes_the_published_program_has(shape: tuple[int, int, int], there: bool) -> None:
    assert published_box(shape) is there


def test_window() -> None:
    crop = np.zeros(CROP, np.uint16)
    crop[70, 70, 70], crop[269, 319, 319] = 500, 2300
    crop[69], crop[270], crop[:, :, 320], crop[:, 320] = 9, 9, 9, 9
    window = window_step(crop)["volume"]
    assert window.shape == WINDOW_STEP.outputs[0].shape
    assert window.dtype == np.float16
    assert window[0, 0, 0] == 500
    assert window[199, 249, 249] == 2000
    assert np.count_nonzero(window) == 2


def test_whole_numbers_up_to_the_clip_survive_the_wire() -> None:
    crop = np.zeros(CROP, np.uint16)
    crop[70, 70:110, 70:130] = np.arange(2400).reshape(40, 60)
    assert np.array_equal(network_window(crop)[0, :40, :60].ravel()[:2001], np.arange(2001))


def test_normalisation() -> None:
    stored = np.array([0, 500, 1024, 2000, 5948], np.uint16)
    found = normalise(stored)
    assert found.dtype == np.float16
    assert found.tolist() == pytest.approx(
        [-0.19617, 5.67578, 11.82813, 23.28125, 23.28125], abs=1e-5
    )
    exact = (np.minimum(stored, 2000) - 16.71) / 85.17
    assert exact.tolist() == pytest.approx(
        [-0.196196, 5.674416, 11.826817, 23.286251, 23.286251], abs=1e-6
    )
    assert np.array_equal(found, exact.astype(np.float16))


def test_share_of_the_lungs_in_the_window() -> None:
    crop = np.zeros(CROP, np.uint16)
    assert window_share(crop) == 0
    crop[60:80, 100, 100] = 7
    assert window_share(crop) == 0.5
    with pytest.raises(InputError, match="common box"):
        window_step(crop[:100])


# --- all of it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chest(golden: Path) -> np.ndarray:
    """The golden phantom in HU."""
    return np.load(golden / "mtl/phantom_seg.npz")["ct"].astype(np.int16) - 1024


def test_a_scan_is_prepared(chest: np.ndarray, golden: Path) -> None:
    told: list[float] = []
    found = prepare(volume(chest, (2.5, 1.5, 1.5)), watch=Watch(told.append))
    case = np.load(golden / "mtl/phantom_seg.npz")
    assert np.array_equal(found.stored, case["resampled"])
    bits = np.unpackbits(case["mask_refined_uint16_bits"])[: found.stored.size]
    mask = bits.reshape(found.stored.shape)
    assert np.array_equal(found.lungs.mask, mask)
    inside = found.crop[157:182, 82:307, 52:337]
    assert np.array_equal(inside, found.stored * mask)
    assert np.count_nonzero(found.crop) == np.count_nonzero(inside)
    assert found.box_share == 1
    assert found.window_share == window_share(found.crop)
    assert found.flags == (("truncated_window",) if found.window_share < 0.95 else ())
    assert found.geometry is not None
    assert found.geometry.shape == found.stored.shape
    assert told == sorted(told)
    assert told[-1] == 1
    assert set(found.seconds) == {"read", "resample", "lungs", "box"}
    assert found.notes == ()


def test_the_published_program_leaves_some_scans_out(chest: np.ndarray) -> None:
    wide = volume(chest, (2.5, 1.5, 2.1))
    assert any("leaves it out" in note for note in prepare(wide, "parity").notes)
    assert prepare(wide, "corrected").notes == ()


def test_a_scan_without_air_is_refused() -> None:
    with pytest.raises(InputError, match="no lung found"):
        prepare(volume(np.full((5, 40, 40), 40, np.int16)), "parity")


def test_preparation_can_be_ended(chest: np.ndarray) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        prepare(volume(chest), watch=Watch(stop=stop))
