"""The 375 features against the golden values, and against PyRadiomics run as published."""

from __future__ import annotations

import csv
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from hilum.benchmarks.covid_mtl_published import published_features
from hilum.catalog.covid_mtl import RADIOMICS_STEP
from hilum.catalog.covid_mtl_features import BANDS, FEATURES, OVERWRITTEN
from hilum.catalog.errors import InputError
from hilum.preprocessing.covid_mtl.bands import Region, wavelet_bands
from hilum.preprocessing.covid_mtl.radiomics import (
    radiomic_features,
    radiomics_step,
    scale,
    scaling,
)
from hilum.preprocessing.covid_mtl.textures import binned
from hilum.preprocessing.workers import Watch, open_pool

INDEX = {name: k for k, name in enumerate(FEATURES)}


@pytest.fixture(scope="module")
def case(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "mtl/radiomics.npz"))


@pytest.fixture(scope="module")
def computed(case: dict[str, np.ndarray]) -> np.ndarray:
    return radiomic_features(case["vol"])


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-300)).max())


def lump(shape: tuple[int, int, int], at: tuple[slice, slice, slice], seed: int = 2) -> np.ndarray:
    volume = np.zeros(shape, np.uint16)
    rng = np.random.default_rng(seed)
    volume[at] = rng.integers(1, 1500, volume[at].shape)
    volume[at][rng.random(volume[at].shape) < 0.15] = 0
    return volume


def test_golden_features(case: dict[str, np.ndarray], computed: np.ndarray) -> None:
    assert tuple(case["names"]) == FEATURES
    assert relative(computed, case["values"]) < 1e-9


def test_processes_give_the_same(case: dict[str, np.ndarray], computed: np.ndarray) -> None:
    told: list[float] = []
    with open_pool(2) as pool:
        found = radiomic_features(case["vol"], pool=pool, watch=Watch(told.append))
    assert np.array_equal(found, computed)
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_surroundings_do_not_matter(case: dict[str, np.ndarray], computed: np.ndarray) -> None:
    wide = np.zeros((71, 90, 101), np.uint16)
    wide[20:60, 13:73, 9:89] = case["vol"]
    assert relative(radiomic_features(wide), computed) < 1e-12


@pytest.mark.parametrize(
    ("shape", "at"),
    [
        ((14, 30, 40), (slice(0, 14), slice(9, 21), slice(10, 33))),
        ((15, 30, 41), (slice(2, 15), slice(0, 30), slice(28, 41))),
        ((40, 13, 22), (slice(10, 24), slice(1, 13), slice(0, 21))),
    ],
    ids=["all slices", "odd sides", "both ends"],
)
def test_lungs_at_the_ends_of_the_volume(
    shape: tuple[int, int, int], at: tuple[slice, slice, slice]
) -> None:
    """The transform is periodic: what is cut off at one end comes in at the other."""
    volume = lump(shape, at)
    assert relative(radiomic_features(volume), published_features(volume)) < 1e-9


def test_later_features_take_the_places_of_earlier_ones(computed: np.ndarray) -> None:
    """Zones overwrite runs: of n voxels in z zones, Σ²/z is (Σ²/z²) z."""
    voxels = computed[INDEX["Energy"]] / computed[INDEX["RootMeanSquared"]] ** 2
    zones = computed[INDEX["ZonePercentage"]] * voxels
    ratio = computed[INDEX[OVERWRITTEN[0]]] / computed[INDEX[OVERWRITTEN[1]]]
    assert ratio == pytest.approx(zones, rel=1e-9)
    assert computed[INDEX["SumAverage"]] == pytest.approx(2 * computed[INDEX["JointAverage"]])
    assert computed[INDEX["TotalEnergy"]] == computed[INDEX["Energy"]]


# --- bins and bands -------------------------------------------------------------------------------


def test_bins() -> None:
    values = np.array([1, 24, 25, 26, 50], np.uint16)
    levels = binned(values, np.ones((1, 1, 5), bool))
    assert levels.bins.tolist() == [1, 1, 2, 2, 3]
    assert levels.image.ravel().tolist() == [1, 1, 2, 2, 3]
    assert levels.present.tolist() == [1, 2, 3]


def test_bins_start_below_the_smallest_value() -> None:
    values = np.array([-26.0, -25.0, -0.1, 0.0, 49.9, 80.0])
    assert binned(values, np.ones((1, 1, 6), bool)).bins.tolist() == [1, 2, 2, 3, 4, 6]


def test_golden_bands(case: dict[str, np.ndarray]) -> None:
    volume = case["vol"]
    region = Region.of(volume)
    bands = wavelet_bands(region)
    mask = volume > 0
    for name, wanted in zip(case["band_names"], case["band_slice20"], strict=True):
        whole = np.zeros(volume.shape)
        whole[mask] = bands[str(name)]
        assert np.abs(whole[20] - wanted)[mask[20]].max() < 1e-3
    assert set(bands) == set(BANDS)


def test_bands_of_a_constant() -> None:
    bands = wavelet_bands(Region.of(np.full((6, 8, 10), 300, np.uint16)))
    for name, values in bands.items():
        assert values == pytest.approx(2 * np.sqrt(2) * 300 if name == "LLL" else 0, abs=1e-9)


def test_bands_of_a_checkerboard_along_columns() -> None:
    volume = np.ones((6, 8, 10), np.uint16)
    volume[:, :, 1::2] = 2  # 1 + x mod 2
    bands = wavelet_bands(Region.of(volume))
    root = np.sqrt(2)
    for name, values in bands.items():
        wanted = {"HLL": root, "LLL": 2 * root + root}.get(name, 0.0)
        assert np.abs(values) == pytest.approx(wanted, abs=1e-9)


def test_bands_report_their_slabs() -> None:
    told: list[float] = []
    wavelet_bands(Region.of(np.full((70, 4, 4), 9, np.uint16)), told.append)
    assert told == pytest.approx([32 / 70, 64 / 70, 1.0])


# --- scaling --------------------------------------------------------------------------------------


def test_scaling_of_a_value() -> None:
    features = scaling().mean.copy()
    features[INDEX["10Percentile"]] = 56
    found = scale(features)
    assert found.values[INDEX["10Percentile"]] == pytest.approx(0.148551, abs=1e-6)
    half = np.float16(found.values[INDEX["10Percentile"]])
    assert float(half) == pytest.approx(0.14856, abs=1e-5)
    assert found.values[INDEX["Minimum"]] == 0
    assert found.values.dtype == np.float32
    assert (found.replaced, found.clipped) == ((), ())


def test_published_rows(shared: Path) -> None:
    rows = np.load(shared / "specs/golden_mtl/published_feature_rows.npz")
    assert tuple(rows["names"]) == FEATURES
    for raw, scaled in zip(rows["raw"], rows["scaled"], strict=True):
        found = scale(raw)
        assert (found.replaced, found.clipped) == ((), ())
        away = np.abs(found.values.astype(np.float16) - scaled).astype(np.float64)
        assert (away <= np.spacing(np.maximum(scaled, np.float16(2**-14)))).all()


def test_published_constants(shared: Path) -> None:
    with (shared / "specs/golden_mtl/published_feature_stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["feature"] for row in rows] == list(FEATURES)
    by = scaling()
    for name, column in (("min", by.low), ("max", by.high), ("mean", by.mean)):
        assert np.array_equal(column, [float(row[name]) for row in rows])


def test_values_far_off_are_limited_and_missing_ones_replaced() -> None:
    by = scaling()
    features = by.mean.copy()
    features[3], features[4], features[5], features[6] = np.nan, np.inf, by.high[5] * 10, -1e9
    found = scale(features)
    assert found.replaced == (FEATURES[3], FEATURES[4])
    assert found.clipped == (FEATURES[5], FEATURES[6])
    middle = ((by.mean - by.low) / np.maximum(by.high - by.low, 1e-12))[3:5].tolist()
    assert found.values[3:7] == pytest.approx([*middle, 1.5, -0.5], rel=1e-6)
    assert np.isfinite(found.values).all()
    with pytest.raises(InputError, match="give the 375"):
        scale(features[1:])


# --- the step, and what cannot be computed --------------------------------------------------------


def test_the_python_step(case: dict[str, np.ndarray], computed: np.ndarray) -> None:
    found = radiomics_step(case["vol"])
    declared = {t.name: (t.shape, t.dtype) for t in RADIOMICS_STEP.outputs}
    kinds = {"FP64": np.float64, "FP32": np.float32, "INT32": np.int32}
    assert set(found) == set(declared)
    for name, array in found.items():
        shape, kind = declared[name]
        assert (array.shape, array.dtype) == (shape, kinds[kind])
    assert np.array_equal(found["features"], computed)
    assert np.array_equal(found["scaled"], scale(computed).values)
    assert found["replaced"].tolist() == [0]


@pytest.mark.filterwarnings("error")
def test_features_that_cannot_be_computed_are_reported() -> None:
    volume = np.zeros((30, 30, 30), np.uint16)
    volume[::3, ::3, ::3] = 100  # no two voxels touch
    found = radiomics_step(volume)
    assert np.isnan(found["features"][INDEX["Contrast"]])
    assert found["replaced"][0] == np.isnan(found["features"]).sum() > 100
    assert np.isfinite(found["scaled"]).all()


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (np.s_[3:3], "no lung in the volume"),
        (np.s_[3:4, 4:5, 5:6], "a single voxel has no radiomic features"),
        (np.s_[3:4, 2:7, 5:6], "5 voxels in one line"),
    ],
)
def test_masks_without_texture_are_refused(at: tuple[slice, ...], message: str) -> None:
    volume = np.zeros((9, 9, 9), np.uint16)
    volume[at] = 70
    with pytest.raises(InputError, match=message):
        radiomic_features(volume)


def test_a_flat_region_has_features() -> None:
    volume = np.zeros((9, 9, 9), np.uint16)
    volume[3:6, 3:6, 3:6] = 100
    found = radiomic_features(volume)
    assert found[INDEX["Variance"]] == 0
    assert found[INDEX["Uniformity"]] == 1
    assert relative(found, published_features(volume)) < 1e-9


@pytest.mark.parametrize("limit", [0.1, 0.2, 0.5])
def test_work_ends_when_that_is_wished(case: dict[str, np.ndarray], limit: float) -> None:
    stop, told = threading.Event(), []

    def progress(share: float) -> None:
        told.append(share)
        if share >= limit:
            stop.set()

    with pytest.raises(CancelledError):
        radiomic_features(case["vol"], watch=Watch(progress, stop))
    assert limit <= told[-1] < 0.7
