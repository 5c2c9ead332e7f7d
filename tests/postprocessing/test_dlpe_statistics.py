"""Statistics of a cohort: the published helpers' golden numbers, and their sound counterparts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hilum.postprocessing.dlpe import statistics


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "dlpe_quant" / "12_statistics.npz")


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "dlpe_quant" / "12_statistics.json").read_text())


def test_golden_correlations(stored, expected) -> None:
    x, y, z = (stored[name] for name in "xyz")
    slope, intercept, r, error = expected["linear_fit"]
    # The published r has the wrong sign.
    assert statistics.linear_fit(x, y) == pytest.approx((slope, intercept, -r, error), rel=1e-6)
    assert statistics.pearson(x, y)[0] == pytest.approx(expected["pearson"][0], rel=1e-6)
    assert statistics.spearman(x, y) == pytest.approx(expected["spearman_strict"], rel=1e-6)
    assert statistics.spearman(y, z) == pytest.approx(expected["spearman_strict_yz"], rel=1e-6)
    loose = statistics.published_loose_spearman(y, z)
    assert loose == pytest.approx(expected["spearman_loose"], rel=1e-6)


def test_golden_errors_and_trimmed_values(stored, expected) -> None:
    x, y = stored["x"], stored["y"]
    assert statistics.error_norm(x, y, 1) == pytest.approx(expected["mae"], rel=1e-6)
    assert statistics.error_norm(x, y, 2) == pytest.approx(expected["rmse"], rel=1e-6)
    relative = statistics.error_norm(x, np.abs(y), 2, base=5)
    assert relative == pytest.approx(expected["relative_rmse_base5"], rel=1e-6)
    values = stored["stat_array"][stored["stat_mask"] > 0]
    found = statistics.published_trimmed(values, 0.2)
    assert found == pytest.approx(expected["stat_on_mask_0_2"], rel=1e-6)
    symmetric = statistics.trimmed(values, 0.2)
    assert symmetric[0] == pytest.approx(found[0], rel=1e-2)
    changed = statistics.published_range(np.array([0, 0.5, 1.0]), 0, 10)
    np.testing.assert_allclose(changed, expected["linear_value_change_0_10"], atol=1e-6)


def test_golden_power_law(stored, expected) -> None:
    slope, intercept, r = expected["scale_free_power_1_75"]
    found = statistics.power_law(stored["frequency"], 20)
    assert found == pytest.approx((slope, intercept, -r), rel=1e-6)


def test_sound_tests_tell_dependence_from_chance(stored) -> None:
    x, y = stored["x"], stored["y"]
    chance = np.random.default_rng(8).permutation(y)
    assert statistics.permutation_p(x, y, 200) == pytest.approx(1 / 201)
    assert statistics.permutation_p(x, chance, 200) > 0.05
    assert statistics.dependence_p(x, y) < 1e-3 < statistics.dependence_p(x, chance)
    low, high = statistics.fisher_interval(statistics.pearson(x, y)[0], len(x)) or (0, 0)
    assert 0.7 < low < 0.8565 < high < 0.93
    assert statistics.fisher_interval(1.0, 40) is None
