"""The score of an X-ray, counted from the shares of its zones (spec cxr §8.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


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
