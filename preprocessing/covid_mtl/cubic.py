"""Cubic B-splines through the samples of a scan, by the operations of SciPy's ``ndimage.zoom``.

The published program calls that function (order 3, mode ``nearest``). Here each value is the sum of
the same products in the same order, so it is the same to the last bit, and SciPy, which is as large
as OpenCV, need not be installed. Method: Unser, Aldroubi and Eden, IEEE Trans Pattern Anal Mach
Intell 13 (1991) 277.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLE = -0.267949192431122706472553658494127633
"""√3 − 2, the pole of the filter that turns samples into coefficients."""

_MARGIN = 12
"""Copies of the first and last sample around an axis, which stand for all that lies beyond."""

_TAPS = 4
"""Coefficients that a value is made of, along each axis."""

Doubles = NDArray[np.float64]


def coefficients(samples: NDArray[Any]) -> Doubles:
    """Coefficients of the splines through the samples of a scan.

    Parameters
    ----------
    samples
        Numbers [z, y, x].

    Returns
    -------
    float64, longer by 24 along each axis.
    """
    out = np.pad(samples, _MARGIN, "edge").astype(np.float64)
    _filter(out)
    for plane in out:
        for lines in (plane, plane.T):
            part = np.ascontiguousarray(lines)
            _filter(part)
            lines[:] = part
    return out


def _places(length: int, target: int) -> tuple[NDArray[np.intp], Doubles]:
    """Of which coefficients the values along an axis are made.

    Parameters
    ----------
    length, target
        Samples before and after; first and last ones lie on each other.

    Returns
    -------
    Index of the coefficient and its weight, [target, 4] each.
    """
    step = (length - 1) / (target - 1) if target > 1 else 1.0
    at = np.arange(target) * step + _MARGIN
    first = np.floor(at)
    y = at - first
    z = 1.0 - y
    weights = np.empty((target, _TAPS))
    weights[:, 0] = z * z * z / 6.0
    weights[:, 1] = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0
    weights[:, 2] = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0
    weights[:, 3] = 1.0 - weights[:, 0] - weights[:, 1] - weights[:, 2]
    return first.astype(np.intp)[:, None] + np.arange(-1, _TAPS - 1), weights


def axis_weights(length: int, target: int) -> Doubles:
    """What each sample of an axis adds to each value: float64 [target, length]."""
    if target == length:
        return np.eye(length)
    found = np.pad(np.eye(length), ((_MARGIN, _MARGIN), (0, 0)), "edge")
    _filter(found)
    index, weights = _places(length, target)
    out = np.zeros((target, length))
    for tap in range(_TAPS):
        out += found[index[:, tap]] * weights[:, tap, None]
    return out


def values(
    found: Doubles, shape: tuple[int, ...], target: tuple[int, ...], y: int, columns: slice
) -> Doubles:
    """The values of one row of all slices.

    Parameters
    ----------
    found
        `coefficients` of the scan.
    shape, target
        Of the scan before and after, [z, y, x].
    y, columns
        Row and columns that are wanted, of those after.

    Returns
    -------
    float64 [z, columns], not rounded.
    """
    (iz, wz), (iy, wy), (ix, wx) = (_places(n, t) for n, t in zip(shape, target, strict=True))
    ix, wx = ix[columns], wx[columns]
    total = np.zeros((len(iz), len(ix)))
    for i in range(_TAPS):
        for j in range(_TAPS):
            lines = found[iz[:, i], iy[y, j]] * wz[:, i, None] * wy[y, j]
            for k in range(_TAPS):
                total += lines[:, ix[:, k]] * wx[:, k]
    return total


def _filter(lines: Doubles) -> None:
    """Turn samples into coefficients along the first axis, in place."""
    n = len(lines)
    lines *= (1.0 - _POLE) * (1.0 - 1.0 / _POLE)
    # What lies before the first and behind the last sample is their mirror image.
    whole, power = _POLE**n, _POLE
    start = lines[0] + whole * lines[n - 1]
    for i in range(1, n):
        start += power * (lines[i] + whole * lines[n - 1 - i])
        power *= _POLE
    lines[0] += start * (_POLE / (1 - whole * whole))
    for i in range(1, n):
        lines[i] += _POLE * lines[i - 1]
    lines[n - 1] *= _POLE / (_POLE - 1)
    for i in range(n - 2, -1, -1):
        lines[i] = _POLE * (lines[i + 1] - lines[i])
