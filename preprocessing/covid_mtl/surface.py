"""Slopes of a picture between its pixels, by splines of degree 2 in both directions.

scikit-image takes SciPy's ``RectBivariateSpline`` for that, which is FITPACK: Dierckx, Curve and
Surface Fitting with Splines, Oxford 1993. Its coefficients solve a tridiagonal system along each
axis. They are found here by elimination, or by FITPACK's own rotations one by one: that takes eight
times as long, and the last bit is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

Slope = Callable[[Doubles, Doubles], Doubles]
"""Gives float64 [n] at points: places along the first axis and along the second, float64 [n]."""

_DEGREE = 2


def slopes(picture: Doubles, *, exactly: bool = False) -> tuple[Slope, Slope]:
    """Slopes along the first and the second axis.

    Parameters
    ----------
    picture
        float64 [m, n] of three pixels at least along each axis.
    exactly
        By the operations of FITPACK, to the last bit.

    Returns
    -------
    Two functions; a point outside the picture has the slope of the nearest point of its edge.
    """
    if exactly:
        turned = _rotated(_rotated(picture).T)
        found = _back(_back(turned).T)
    else:
        found = _eliminated(_eliminated(picture).T).T
    along, down = (_Slope(found, axis) for axis in (0, 1))
    return along, down


class _Slope:
    """The partial derivative along an axis: a spline of degree 1 there, and 2 across."""

    def __init__(self, found: Doubles, axis: int) -> None:
        knots = [_knots(n) for n in found.shape]
        lines = found.T if axis else found
        t = knots[axis]
        n = len(lines)
        width = t[_DEGREE + 1 : _DEGREE + n] - t[1:n]
        lines = (lines[1:] - lines[:-1]) * float(_DEGREE) / width[:, None]
        knots[axis] = t[1:-1]
        self._found = np.ascontiguousarray(lines.T if axis else lines).ravel()
        self._knots = knots
        self._degrees = (_DEGREE - 1, _DEGREE) if axis == 0 else (_DEGREE, _DEGREE - 1)
        self._columns = lines.shape[0] if axis else lines.shape[1]

    def __call__(self, x: Doubles, y: Doubles) -> Doubles:
        """Of the points (x, y)."""
        (first, own), (last, across) = (
            _splines(t, k, at) for t, k, at in zip(self._knots, self._degrees, (x, y), strict=True)
        )
        corner = first * self._columns + last
        total = np.zeros(len(x))
        for i, one in enumerate(own):
            for j, other in enumerate(across):
                total += self._found[corner + (i * self._columns + j)] * one * other
        return total


def _splines(t: Doubles, k: int, at: Doubles) -> tuple[NDArray[np.intp], list[Doubles]]:
    """The first of the `k` + 1 splines that are not 0 at each point, and the values of them."""
    at = np.clip(at, t[k], t[-k - 1])
    # Inner knots lie at 1.5, 2.5, …
    first = np.clip(np.floor(at - 0.5).astype(np.intp), 0, len(t) - 2 * k - 2)
    left = first + k
    h = [np.ones(len(at))]
    for j in range(1, k + 1):
        before, h = h, [np.zeros(len(at)) for _ in range(j + 1)]
        for i in range(1, j + 1):
            high, low = t[left + i], t[left + i - j]
            f = before[i - 1] / (high - low)
            h[i - 1] = h[i - 1] + f * (high - at)
            h[i] = f * (at - low)
    return first, h


@cache
def _knots(n: int) -> Doubles:
    """Of the spline through values at 0, 1, … n − 1."""
    ends = np.zeros(_DEGREE + 1), np.full(_DEGREE + 1, n - 1.0)
    return np.concatenate([ends[0], np.arange(1.5, n - 2), ends[1]])


@cache
def _observed(n: int) -> tuple[list[int], list[list[float]]]:
    """For the points 0, 1, … n − 1: the first spline that is not 0 there, and values of three."""
    first, h = _splines(_knots(n), _DEGREE, np.arange(float(n)))
    return first.tolist(), np.stack(h, axis=1).tolist()


@cache
def _rotations(n: int) -> tuple[list[list[tuple[int, float, float]]], list[list[float]]]:
    """Givens rotations that make the system triangular.

    Returns
    -------
    For each point: row, cosine and sine of its rotations. And the three diagonals of each row.
    """
    turns: list[list[tuple[int, float, float]]] = []
    rows = [[0.0] * (_DEGREE + 1) for _ in range(n)]
    for first, values in zip(*_observed(n), strict=True):
        h, own = list(values), []
        for i in range(_DEGREE + 1):
            piv = h[i]
            if piv == 0:
                continue
            row = rows[first + i]
            ww, size = row[0], abs(piv)
            if size >= ww:
                dd = size * float(np.sqrt(1.0 + (ww / piv) * (ww / piv)))
            else:
                dd = ww * float(np.sqrt(1.0 + (piv / ww) * (piv / ww)))
            cos, sin = ww / dd, piv / dd
            row[0] = dd
            own.append((first + i, cos, sin))
            for j in range(i + 1, _DEGREE + 1):
                a, b = h[j], row[j - i]
                row[j - i] = cos * b + sin * a
                h[j] = cos * a - sin * b
        turns.append(own)
    return turns, rows


def _rotated(values: Doubles) -> Doubles:
    """The right side of the triangular system along the first axis (FITPACK's ``fpgrre``)."""
    turns, _ = _rotations(len(values))
    q = np.zeros(values.shape)
    for value, own in zip(values, turns, strict=True):
        right = value
        for row, cos, sin in own:
            before = q[row].copy()
            q[row] = cos * before + sin * right
            right = cos * right - sin * before
    return q


def _back(values: Doubles) -> Doubles:
    """Solve the triangular system along the first axis (FITPACK's ``fpback``)."""
    n = len(values)
    _, rows = _rotations(n)
    out = np.array(values)
    for i in range(n - 1, -1, -1):
        for j in range(1, min(_DEGREE, n - 1 - i) + 1):
            out[i] -= out[i + j] * rows[i][j]
        out[i] /= rows[i][0]
    return out


@cache
def _factors(n: int) -> tuple[list[float], list[float], list[float]]:
    """The system below, on and above the diagonal, after elimination."""
    below, middle, above = [0.0] * n, [0.0] * n, [0.0] * n
    for row, (first, values) in enumerate(zip(*_observed(n), strict=True)):
        for column, value in enumerate(values, first):
            if value:
                (below, middle, above)[column - row + 1][row] = value
    for i in range(1, n):
        below[i] /= middle[i - 1]
        middle[i] -= below[i] * above[i - 1]
    return below, middle, above


def _eliminated(values: Doubles) -> Doubles:
    """Coefficients along the first axis, by elimination."""
    below, middle, above = _factors(len(values))
    out = np.array(values)
    for i in range(1, len(out)):
        out[i] -= below[i] * out[i - 1]
    out[-1] /= middle[-1]
    for i in range(len(out) - 2, -1, -1):
        out[i] -= above[i] * out[i + 1]
        out[i] /= middle[i]
    return out
