"""COVID-MTL's decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.postprocessing.covid_mtl import INCONSISTENT, UNSEEN, answer


def heads(ct: int, nat: int, severity: int) -> dict[str, np.ndarray]:
    return {
        "ct": np.where(np.arange(2) == ct, 0.7, 0.3).astype(np.float32),
        "nat": np.where(np.arange(2) == nat, 0.6, 0.4).astype(np.float32),
        "severity": np.where(np.arange(3) == severity, 0.5, 0.25).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("classes", "notes"),
    [
        ((0, 0, 0), ()), ((1, 0, 0), ()), ((0, 1, 1), ()), ((1, 1, 1), ()), ((1, 1, 2), ()),
        ((1, 0, 1), (INCONSISTENT,)), ((1, 1, 0), (INCONSISTENT,)), ((0, 1, 2), (UNSEEN,)),
        ((0, 0, 2), (INCONSISTENT, UNSEEN)),
    ],
)  # fmt: skip
def test_classes_and_contradictions(classes: tuple[int, int, int], notes: tuple[str, ...]) -> None:
    found = answer(heads(*classes))
    assert tuple(found.classes.values()) == classes
    assert found.notes == notes
    assert found.unseen == (UNSEEN in notes)
    assert found.consistent == (INCONSISTENT not in notes)


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
