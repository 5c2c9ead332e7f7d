"""COVID-MTL's three answers: classes from probabilities, and whether they agree (spec §12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import HEADS
from hilum.catalog.errors import InputError

INCONSISTENT = "the nucleic-acid test and the severity contradict each other"
"""In the published cases the severity is 0 exactly when the test is negative."""

UNSEEN = "severe, but negative against the radiologist's reading"
"""A combination that never occurs in the published cases."""

_SUM_TOLERANCE = 1e-2
"""FP16 networks round their probabilities."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The three answers for one scan.

    Attributes
    ----------
    classes
        By head (`catalog.covid_mtl.HEADS`): index of the most probable class.
    consistent
        The nucleic-acid test and the severity agree.
    unseen
        They are a combination that never occurs in the published cases.
    notes
        Contradictions, human-readable.
    """

    classes: Mapping[str, int]
    consistent: bool
    unseen: bool
    notes: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The classes by head, in words."""
        return {name: HEADS[name].classes[index] for name, index in self.classes.items()}


def answer(probabilities: Mapping[str, NDArray[Any]]) -> Answers:
    """Decide for the most probable class of each head, the first of several equal ones.

    Parameters
    ----------
    probabilities
        By head: float [2] for ``ct`` and ``nat``, [3] for ``severity``.

    Raises
    ------
    InputError
        For a head that is missing, and for what are no probabilities.
    """
    classes = {name: most_probable(name, probabilities.get(name)) for name in HEADS}
    consistent = (classes["nat"] == 0) == (classes["severity"] == 0)
    unseen = classes["ct"] == 0 and classes["severity"] == 2
    notes = (INCONSISTENT,) * (not consistent) + (UNSEEN,) * unseen
    return Answers(classes, consistent, unseen, notes)


def most_probable(name: str, values: NDArray[Any] | None) -> int:
    """Index of the most probable class of a head, see `answer`."""
    wanted = len(HEADS[name].classes)
    given = np.asarray([] if values is None else values, np.float64)
    proper = given.shape == (wanted,) and np.isfinite(given).all()
    if not proper or given.min() < 0 or abs(given.sum() - 1) > _SUM_TOLERANCE:
        raise InputError(
            f"{HEADS[name].output}: {given.tolist()} are no {wanted} probabilities; look at the "
            "network's weights"
        )
    return int(given.argmax())
