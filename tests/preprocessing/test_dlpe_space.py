"""DLPE's normalised space against the golden files, the specification's vectors and OpenCV."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from published_inverse import published_inverse
from scipy import ndimage

from hilum.catalog.dlpe import FIELD_MM
from hilum.catalog.errors import InputError
from hilum.preprocessing.dlpe.grid import published_cut, shortened
from hilum.preprocessing.dlpe.resample import Taps, from_planes, published_taps, taps_at
from hilum.preprocessing.dlpe.source import as_published, by_position
from hilum.preprocessing.dlpe.space import normalise, normalise_signal, to_source
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Volume

VOXEL = (334 / 512, 334 / 512, 1.0)
AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
TOLERANCE_HU = 4.4e-4


def scan(array: np.ndarray, spacing: Any) -> Volume:
    """[row, column, slice] with the spacing of these axes as a volume in LPS order."""
    voxels = np.ascontiguousarray(array.transpose(2, 0, 1))
    y, x, z = (float(s) for s in spacing)
    return Volume(voxels, Geometry(voxels.shape, (-30.0, -40.0, 7.0), (z, y, x), AXES))


def in_hu(voxels: np.ndarray) -> np.ndarray:
    return voxels.astype(np.float64) * 1600 - 600


def published_forward(array: np.ndarray, spacing: Any, shape: Any, field: Any) -> np.ndarray:
    """The published program's own way: embed in zeros, cut the centre out, resize by OpenCV."""
    lengths = [int(f / s) for f, s in zip(field, spacing, strict=True)]
    box = np.zeros([max(t, n) + 2 for t, n in zip(lengths, array.shape, strict=True)], np.float32)
    starts = [b // 2 - n // 2 for b, n in zip(box.shape, array.shape, strict=True)]
    box[tuple(slice(s, s + n) for s, n in zip(starts, array.shape, strict=True))] = array
    starts = [b // 2 - t // 2 for b, t in zip(box.shape, lengths, strict=True)]
    cut = box[tuple(slice(s, s + t) for s, t in zip(starts, lengths, strict=True))]
    planes = [cv2.resize(cut[:, :, k], (shape[1], shape[0])) for k in range(cut.shape[2])]
    flat = np.stack(planes, axis=2)
    return np.stack([cv2.resize(flat[i], (shape[2], shape[1])) for i in range(shape[0])])


def published_taps_of(array: np.ndarray, spacing: Any, shape: Any, field: Any) -> list[Taps]:
    return [
        published_taps(n, *published_cut(n, float(s), float(f)), size)
        for n, s, size, f in zip(array.shape, spacing, shape, field, strict=True)
    ]


@pytest.fixture(scope="module")
def dicom_case(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "dlpe/00_dicom_stack.npz"))


@pytest.fixture
def dicom_folder(dicom_case: dict[str, np.ndarray], tmp_path: Path) -> Path:
    for i in range(5):
        (tmp_path / f"{i}.dcm").write_bytes(dicom_case[f"dicom_file_{i}"].tobytes())
    return tmp_path


def test_golden_stack(dicom_case: dict[str, np.ndarray], dicom_folder: Path) -> None:
    source = as_published(open_series(dicom_folder))
    stack = np.stack([source.plane(z) for z in range(5)], axis=2)
    assert stack.dtype == np.float32
    assert np.array_equal(stack, dicom_case["stack_hu"])
    assert source.spacing == pytest.approx(tuple(dicom_case["spacing_upstream"]), abs=0)
    normalise_signal(stack)
    assert np.array_equal(stack, dicom_case["stack_normalised"])
    assert any("2.00 mm apart were taken as 2.50 mm apart" in note for note in source.notes)


def test_golden_stack_by_position(dicom_case: dict[str, np.ndarray], dicom_folder: Path) -> None:
    source = by_position(open_series(dicom_folder))
    assert source.spacing == pytest.approx(tuple(dicom_case["spacing_corrected"]))
    stack = np.stack([source.plane(z) for z in range(5)], axis=2)
    assert np.array_equal(stack, np.maximum(dicom_case["stack_hu"], -1024))


@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_forward_of_any_shape(golden: Path, case: str) -> None:
    data = np.load(golden / "dlpe/01_spatial_forward.npz")
    array, expected = data[f"{case}_in"], data[f"{case}_out"]
    field = data[f"{case}_target_spacing"] * expected.shape
    taps = published_taps_of(array, data[f"{case}_spacing"], expected.shape, field)
    result = from_planes(lambda k: array[:, :, k], tuple(taps), fill=0, xp=np)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() <= TOLERANCE_HU


@pytest.mark.parametrize("case", ["c", "d"])
def test_golden_forward_of_lungs(golden: Path, case: str) -> None:
    data = np.load(golden / "dlpe/01_spatial_forward.npz")
    result = normalise(scan(data[f"{case}_in"], data[f"{case}_spacing"]))
    used, shape = data[f"{case}_spacing_used"], data[f"{case}_crop_shape"]
    assert result.space.spacing == tuple(used)
    assert result.space.scale == tuple(shape / 512)
    assert any("450 mm" in note for note in result.notes) == (case == "d")
    assert result.space.shortened == (case == "d")
    x, y, z = data[f"{case}_idx"].astype(int).T
    assert np.abs(in_hu(result.voxels[x, y, z]) - data[f"{case}_val"]).max() <= TOLERANCE_HU
    total = result.voxels.sum(dtype=np.float64) * 1600 - 600 * 512**3
    assert total == pytest.approx(float(data[f"{case}_sum"]), abs=1e-5 * 512**3)
    filled = np.float32(600) / np.float32(1600)
    for axis, (first, last) in enumerate(data[f"{case}_nonzero_box"]):
        for inner, outer in ((first, first - 1), (last, last + 1)):
            assert (np.take(result.voxels, inner, axis) != filled).any()
            assert not 0 <= outer < 512 or (np.take(result.voxels, outer, axis) == filled).all()


@pytest.mark.parametrize("case", ["a", "b", "m"])
def test_golden_inverse(golden: Path, case: str) -> None:
    data = np.load(golden / "dlpe/02_spatial_inverse.npz")
    array, expected = data["m_in" if case == "m" else "p_in"], data[f"{case}_out"]
    field = tuple(data["p_spacing"] * array.shape)
    result = published_inverse(
        array, expected.shape, tuple(data[f"{case}_orig_spacing"]), field_mm=field
    )
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-5


def test_golden_inverse_of_lungs(golden: Path) -> None:
    data = np.load(golden / "dlpe/02_spatial_inverse.npz")
    i = np.arange(512)
    plane, line = (
        (np.add.outer(7 * i, 13 * i) % 97).astype(np.uint8),
        (29 * i % 97).astype(np.uint8),
    )
    values = (np.arange(2 * 97) % 97).astype(np.float32) / np.float32(97)
    volume = values[plane[:, :, None] + line]
    result = published_inverse(volume, (24, 24, 12), tuple(data["v_orig_spacing"]))
    assert np.abs(result - data["v_out"]).max() < 1e-6


def test_published_way_back_is_a_voxel_off() -> None:
    # Spec §3.3: n = 512 at 0.7 mm; index 255.5 comes back at 256.466.
    taps = published_taps(512, *published_cut(512, 0.7, FIELD_MM[0]), 512)
    ramp = np.arange(512.0)
    forward = ramp[taps.low] * (1 - taps.weight) + ramp[taps.high] * taps.weight
    volume = np.tile(forward[:, None, None], (1, 512, 16)).astype(np.float32)
    field = (334.0, 334.0, 16.0)
    back = published_inverse(volume, (512, 512, 16), (0.7, 0.7, 1.0), field_mm=field)
    assert (back[255, 255, 8] + back[256, 255, 8]) / 2 == pytest.approx(256.466, abs=2e-3)


@pytest.mark.parametrize(
    ("n", "spacing", "axis", "span", "start", "effective"),
    [
        (512, 0.7, 0, 477, 18, 0.652148),
        (512, 0.65234375, 0, 512, 0, 0.652344),
        (512, 0.9765625, 0, 342, 85, 0.652313),
        (512, 0.5, 0, 668, -78, 0.652344),
        (60, 5.0, 2, 102, -21, 0.996094),
        (300, 1.25, 2, 409, -54, 0.998535),
        (450, 1.0, 2, 512, -31, 1.0),
    ],
)
def test_table_of_cuts(
    n: int, spacing: float, axis: int, span: int, start: int, effective: float
) -> None:
    assert published_cut(n, spacing, FIELD_MM[axis]) == (start, span)
    assert span * spacing / 512 == pytest.approx(effective, abs=5e-7)


def test_rule_of_450_mm() -> None:
    assert shortened(61, (0.7, 0.7, 9.0)) == (0.7, 0.7, 7.377049180327869)
    assert shortened(50, (0.7, 0.7, 9.0)) == (0.7, 0.7, 9.0)
    assert published_cut(61, 7.377049180327869, 512.0)[1] == 69


@pytest.mark.parametrize(
    ("values", "size", "expected"),
    [
        ([0, 10], 4, [0, 2.5, 7.5, 10]),
        ([0, 1, 2, 3], 2, [0.5, 2.5]),
        ([0, 1, 2], 2, [0.25, 1.75]),
    ],
)
def test_linear_rule(values: list[float], size: int, expected: list[float]) -> None:
    taps = published_taps(len(values), 0, len(values), size)
    x = np.array(values)
    assert (x[taps.low] * (1 - taps.weight) + x[taps.high] * taps.weight).tolist() == expected


def test_signal() -> None:
    hu = np.array([-1400, -1024, -1000, -600, 0, 200], np.float32)
    normalise_signal(hu)
    assert hu.tolist() == [-0.5, float(np.float32(-0.265)), -0.25, 0, 0.375, 0.5]


@pytest.mark.parametrize("seed", range(6))
def test_parity_equals_the_published_steps_with_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(9, 40, 3))
    spacing = rng.uniform(0.2, 1.4, 3) * FIELD_MM / shape
    array = rng.integers(-3024, 3000, shape).astype(np.int16)
    side = (16, 32, 48)[seed % 3]
    result = normalise(scan(array, spacing), side=side)
    used = shortened(shape[2], tuple(spacing))
    expected = published_forward(array, used, (side,) * 3, FIELD_MM)
    assert np.abs(in_hu(result.voxels) - expected).max() < 2 * TOLERANCE_HU
    assert result.space.voxel_mm == pytest.approx(
        [int(f / s) * s / side for f, s in zip(FIELD_MM, used, strict=True)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_corrected_follows_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(9, 40, 3))
    spacing = rng.uniform(0.4, 1.4, 3) * FIELD_MM / shape
    array = rng.integers(-1024, 3000, shape).astype(np.int16)
    side = (16, 48)[seed % 2]
    result = normalise(scan(array, spacing), "corrected", side, fill_hu=-1000)
    places = [
        (np.arange(side) + 0.5 - side / 2) * (f / side) / s + n / 2 - 0.5
        for n, s, f in zip(shape, spacing, FIELD_MM, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    expected = ndimage.map_coordinates(array.astype(float), grid, order=1, mode="nearest")
    for g, n in zip(grid, shape, strict=True):
        expected[(g < -0.5) | (g > n - 0.5)] = -1000
    assert np.abs(in_hu(result.voxels) - expected).max() < TOLERANCE_HU
    assert result.space.field_mm == FIELD_MM
    assert result.space.voxel_ml == pytest.approx(np.prod(FIELD_MM) / side**3 / 1000)
    assert result.space.straight


def test_nominal_voxel() -> None:
    small = scan(np.zeros((8, 8, 8), np.int16), (30.0, 30.0, 50.0))
    space = normalise(small, "corrected", 16).space
    assert space.voxel_ml * (16 / 512) ** 3 == pytest.approx(0.425552 / 1000, rel=1e-6)


@pytest.mark.parametrize("mode", ["parity", "corrected"])
@pytest.mark.parametrize("side", [128, 256])
def test_coarser_grids_cover_the_same_field(mode: Any, side: int) -> None:
    x, y, z = np.meshgrid(np.arange(30.0), np.arange(26.0), np.arange(20.0), indexing="ij")
    ramp = np.rint(40 * x - 30 * y + 20 * z).astype(np.int16)
    volume = scan(ramp, (8.0, 9.0, 20.0))
    result = normalise(volume, mode, side)
    whole = normalise(volume, mode, 64)
    assert result.voxels.shape == (side, side, side)
    step = side // 64
    inner = slice(step * 18, step * 46)
    means = result.voxels[inner, inner, inner].reshape((28, step) * 3).mean(axis=(1, 3, 5))
    assert np.abs(means - whole.voxels[18:46, 18:46, 18:46]).max() < 2 / 1600
    assert result.space.field_mm == whole.space.field_mm


@pytest.mark.parametrize("side", [0, -16, 100, 1040])
def test_impossible_grids_are_refused(side: int) -> None:
    with pytest.raises(InputError, match="multiple of 16"):
        normalise(scan(np.zeros((8, 8, 8), np.int16), (9, 9, 9)), side=side)


def test_voxels_greater_than_the_field_are_refused() -> None:
    with pytest.raises(InputError, match="more than the whole field"):
        normalise(scan(np.zeros((8, 8, 1), np.int16), (40, 335, 9)), side=16)


def test_fill_and_padding() -> None:
    array = np.full((8, 8, 8), -2000, np.int16)
    array[2:6, 2:6, 2:6] = 100
    volume = scan(array, (20.0, 20.0, 20.0))
    parity = in_hu(normalise(volume, side=64).voxels)
    assert (parity.min(), parity[0, 0, 0]) == pytest.approx((-2000, 0), abs=1e-3)
    assert normalise(volume, side=64, fill_hu=-1000).voxels[0, 0, 0] == -0.25
    corrected = in_hu(normalise(volume, "corrected", 64, fill_hu=-1000).voxels)
    assert (corrected.min(), corrected[0, 0, 0]) == pytest.approx((-1024, -1000), abs=1e-3)
    assert corrected.max() == pytest.approx(100, abs=1e-3)


def test_outermost_voxels_reach_to_their_faces() -> None:
    taps = taps_at(np.array([-0.51, -0.5, -0.1, 0.25, 2.4, 2.5]), 3)
    assert taps.low.tolist() == [-1, 0, 0, 0, 2, -1]
    assert taps.weight.tolist() == [0, 0, 0, 0.25, 0, 0]
    assert taps.nearest().tolist() == [-1, 0, 0, 0, 2, -1]


def test_memory_is_the_result_and_a_few_planes(tmp_path: Path) -> None:
    volume = scan(np.zeros((64, 64, 40), np.int16), (5.0, 5.0, 10.0))
    normalise(volume, side=16)
    tracemalloc.start()
    normalised = normalise(volume, side=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    mask = np.zeros(normalised.voxels.shape, np.uint8)
    to_source(mask, normalised.space)
    back = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    planes = 256 * 256 * 8
    assert peak < normalised.voxels.nbytes + 2 * 16 * planes
    assert back < mask.nbytes + volume.voxels.size + 8 * planes


def test_arrays_of_another_run_are_refused() -> None:
    space = normalise(scan(np.zeros((8, 8, 8), np.int16), (9, 9, 9)), side=16).space
    with pytest.raises(
        InputError, match=r"\[16, 16, 32\] for a normalised space of \[16, 16, 16\]"
    ):
        to_source(np.zeros((16, 16, 32), np.uint8), space)
