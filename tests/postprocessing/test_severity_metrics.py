"""Scores and errors against the published comparison."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hilum.catalog.cxr_severity import DISEASE
from hilum.postprocessing.severity_metrics import (
    bsnet_score,
    covidnet_raw,
    covidnet_score,
    ground_truth,
    score_errors,
    severity_score,
)

NAMES = {
    "MAnet": "manet", "Unet": "unet", "Unet++": "unetplusplus", "DeepLabV3": "deeplabv3",
    "DeepLabV3+": "deeplabv3plus", "FPN": "fpn", "Linknet": "linknet", "PSPNet": "pspnet",
    "PAN": "pan",
}  # fmt: skip


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "specs" / "golden_cxr"
    with (folder / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    segments = np.load(folder / "segments.npz")
    probabilities = np.load(folder / "bsnet_probs.npz")["probs"]
    return rows, segments, probabilities


def column(rows, name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def test_readers_to_ground_truth(published) -> None:
    rows, segments, _ = published
    truth = ground_truth(column(rows, "score_r"), column(rows, "score_d"))
    kept = segments["image_idx"]
    np.testing.assert_array_equal(truth[kept], column(rows, "gt")[kept])


def test_eleven_published_errors(published) -> None:
    rows, segments, probabilities = published
    kept = segments["image_idx"]
    test = np.array([rows[i]["subset"] == "test" for i in kept])
    truth = ground_truth(column(rows, "score_r"), column(rows, "score_d"))[kept]
    errors = {}
    for name, shares, stored in zip(
        segments["nets"], segments["fractions"], segments["score"], strict=True
    ):
        facts = DISEASE[NAMES[str(name)]]
        scores = severity_score(shares, facts.zone_threshold)
        np.testing.assert_array_equal(scores, stored)
        errors[facts.name] = score_errors(scores[test], truth[test])
        assert errors[facts.name].count == 135
        assert round(errors[facts.name].mae + 1e-9, 2) == facts.mae
    assert len(errors) == 9
    bsnet = bsnet_score(probabilities)
    np.testing.assert_array_equal(bsnet, column(rows, "bsnet"))
    assert round(score_errors(bsnet[kept][test], truth[test]).mae, 2) == 2.52
    covidnet = covidnet_score(column(rows, "covidnet_geo_raw"))
    np.testing.assert_array_equal(covidnet, column(rows, "covidnet_geo"))
    assert round(score_errors(covidnet[kept][test], truth[test]).mae, 2) == 1.83
    assert errors["manet"].rmse == pytest.approx(0.655, abs=5e-4)
    assert errors["manet"].r2 == pytest.approx(0.900, abs=5e-4)
    assert errors["deeplabv3"].r2 == pytest.approx(-0.503, abs=5e-4)


def test_thresholds_chosen_without_the_test_set(published) -> None:
    rows, segments, _ = published
    kept = segments["image_idx"]
    chosen_on = np.array([rows[i]["subset"] != "test" for i in kept])
    truth = column(rows, "gt")[kept][chosen_on]
    for name, shares in zip(segments["nets"], segments["fractions"], strict=True):
        facts = DISEASE[NAMES[str(name)]]
        if facts.corrected_threshold is None:
            assert not shares.any()
            continue
        maes = [
            score_errors(severity_score(shares[chosen_on], k * 0.01), truth).mae for k in range(101)
        ]
        assert int(np.argmin(maes)) == round(100 * facts.corrected_threshold)


def test_analytic_ground_truth() -> None:
    assert ground_truth([3, np.nan, 1], [4, 2, 5]).tolist() == [3.5, 2, 3]
    assert np.isnan(ground_truth([np.nan], [np.nan])).all()


def test_analytic_comparators() -> None:
    assert covidnet_raw([0, 0, 0]) == pytest.approx(0.5)
    assert covidnet_raw([20, 0, 0]) == pytest.approx(1 / 6, abs=1e-8)
    assert covidnet_score([0.5, 1 / 6, 0.5915357520182927]).tolist() == [3, 1, 4]
    assert bsnet_score(np.eye(4)[[0, 1, 3, 0, 2, 0]]) == 3


def test_analytic_score_of_the_first_stored_image() -> None:
    shares = (
        0.760561708860759, 0.680506349269535, 0.675605880015892,
        0.38128100064697, 0.558395864000287, 0.000253155401251,
    )  # fmt: skip
    assert severity_score(shares, 0.31) == 5


def test_score_counts_along_the_last_axis_and_ignores_nan() -> None:
    shares = np.array([[0.4, np.nan, 0.2, 0.3, 0.31, 1], [np.nan] * 6])
    assert severity_score(shares, 0.3).tolist() == [3, 0]


def test_errors_of_known_scores() -> None:
    errors = score_errors([1, 2, 3], [1, 4, 2])
    assert errors.mae == pytest.approx(1)
    assert errors.mse == pytest.approx(5 / 3)
    assert errors.rmse == pytest.approx((5 / 3) ** 0.5)
    assert errors.r2 == pytest.approx(1 - 5 / (14 / 3))
    assert np.isnan(score_errors([1, 2], [3, 3]).r2)
    with pytest.raises(ValueError, match="equal lengths"):
        score_errors([1], [1, 2])
    with pytest.raises(ValueError, match="equal lengths"):
        score_errors([], [])
