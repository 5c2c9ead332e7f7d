"""What a number is worth: its spread between scans against the spread of its error (spec §3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum.catalog.dlpe_quantities import LEAST_SCANS
from hilum.catalog.errors import InputError


@dataclass(frozen=True, slots=True)
class Spread:
    """Bias of scans against severity of their lesions.

    Attributes
    ----------
    scans
        Their number.
    baseline_mean_hu, baseline_std_hu
        Of the scans' baselines; the deviation (of the population) is that of their bias.
    severity_mean_hu, severity_std_hu
        Of the median severities.
    noise_ratio
        Deviation of the bias by that of the severity: above 1, absolute HU would hide the lesions.
        None where all severities are equal.
    masking
        Correlation of severity with severity + baseline (the absolute HU); None without spread.
    """

    scans: int
    baseline_mean_hu: float
    baseline_std_hu: float
    severity_mean_hu: float
    severity_std_hu: float
    noise_ratio: float | None
    masking: float | None


def spread(baselines_hu: Sequence[float], severities_hu: Sequence[float]) -> Spread:
    """Compare the bias of scans with the median severity of their lesions.

    Raises
    ------
    InputError
        For fewer than 3 scans, or lists of different lengths.
    """
    baseline, severity = np.asarray(baselines_hu, float), np.asarray(severities_hu, float)
    if len(baseline) != len(severity) or len(baseline) < LEAST_SCANS:
        raise InputError(
            f"{len(baseline)} baselines and {len(severity)} severities; a spread takes "
            f"{LEAST_SCANS} scans with lesions or more"
        )
    deviation, absolute = float(severity.std()), severity + baseline
    varied = deviation > 0 and absolute.std() > 0
    return Spread(
        scans=len(baseline),
        baseline_mean_hu=float(baseline.mean()),
        baseline_std_hu=float(baseline.std()),
        severity_mean_hu=float(severity.mean()),
        severity_std_hu=deviation,
        noise_ratio=float(baseline.std()) / deviation if deviation > 0 else None,
        masking=float(np.corrcoef(severity, absolute)[0, 1]) if varied else None,
    )
