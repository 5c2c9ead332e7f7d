"""How well classifiers do, as articles count it: ROC and PR curves, tables at a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GRID = 100
"""Points of COVID-MTL's published ROC curves."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of a binary classifier.

    Attributes
    ----------
    tp, fp, tn, fn
        True positive, false positive, true negative, false negative cases.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def accuracy(self) -> float:
        """Share of cases that are classified rightly."""
        return _share(self.tp + self.tn, self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """Share of positive cases that are found."""
        return _share(self.tp, self.fn)

    @property
    def specificity(self) -> float:
        """Share of negative cases that are left alone."""
        return _share(self.tn, self.fp)

    @property
    def ppv(self) -> float:
        """Positive predictive value."""
        return _share(self.tp, self.fp)

    @property
    def npv(self) -> float:
        """Negative predictive value."""
        return _share(self.tn, self.fn)


@dataclass(frozen=True, slots=True)
class Averages:
    """Precision, recall and F1 of all classes, weighted by their numbers of cases; accuracy."""

    precision: float
    recall: float
    f1: float
    accuracy: float


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> Confusion:
    """Count a binary classifier's answers; positive is a score of the threshold or more.

    Parameters
    ----------
    labels
        0 or 1, [n].
    scores
        [n].
    """
    truth, values = _checked(labels, scores)
    given = values >= threshold
    return Confusion(
        int((given & truth).sum()), int((given & ~truth).sum()),
        int((~given & ~truth).sum()), int((~given & truth).sum()),
    )  # fmt: skip


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, exact: the share of pairs in order, equal scores counted half.

    Parameters
    ----------
    labels
        0 or 1, [n].
    scores
        [n].

    Returns
    -------
    NaN when there is one class only.
    """
    return _area(*_roc(labels, scores))


def one_vs_rest_auc(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """`roc_auc` of each class against all others.

    Parameters
    ----------
    labels
        Integers, [n].
    scores
        [n, classes].
    """
    truth, values = np.asarray(labels), np.asarray(scores, np.float64)
    return np.array([roc_auc(truth == c, values[:, c]) for c in range(values.shape[1])])


def published_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve as COVID-MTL's program draws it (spec covid_mtl §12).

    Parameters
    ----------
    labels
        Integers, [n].
    scores
        [n, classes], of a binary classifier both columns; or [n], of class 1 alone.

    Notes
    -----
    The curve of each class is read at 100 false positive rates, its ends are set to 0 and 1, and
    the curves are averaged. Use `roc_auc` to judge a classifier.
    """
    truth, values = np.asarray(labels), np.asarray(scores, np.float64)
    columns = {1: values} if values.ndim == 1 else dict(enumerate(values.T))
    grid = np.linspace(0, 1, _GRID)
    mean = np.mean([np.interp(grid, *_roc(truth == c, v)) for c, v in columns.items()], axis=0)
    mean[0], mean[-1] = 0.0, 1.0
    return _area(grid, mean)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve by steps: Σ (Rᵢ − Rᵢ₋₁) Pᵢ.

    Parameters
    ----------
    labels
        0 or 1, [n].
    scores
        [n].
    """
    positive, given = _counts(labels, scores)
    recall = positive / positive[-1]
    return float((np.diff(recall) * (positive[1:] / given[1:])).sum())


def weighted_averages(labels: ArrayLike, answers: ArrayLike) -> Averages:
    """Average precision, recall and F1 over the classes by their numbers of cases.

    Parameters
    ----------
    labels, answers
        Integers, [n].
    """
    truth, given = np.asarray(labels), np.asarray(answers)
    sums = np.zeros(3)
    for c in np.unique(truth):
        hits = float(((truth == c) & (given == c)).sum())
        precision = hits / max(1, int((given == c).sum()))
        recall = hits / int((truth == c).sum())
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        sums += np.array([precision, recall, f1]) * (truth == c).mean()
    return Averages(*sums.tolist(), accuracy=float((truth == given).mean()))


def _roc(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """False and true positive rates as the threshold falls."""
    positive, given = _counts(labels, scores)
    negative = given - positive
    with np.errstate(invalid="ignore", divide="ignore"):
        return negative / negative[-1], positive / positive[-1]


def _area(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Area under the straight lines between points."""
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def _counts(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positive cases, and all cases, at each score or above; begins with 0."""
    truth, values = _checked(labels, scores)
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    positive = np.cumsum(truth[order])[ends]
    return np.insert(positive, 0, 0), np.insert(ends + 1, 0, 0)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, values = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if truth.shape != values.shape or truth.ndim != 1 or truth.size == 0:
        raise ValueError(f"labels {truth.shape} and scores {values.shape}: give two equal lengths")
    return truth, values


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else float("nan")
