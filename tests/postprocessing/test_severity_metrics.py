"""The published scores, errors and thresholds of the X-ray system follow from its zones' shares."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from hilum.catalog.cxr_severity import DISEASE
from hilum.postprocessing.cxr_severity.metrics import severity_score

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
    return rows, np.load(folder / "segments.npz")


def column(rows, name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def test_published_errors_of_the_nine_networks(published) -> None:
    rows, segments = published
    kept = segments["image_idx"]
    test = np.array([rows[i]["subset"] == "test" for i in kept])
    truth = column(rows, "gt")[kept]
    for name, shares, stored in zip(
        segments["nets"], segments["fractions"], segments["score"], strict=True
    ):
        facts = DISEASE[NAMES[str(name)]]
        scores = severity_score(shares, facts.zone_threshold)
        np.testing.assert_array_equal(scores, stored)
        errors = np.abs(scores - truth)[test]
        assert len(errors) == 135
        assert round(float(errors.mean()) + 1e-9, 2) == facts.mae
    assert len(segments["nets"]) == 9


def test_thresholds_chosen_without_the_test_set(published) -> None:
    rows, segments = published
    kept = segments["image_idx"]
    chosen_on = np.array([rows[i]["subset"] != "test" for i in kept])
    truth = column(rows, "gt")[kept][chosen_on]
    for name, shares in zip(segments["nets"], segments["fractions"], strict=True):
        facts = DISEASE[NAMES[str(name)]]
        if facts.corrected_threshold is None:
            assert not shares.any()
            continue
        maes = [
            np.abs(severity_score(shares[chosen_on], k * 0.01) - truth).mean() for k in range(101)
        ]
        assert int(np.argmin(maes)) == round(100 * facts.corrected_threshold)


def test_analytic_score_of_the_first_stored_image() -> None:
    shares = (
        0.760561708860759, 0.680506349269535, 0.675605880015892,
        0.38128100064697, 0.558395864000287, 0.000253155401251,
    )  # fmt: skip
    assert severity_score(shares, 0.31) == 5


def test_score_counts_along_the_last_axis_and_ignores_nan() -> None:
    shares = np.array([[0.4, np.nan, 0.2, 0.3, 0.31, 1], [np.nan] * 6])
    assert severity_score(shares, 0.3).tolist() == [3, 0]
