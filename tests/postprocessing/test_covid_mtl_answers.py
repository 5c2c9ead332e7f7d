"""COVID-MTL's decisions, and the metrics of published predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hilum.catalog.errors import InputError
from hilum.postprocessing.classification_metrics import (
    average_precision,
    confusion,
    one_vs_rest_auc,
    published_auc,
    roc_auc,
    weighted_averages,
)
from hilum.postprocessing.covid_mtl import INCONSISTENT, UNSEEN, answer


def heads(ct: int, nat: int, severity: int) -> dict[str, np.ndarray]:
    return {
        "ct": np.where(np.arange(2) == ct, 0.7, 0.3).astype(np.float32),
        "nat": np.where(np.arange(2) == nat, 0.6, 0.4).astype(np.float32),
        "severity": np.where(np.arange(3) == severity, 0.5, 0.25).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("classes", "flags"),
    [
        ((0, 0, 0), ()), ((1, 0, 0), ()), ((0, 1, 1), ()), ((1, 1, 1), ()), ((1, 1, 2), ()),
        ((1, 0, 1), (INCONSISTENT,)), ((1, 1, 0), (INCONSISTENT,)), ((0, 1, 2), (UNSEEN,)),
        ((0, 0, 2), (INCONSISTENT, UNSEEN)),
    ],
)  # fmt: skip
def test_classes_and_flags(classes: tuple[int, int, int], flags: tuple[str, ...]) -> None:
    found = answer(heads(*classes))
    assert tuple(found.classes.values()) == classes
    assert found.flags == flags
    assert found.consistent == (INCONSISTENT not in flags)


def test_names() -> None:
    assert answer(heads(1, 1, 2)).names == {
        "ct": "positive", "nat": "positive", "severity": "severe or critically ill",
    }  # fmt: skip


def test_untrained_heads_answer_with_the_first_class() -> None:
    found = answer({"ct": [0.5, 0.5], "nat": [0.5, 0.5], "severity": [1 / 3, 1 / 3, 1 / 3]})  # type: ignore[dict-item]
    assert set(found.classes.values()) == {0}
    assert found.consistent


@pytest.mark.parametrize(
    "ct", [None, [0.5], [0.2, 0.3, 0.5], [np.nan, 1], [1.2, -0.2], [0.9, 0.9], [[0.5, 0.5]]]
)
def test_what_is_no_probability_is_refused(ct: Any) -> None:
    given = {**heads(0, 0, 0), "ct": ct}
    with pytest.raises(InputError, match=r"p_ct: .* are no 2 probabilities"):
        answer(given if ct is not None else {k: v for k, v in given.items() if k != "ct"})


def test_published_predictions(shared: Path) -> None:
    file = np.load(shared / "specs/golden_mtl/decovnet_published_predictions.npz")
    label, p = file["label"], file["prob_positive"]
    assert roc_auc(label, p) == pytest.approx(0.9590476, abs=5e-8)
    assert average_precision(label, p) == pytest.approx(0.9757088, abs=5e-8)
    table = confusion(label, p)
    assert (table.tp, table.fp, table.tn, table.fn) == (63, 1, 55, 12)
    assert table.accuracy == pytest.approx(0.9007634, abs=5e-8)
    assert table.sensitivity == 63 / 75
    assert table.specificity == 55 / 56
    assert table.ppv == 63 / 64
    assert table.npv == 55 / 67
    assert published_auc(label, p) == pytest.approx(0.9552, abs=5e-5)


def test_auc_counts_pairs() -> None:
    rng = np.random.default_rng(4)
    label = rng.random(80) < 0.4
    score = np.round(rng.random(80) + 0.3 * label, 1)  # many equal ones
    pairs = score[label][:, None] - score[~label][None]
    assert roc_auc(label, score) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    both = np.stack([1 - score, score], axis=1)
    assert one_vs_rest_auc(label, both) == pytest.approx([roc_auc(label, score)] * 2)
    assert published_auc(label, both) == pytest.approx(roc_auc(label, score), abs=0.02)


def test_one_class_has_no_auc() -> None:
    assert np.isnan(roc_auc([1, 1], [0.2, 0.3]))
    assert np.isnan(confusion([0, 0], [0.2, 0.3]).sensitivity)


def test_average_precision_by_hand() -> None:
    assert average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx((1 + 2 / 3) / 2)


def test_weighted_averages_by_hand() -> None:
    found = weighted_averages([0, 0, 0, 1, 2], [0, 0, 1, 1, 1])
    assert found.accuracy == found.recall == pytest.approx(3 / 5)
    assert found.precision == pytest.approx(3 / 5 * 1 + 1 / 5 * 1 / 3)
    assert found.f1 == pytest.approx(3 / 5 * 0.8 + 1 / 5 * 0.5)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="two equal lengths"):
        roc_auc([1, 0], [0.5])
