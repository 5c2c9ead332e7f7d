"""Scores and their errors, as the published comparison counts them (spec cxr §8.3, §10, §11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class ScoreErrors:
    """Errors of severity scores against the ground truth, in points.

    Attributes
    ----------
    count
        Number of images.
    mae, mse, rmse
        Mean absolute, mean squared, root mean squared error.
    r2
        1 − SSE/SST; NaN where the ground truth does not vary.
    """

    count: int
    mae: float
    mse: float
    rmse: float
    r2: float


def severity_score(fractions: ArrayLike, zone_threshold: float) -> Any:
    """Count the zones whose diseased share is strictly above the threshold.

    Parameters
    ----------
    fractions
        Float [..., 6]; NaN (no such zone) never counts.

    Returns
    -------
    Integers of shape [...].
    """
    return (np.asarray(fractions) > zone_threshold).sum(axis=-1)


def ground_truth(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Average the scores of two readers, not rounded; a missing one (NaN) is replaced by the other.

    Parameters
    ----------
    first, second
        Float [n].

    Returns
    -------
    float64 [n]; NaN where neither reader scored.
    """
    r, d = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return (np.where(np.isnan(r), d, r) + np.where(np.isnan(d), r, d)) / 2


def score_errors(scores: ArrayLike, truth: ArrayLike) -> ScoreErrors:
    """Compare scores with the ground truth.

    Parameters
    ----------
    scores, truth
        [n], no NaN.

    Raises
    ------
    ValueError
        For different lengths or no image at all.
    """
    given, wanted = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    if given.shape != wanted.shape or given.ndim != 1 or given.size == 0:
        raise ValueError(f"scores {given.shape} and truth {wanted.shape}: give two equal lengths")
    squared = np.square(given - wanted)
    mse = float(squared.mean())
    spread = float(np.square(wanted - wanted.mean()).sum())
    return ScoreErrors(
        count=given.size,
        mae=float(np.abs(given - wanted).mean()),
        mse=mse,
        rmse=float(np.sqrt(mse)),
        r2=1 - float(squared.sum()) / spread if spread > 0 else float("nan"),
    )


def bsnet_score(probabilities: ArrayLike) -> NDArray[np.int64]:
    """Map BS-net's output to 0…6: the regions whose most probable grade is not 0.

    Parameters
    ----------
    probabilities
        Float [..., 6 regions, 4 grades].

    Returns
    -------
    int64 [...].
    """
    return (np.asarray(probabilities).argmax(axis=-1) > 0).sum(axis=-1)


def covidnet_raw(logits: ArrayLike) -> NDArray[np.float64]:
    """Average COVID-Net-S's three grades, from logits [..., 3] to a raw score of 1/6 to 5/6."""
    x = np.asarray(logits, np.float64)
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights @ np.array([1, 3, 5]) / 6 / weights.sum(axis=-1)


def covidnet_score(raw: ArrayLike) -> NDArray[np.int64]:
    """Map COVID-Net-S's raw score to 0…6: six times it, rounded half to even."""
    return np.rint(6 * np.asarray(raw, np.float64)).astype(np.int64)
