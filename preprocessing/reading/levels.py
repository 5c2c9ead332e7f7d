"""From stored levels of up to 16 bits to the 8 bits of a picture.

A detector stores at most 65 536 different levels, so a transformation of grey values is worked out
once for each level and then looked up for each pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TAIL = 0.005
"""Share of the pixels that the percentile range leaves out at either end (spec cxr §4)."""


def percentile_range(values: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float]:
    """Range between the 0.5th and the 99.5th percentile of a histogram.

    Parameters
    ----------
    values
        [n], the value of each level, in any order.
    counts
        [n], how many pixels have it; at least one is not zero.

    Returns
    -------
    Low and high end; the extremes where the percentiles coincide.
    """
    present = counts > 0
    values, counts = values[present], counts[present]
    order = np.argsort(values, kind="stable")
    values = values[order]
    below = np.cumsum(counts[order])
    low = values[np.searchsorted(below, TAIL * below[-1], side="right")]
    high = values[np.searchsorted(below, (1 - TAIL) * below[-1], side="left")]
    if high <= low:
        low, high = values[0], values[-1]
    return float(low), float(high)


def stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Map `low`…`high` to 0…255, with what lies outside clipped; all 0 for an empty range."""
    if high <= low:
        return np.zeros(values.shape)
    return np.clip((values - low) * (255 / (high - low)), 0, 255)


def to_u8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round 0…255 to 8 bits, half to even."""
    return np.rint(values).astype(np.uint8)
