"""Statistics of a cohort, and the published program's helpers with their faults (spec §9.3).

`related` is what `hilum summary --relate` states, of sound parts. What is called published is for
comparison with the publication only. Needs SciPy (extra `scipy`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Relation:
    """How two values of the same scans hang together.

    Attributes
    ----------
    scans
        That have both values.
    slope, intercept
        Of the straight line by least squares, y over x.
    pearson, pearson_interval
        Correlation, and its 95 % interval (None for fewer than 4 scans, or on a straight line).
    spearman
        Correlation of ranks.
    permutation_p, dependence_p
        Probability that order agrees as well by chance, of shuffled scans; that x and y, cut in
        three levels, are independent (None for fewer than 9 scans).
    mean_difference, rms_difference
        Mean and root mean square of |x − y|, in the unit of both.
    """

    scans: int
    slope: float
    intercept: float
    pearson: float
    pearson_interval: tuple[float, float] | None
    spearman: float
    permutation_p: float
    dependence_p: float | None
    mean_difference: float
    rms_difference: float


def related(x: Values, y: Values) -> Relation | None:
    """Relate two values of each scan; None for fewer than 3 scans, or where one never varies."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    slope, intercept, r, _ = linear_fit(x, y)
    return Relation(
        len(x), slope, intercept, r, fisher_interval(r, len(x)), spearman(x, y)[0],
        permutation_p(x, y), dependence_p(x, y) if len(x) >= 9 else None,
        error_norm(x, y, 1), error_norm(x, y, 2),
    )  # fmt: skip


def pearson(x: Values, y: Values) -> tuple[float, float]:
    """Correlation and its p."""
    found: Any = stats.pearsonr(x, y)
    return float(found.statistic), float(found.pvalue)


def spearman(x: Values, y: Values) -> tuple[float, float]:
    """Correlation of ranks and its p."""
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)


def fisher_interval(r: float, n: int) -> tuple[float, float] | None:
    """95 % interval of a correlation over n samples; None for fewer than 4."""
    if n < 4 or abs(r) >= 1:
        return None
    reach = 1.96 / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)


def linear_fit(x: Values, y: Values) -> tuple[float, float, float, float]:
    """Slope, intercept, r and the standard error of r."""
    slope, intercept = np.polyfit(x, y, 1)
    r = pearson(x, y)[0]
    return float(slope), float(intercept), r, math.sqrt((1 - r * r) / (len(x) - 2))


def discordance(x: Values, y: Values) -> int:
    """Pairs of samples that x and y order alike, or unlike: the fewer of both."""
    upper = np.triu_indices(len(x), 1)
    product = np.sign(np.subtract.outer(x, x)[upper]) * np.sign(np.subtract.outer(y, y)[upper])
    return int(min((product > 0).sum(), (product < 0).sum()))


def permutation_p(x: Values, y: Values, shuffles: int = 1000, seed: int = 0) -> float:
    """Probability that shuffled samples agree as well: (1 + hits) / (1 + shuffles), never 0."""
    chance, own = np.random.default_rng(seed), discordance(x, y)
    hits = sum(discordance(x, chance.permutation(y)) <= own for _ in range(shuffles))
    return (1 + hits) / (1 + shuffles)


def dependence_p(x: Values, y: Values, levels: int = 3) -> float:
    """χ² test of independence of x and y, cut into levels of equal numbers of ranks."""
    cut = [np.argsort(np.argsort(v, kind="stable")) * levels // len(v) for v in (x, y)]
    table = np.zeros((levels, levels))
    np.add.at(table, tuple(cut), 1)
    found: Any = stats.chi2_contingency(table, correction=False)
    return float(found.pvalue)


def error_norm(x: Values, y: Values, power: float, base: float | None = None) -> float:
    """Mean error of a power; relative to the mean of both plus `base`, if that is given."""
    error = np.abs(x - y)
    if base is not None:
        error = error / (np.abs((x + y) / 2) + base)
    return float(np.mean(error**power) ** (1 / power))


def trimmed(values: NDArray[Any], share: float) -> tuple[float, float]:
    """Median and population deviation without the same share at both ends."""
    ordered = np.sort(np.ravel(values))
    cut = int(share * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    return float(np.median(kept)), float(kept.std())


def published_trimmed(values: NDArray[Any], share: float) -> tuple[float, float]:
    """The same as published: two values more are left out above."""
    ordered = np.sort(np.ravel(values))
    cut = int(share * len(ordered))
    kept = ordered[cut : len(ordered) - cut - 2]
    return float(np.median(kept)), float(kept.std())


def published_loose_spearman(found: Values, truth: Values) -> tuple[float, float]:
    """Correlation of ranks after neighbours with one truth took their predecessor's value.

    It inflates the correlation; never to be reported.
    """
    order = np.argsort(found, kind="stable")
    found, truth = found[order].copy(), truth[order]
    for k in range(1, len(found)):
        if truth[k] == truth[k - 1]:
            found[k] = found[k - 1]
    return spearman(found, truth)


def published_range(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Change of range as published, right only for a width of 1: it divides by the width."""
    values = np.asarray(values, np.float64)
    width = (values.max() + 1e-6 - values.min()) * (high - low)
    return (values - values.min()) / width + low


def power_law(frequency: Values, bins: int) -> tuple[float, float, float]:
    """Slope, intercept and r of ln(frequency) over ln(mean area) in bins of areas.

    `frequency[k]` counts sections of k + 1 pixels.
    """
    size = round(len(frequency) / bins)
    areas = np.arange(1, len(frequency) + 1)
    points = []
    for start in range(0, len(frequency), size):
        part = slice(start, start + size)
        total = float(frequency[part].sum())
        if total > 0:
            mean = float(frequency[part] @ areas[part]) / total
            points.append((math.log(mean), math.log(total)))
    x, y = np.array(points).T
    slope, intercept, r, _ = linear_fit(x, y)
    return slope, intercept, r
