"""Enhancement: golden files, analytic vectors, the definition in full volumes, small rings."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.benchmarks import dlpe_direct as direct
from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.enhancement import (
    corrected_statistics,
    enhance,
    published_statistics,
    sampling_ring,
    upper_frontal_box,
)
from hilum.postprocessing.dlpe.tubes import extend


def load(golden, name):
    stored = np.load(golden / "dlpe" / name)
    ct = (stored["hu"].astype(np.float32) + np.float32(600)) / np.float32(1600)
    return stored, (ct, stored["lung"], stored["airway"], stored["vessel"])


@pytest.fixture(scope="module")
def phantom(golden):
    return load(golden, "06_enhancement.npz")


def test_parity_with_the_golden_phantom(phantom) -> None:
    stored, scan = phantom
    before = [a.copy() for a in scan]
    found = enhance(*scan)
    np.testing.assert_array_equal(found.ring, stored["up_ring"])
    assert (found.ring_voxels, found.outside_lung, found.fallback) == (380, 22, False)
    assert "22 of 380" in found.notes[0]
    assert found.baseline == stored["up_baseline"]
    assert found.window_level == stored["up_window_level"]
    assert found.window_width == pytest.approx(float(stored["up_window_width"]), abs=2e-5)
    assert found.volume.dtype == np.float32
    np.testing.assert_array_equal(found.volume, stored["up_enhanced"])
    for now, given in zip(scan, before, strict=True):
        np.testing.assert_array_equal(now, given)


def test_corrected_with_the_golden_phantom(phantom) -> None:
    stored, scan = phantom
    found = enhance(*scan, mode="corrected")
    np.testing.assert_array_equal(found.ring, stored["corr_ring"])
    assert (found.outside_lung, found.fallback, found.notes) == (0, False, ())
    for name in ("baseline", "std", "window_level", "window_width"):
        assert getattr(found, name) == pytest.approx(float(stored[f"corr_{name}"]), abs=1e-9)


def test_upper_frontal_variant_of_the_golden_phantom(phantom) -> None:
    stored, scan = phantom
    box = upper_frontal_box(scan[1])
    assert [[s.start, s.stop] for s in box] == stored["up_upper_frontal_box"].tolist()
    found = enhance(*scan, variant="upper-frontal")
    assert found.baseline == stored["up_upper_frontal_baseline"]
    assert found.outside_lung == 0
    assert "samples in the upper frontal lung" in found.notes[0]


def test_parity_with_the_golden_pipeline(golden) -> None:
    stored, scan = load(golden, "10_pipeline.npz")
    found = enhance(*scan)
    np.testing.assert_array_equal(found.ring, stored["up_ring"])
    assert (found.ring_voxels, found.outside_lung) == (2025, 666)
    assert found.window_level == stored["window_level"]
    assert found.window_width == pytest.approx(float(stored["window_width"]), abs=2e-5)
    sampled = found.volume[tuple(stored["sample_idx"].T)]
    np.testing.assert_array_equal(sampled, stored["enhanced_sample"])
    assert found.volume.sum(dtype=np.float64) == pytest.approx(float(stored["enhanced_sum"]))


def slab() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CT, lung, airway, vessel of the analytic vector 9."""
    lung = np.zeros((48, 48, 3), np.uint8)
    lung[2:46, 2:46] = 1
    vessel = np.zeros_like(lung)
    vessel[14:34, 14:34, 1] = 1
    ct = np.where(vessel, np.float32(0.4), np.float32(-0.15))
    return ct, lung, np.zeros_like(lung), vessel


def test_uniform_parenchyma() -> None:
    found = enhance(*slab())
    assert (found.ring_voxels, found.outside_lung) == (172, 0)
    assert found.baseline == -0.14999961853027344
    assert found.window_level == -839.9993896484375
    assert found.window_width == pytest.approx(0.0023, abs=5e-5)
    assert np.abs(found.volume).max() < 5e-7
    exact = enhance(*slab(), mode="corrected")
    assert exact.window_width == 0
    assert exact.baseline == np.float32(-0.15)


def test_samples_outside_the_lung_widen_the_published_window() -> None:
    ct, lung, airway, vessel = slab()
    lung[34:] = 0
    found = enhance(ct, lung, airway, vessel)
    assert (found.ring_voxels, found.outside_lung) == (172, 46)
    assert found.window_level == -839.9993896484375
    assert found.window_width == pytest.approx(147.059, abs=5e-4)
    corrected = enhance(ct, lung, airway, vessel, mode="corrected")
    assert (corrected.ring_voxels, corrected.window_width) == (126, 0)


def test_graded_parenchyma() -> None:
    ct, lung, airway, vessel = slab()
    ring = sampling_ring(lung, vessel) > 0
    ct[ring] = np.random.default_rng(0).permutation(172).astype(np.float32) / 1024 - 0.25
    found = enhance(ct, lung, airway, vessel)
    assert (found.baseline, found.window_level) == (-0.166015625, -865.625)
    assert found.window_width == pytest.approx(92.6893, abs=5e-5)


@pytest.mark.parametrize(
    ("n", "rank", "low", "high"),
    [(2, 1, 1, 2), (3, 2, 1, 3), (4, 2, 1, 4), (5, 3, 1, 5), (10, 5, 1, 9), (11, 6, 2, 10)],
)
def test_order_statistics(n, rank, low, high) -> None:
    ordered = np.arange(n, dtype=np.float32) ** 2 / 1024
    shuffled = np.random.default_rng(n).permutation(ordered)
    baseline, std = published_statistics(shuffled)
    assert baseline == ordered[rank]
    assert std == pytest.approx(float(ordered[low:high].std()), abs=1e-6)
    baseline, std = corrected_statistics(shuffled)
    assert baseline == np.median(ordered)
    low, high = n - 9 * n // 10, n - n // 10
    assert std == pytest.approx(float(ordered[low:high].std(dtype=np.float64)), abs=1e-12)


def test_the_published_median_rounds_its_samples() -> None:
    samples = np.array([0.1, 0.1 + 2**-24, 0.3], np.float32)
    assert published_statistics(samples[[2, 0]])[0] == np.float32(10.3) - 10.0
    assert corrected_statistics(samples)[0] == float(samples[1])


@pytest.mark.parametrize("seed", range(5))
def test_random_scans_agree_with_the_definition(seed) -> None:
    rng = np.random.default_rng(seed)
    lung = np.zeros((40, 36, 9), np.uint8)
    lung[4:36, 5:31] = 1
    ct = rng.normal(-0.15, 0.05, lung.shape).astype(np.float32)
    airway, vessel = np.zeros_like(lung), np.zeros_like(lung)
    for mask in (airway, vessel):
        for z in range(9):
            x, y, a, b = rng.integers((4, 4, 2, 2), (26, 22, 14, 14))
            mask[x : x + a, y : y + b, z] = 1
    structures = ((airway + vessel) * lung > 0).astype(np.uint8)
    outlines = extend(structures, 1.1, 50), extend(structures, 1.1 + 0.1, 55)
    volume, baseline, std = direct.enhance(ct, lung, structures, *outlines)
    found = enhance(ct, lung, airway, vessel)
    assert (found.baseline, found.std) == (baseline, std)
    np.testing.assert_array_equal(found.volume, volume)


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_without_a_ring_all_lungs_serve(mode) -> None:
    ct, lung, airway, vessel = slab()
    ct[2:46, 2:46, 0] = -0.2
    found = enhance(ct, lung, airway, np.zeros_like(vessel), mode)
    assert found.fallback
    assert found.ring_voxels == 0
    assert found.baseline == np.float32(-0.15)
    assert "median of all 5808 voxels" in found.notes[0]


def test_a_ring_of_few_voxels_serves_in_parity_mode_only() -> None:
    lung = np.zeros((160, 160, 160), np.uint8)
    lung[5:-5, 5:-5, 5:-5] = 1
    vessel = np.zeros_like(lung)
    vessel[60:80, 60:80, 80] = 1
    ct = np.full(lung.shape, -0.2, np.float32)
    ct[56:84, 56:84, 80] = -0.1
    few = enhance(ct, lung, vessel, vessel)
    assert (few.ring_voxels, few.fallback) == (172, False)
    assert few.baseline == pytest.approx(-0.1, abs=1e-6)
    corrected = enhance(ct, lung, vessel, vessel, "corrected")
    assert (corrected.ring_voxels, corrected.fallback) == (172, True)
    assert corrected.baseline == np.float32(-0.2)
    assert "at least 305" in corrected.notes[0]


def test_box_of_the_upper_frontal_lung() -> None:
    lung = np.zeros((64, 64, 64), np.uint8)
    lung[20:30, 30:40, 7:58] = 1
    lung[12:53, 20:50, 40] = 1
    assert upper_frontal_box(lung) == (slice(12, 32), slice(0, 64), slice(40, 57))


def test_lungs_with_a_gap_at_the_height_of_the_box_fall_back() -> None:
    ct, lung, airway, vessel = (np.repeat(a, 3, axis=2) for a in slab())
    lung[:, :, 5] = 0
    found = enhance(ct, lung, airway, vessel, variant="upper-frontal")
    assert found.fallback


def test_a_high_baseline_of_the_upper_frontal_lung_is_reported() -> None:
    ct, lung, airway, vessel = slab()
    ct += np.float32(0.2)
    vessel[:, :, 2] = vessel[:, :, 1]
    lung[:, :, 0] = 0
    lung = np.concatenate([lung, lung[:, :, 2:]], axis=2)
    ct, airway, vessel = (np.concatenate([a, a[:, :, 2:]], axis=2) for a in (ct, airway, vessel))
    found = enhance(ct, lung, airway, vessel, variant="upper-frontal")
    assert found.baseline == pytest.approx(0.05, abs=1e-6)
    assert "is high: -520 HU" in found.notes[-1]


def test_what_cannot_be_enhanced_is_reported() -> None:
    ct, lung, airway, vessel = slab()
    with pytest.raises(InputError, match="no lung"):
        enhance(ct, np.zeros_like(lung), airway, vessel)
    with pytest.raises(InputError, match="all airways and vessels"):
        enhance(ct, vessel, airway, vessel, "corrected")
    with pytest.raises(InputError, match="one shape"):
        enhance(ct, lung, airway[1:], vessel)
