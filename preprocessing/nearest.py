"""Nearest-neighbour sampling by the rules of the programs that the networks were trained with.

Which input sample an output sample takes is a convention, and each program has its own. From 512 to
256 OpenCV takes the even samples and Pillow the odd ones: a shift of a whole pixel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, namespace

Rule = Literal["pillow", "opencv", "corners"]
"""Half-pixel centres; left edges; first on first and last on last sample."""


def resize_nearest(image: Array, shape: tuple[int, int], rule: Rule) -> Array:
    """Sample the two last axes of an array at `shape` positions.

    Parameters
    ----------
    image
        [..., H, W] of any type, NumPy or CuPy.
    shape
        Height and width of the result.
    rule
        ``"pillow"``: generation 1 of the CT classifier; ``"opencv"``: generation 2 (spec
        ct-classifier §2); ``"corners"``: lungmask (spec lungmask §4).

    Returns
    -------
    [..., h, w], contiguous, of the same type.
    """
    xp = namespace(image)
    rows = xp.asarray(nearest_indices(image.shape[-2], shape[0], rule))
    columns = xp.asarray(nearest_indices(image.shape[-1], shape[1], rule))
    return xp.take(xp.take(image, rows, axis=-2), columns, axis=-1)


@lru_cache(maxsize=2048)
def nearest_indices(n_in: int, n_out: int, rule: Rule) -> NDArray[np.int64]:
    """Input sample of each of `n_out` output samples: [n_out], not to be written to."""
    i = np.arange(n_out)
    if rule == "pillow":
        indices = (2 * i + 1) * n_in // (2 * n_out)
    elif rule == "opencv":
        # In OpenCV's own order of operations: the rounding of double precision decides ties.
        indices = np.floor(i * (1.0 / (n_out / n_in)))
    else:
        indices = np.floor(i * _ratio(n_in, n_out) + 0.5)
    result: NDArray[Any] = np.clip(indices, 0, n_in - 1).astype(np.int64)
    result.flags.writeable = False
    return result


def _ratio(n_in: int, n_out: int) -> float:
    return (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
