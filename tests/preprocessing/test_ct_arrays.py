"""Windows, nearest sampling and lungmask's preparation against the specifications' vectors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hilum.catalog.ct_angel import WINDOWS
from hilum.catalog.errors import InputError
from hilum.catalog.terms import Window
from hilum.preprocessing.lungmask import (
    _coarse_body,
    body_box,
    normalise,
    prepare_slice,
    resize_corners_int,
)
from hilum.preprocessing.nearest import nearest_indices, resize_nearest
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.windows import (
    ct_angel_window,
    display_window,
    doubts_about_hu,
    jpeg_roundtrip,
    padding_to_air,
)

HU = [-2048, -1295, -1294, -1024, -1000, -950, -900, -800, -700, -600, -500, -300, -105, -104, -100]
GREY = [0, 0, 1, 58, 63, 74, 84, 106, 127, 148, 169, 212, 253, 254, 254]


def real_slice(shared: Path, name: str) -> np.ndarray:
    return open_series(shared / "data/ct-densenet-samples" / f"{name}_cruda.nii").slice(0)


def test_ct_angel_window_follows_the_table() -> None:
    values = np.array([*HU, -99, 0], np.int16)
    assert ct_angel_window(values, WINDOWS["doc"]).tolist() == [*GREY, 255, 255]


@pytest.mark.parametrize(
    ("name", "preset", "total", "digest", "pixels"),
    [
        ("IM2048", "doc", 37494819, "97178a0ca1b32961", [68, 63, 255, 82, 255]),
        ("IM2048", "sample", 39966885, "422d2dd35b3437cd", [89, 84, 255, 100, 255]),
        ("IM6508", "doc", 32803908, "8afbbe5608f62794", [58, 168, 255, 87, 255]),
        ("IM6508", "sample", 35924327, "8c94f6a66535fc3a", [80, 168, 243, 103, 244]),
    ],
)
def test_ct_angel_window_on_real_slices(
    shared: Path, name: str, preset: str, total: int, digest: str, pixels: list[int]
) -> None:
    image = ct_angel_window(real_slice(shared, name), WINDOWS[preset])
    assert image.sum(dtype=np.int64) == total
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == digest
    places = [(0, 0), (128, 128), (256, 256), (256, 160), (400, 256)]
    assert [int(image[p]) for p in places] == pixels


def test_display_window_spreads_from_black_to_white() -> None:
    shown = display_window(np.array([-2000, -1350, -600, 150, 900], np.int16))
    assert shown.tolist() == [0, 0, 128, 255, 255]
    assert display_window(np.array([50.0]), Window(100, 0)).tolist() == [255]


@pytest.mark.parametrize("width", [0.0, -5.0, float("nan")])
def test_a_window_without_width_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="width"):
        ct_angel_window(np.zeros(3, np.int16), Window(width, 0))
    with pytest.raises(InputError, match="width"):
        display_window(np.zeros(3, np.int16), Window(width, 0))


def test_jpeg_round_trip_changes_little(shared: Path) -> None:
    image = ct_angel_window(real_slice(shared, "IM2048"), WINDOWS["doc"])
    change = np.abs(jpeg_roundtrip(image).astype(int) - image)
    assert 0 < change.max() <= 12
    assert change.mean() < 1.2


def test_padding_is_raised_to_air() -> None:
    raised = padding_to_air(np.array([-3024, -1025, -1024, 7], np.int16))
    assert raised.tolist() == [-1024, -1024, -1024, 7]
    assert raised.dtype == np.int16


def test_doubtful_hounsfield_units_are_named() -> None:
    assert doubts_about_hu(-1024, 1300) is None
    assert "0 to 255" in (doubts_about_hu(0, 255) or "")


def test_nearest_rules_take_even_odd_or_corner_samples() -> None:
    assert nearest_indices(512, 256, "opencv").tolist() == list(range(0, 512, 2))
    assert nearest_indices(512, 256, "pillow").tolist() == list(range(1, 512, 2))
    corner = nearest_indices(512, 128, "corners").tolist()
    assert corner[:6] == [0, 4, 8, 12, 16, 20]
    assert corner[-3:] == [503, 507, 511]
    assert nearest_indices(5, 9, "corners").tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("size", [64, 186, 300, 372, 511, 512, 568, 616, 768, 1023])
def test_nearest_rules_agree_with_their_programs(size: int) -> None:
    image = np.arange(size * (size - 7), dtype=np.int32).reshape(size, size - 7) % 30011
    pillow = Image.fromarray(image, mode="I").resize((256, 256), Image.Resampling.NEAREST)
    assert np.array_equal(resize_nearest(image, (256, 256), "pillow"), np.asarray(pillow))
    opencv = cv2.resize(image.astype(np.float32), (256, 256), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(resize_nearest(image, (256, 256), "opencv"), opencv.astype(np.int32))


@pytest.mark.parametrize(
    ("name", "total", "low", "high", "digest", "pixels"),
    [
        ("IM2048", -38076127, -1024, 1399, "8f59192b4ee138ff", [-975, -1003, 44, -909, 19]),
        ("IM6508", -44341672, -1024, 1237, "6a1620ff9f93e183", [-1024, -507, -66, -888, -62]),
    ],
)
def test_generation_two_input_of_real_slices(
    shared: Path, name: str, total: int, low: int, high: int, digest: str, pixels: list[int]
) -> None:
    small = resize_nearest(real_slice(shared, name), (256, 256), "opencv")
    assert (small.sum(dtype=np.int64), small.min(), small.max()) == (total, low, high)
    assert hashlib.sha256(small.astype("<i2").tobytes()).hexdigest()[:16] == digest
    places = [(0, 0), (64, 64), (128, 128), (128, 80), (200, 128)]
    assert [int(small[p]) for p in places] == pixels


@pytest.mark.parametrize(
    ("name", "box", "total", "mean"),
    [
        ("0.dcm", (95, 3, 509, 509), -19033533, 0.451706),
        ("IM2048", (111, 3, 461, 505), -26595811, 0.380653),
        ("IM6508", (87, 19, 425, 485), -32930821, 0.321130),
    ],
)
def test_lungmask_preparation_of_real_slices(
    shared: Path, name: str, box: tuple[int, ...], total: int, mean: float
) -> None:
    hu = (
        open_series(shared / "data/lungmask-tests" / name).slice(0)
        if name.endswith(".dcm")
        else real_slice(shared, name)
    )
    crop, found = prepare_slice(hu)
    assert found == box
    assert (crop.shape, crop.dtype) == ((256, 256), np.int16)
    assert crop.sum(dtype=np.int64) == total
    assert normalise(crop).mean() == pytest.approx(mean, abs=1e-6)
    as_float, again = prepare_slice(hu.astype(np.float32))
    assert again == box
    assert np.abs(as_float - crop).max() <= 0.5001


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The body in a slice, enlarged from the grid that it is found on."""
    return resize_nearest(_coarse_body(hu), (hu.shape[0], hu.shape[1]), "corners")


def toy_body() -> np.ndarray:
    toy = np.full((64, 64), -1000, np.int16)
    toy[10:54, 8:60] = 40
    toy[20:44, 16:30] = toy[20:44, 36:52] = -850
    toy[0:3, 60:64] = 200
    return toy


def test_toy_body_is_found() -> None:
    assert body_mask(toy_body()).sum() == 2284
    assert body_box(toy_body()) == (10, 8, 54, 60)


def test_air_takes_the_whole_slice() -> None:
    air = np.full((32, 32), -1000, np.int16)
    crop, box = prepare_slice(air)
    assert box == (0, 0, 32, 32)
    assert (crop == -1000).all()


@pytest.mark.parametrize("size", [40, 100, 128, 200, 512, 616])
def test_body_box_is_the_box_of_the_body_mask(size: int) -> None:
    rng = np.random.default_rng(size)
    soft = ndimage.gaussian_filter(rng.normal(0, 1, (size, size - 5)), size / 20)
    hu = np.where(soft > 0, 40, -900).astype(np.int16)
    mask = body_mask(hu)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    rows, columns = np.nonzero(labels == 1)
    box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert body_box(hu) == box


def test_corner_aligned_resizing_rounds_half_away_from_zero() -> None:
    row = np.array([[-3, -2, 0, 1, 3]], np.int16)
    assert resize_corners_int(row, (1, 9)).tolist() == [[-3, -3, -2, -1, 0, 1, 1, 2, 3]]


def test_corner_aligned_resizing_equals_spline_zoom_of_order_one() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        h, w = (int(n) for n in rng.integers(2, 640, 2))
        image = rng.integers(-1024, 601, (h, w)).astype(np.int16)
        expected = ndimage.zoom(image, (256 / h, 256 / w), order=1)
        assert np.array_equal(resize_corners_int(image, (256, 256)), expected), (h, w)


def test_lungmask_scale() -> None:
    scaled = normalise(np.array([-1024, 600, -212, -2000, 3000], np.int16))
    assert scaled.tolist() == [0, 1, 0.5, 0, 1]
    assert scaled.dtype == np.float32
