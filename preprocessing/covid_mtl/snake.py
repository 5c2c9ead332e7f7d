"""Active contours around a lung, in the pixels where scikit-image's would end.

scikit-image moves a snake by the inverse of a dense matrix, made again for each contour. The matrix
is circulant, so two Fourier transforms do the same; and contours of one picture share its edges and
their splines. Coordinates then differ by rounding errors below 1e-7. A snake is wanted in whole
pixels, so that is of no account unless a coordinate lies that close to a whole number: such a snake
is computed a second time, operation by operation as scikit-image does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import SNAKE

from .surface import Slope, slopes

_DOUBTFUL = 2e-6
"""Distance from a whole number below which a coordinate is computed again, in pixels."""

_MARGIN = 32
"""Pixels around the contours that the splines of the edges reach."""

_HISTORY = 10
"""A snake is compared with as many of its earlier places."""


def snakes(
    image: NDArray[np.uint16 | np.int16], contours: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.int64]]:
    """Let contours snap to the edges of a picture.

    Parameters
    ----------
    image
        uint16 or int16 [y, x]; edges are measured in parts of the type's range.
    contours
        float64 [n, 2] each: rows and columns of points in order; the ends are joined.

    Returns
    -------
    int64 [n, 2] for each contour: the points after `SNAKE.max_num_iter` steps or when they rest,
    decimals cut off.
    """
    if not contours:
        return []
    ends = np.concatenate(contours)
    low = np.maximum(ends.min(axis=0).astype(np.int64) - _MARGIN, 0)
    high = ends.max(axis=0).astype(np.int64) + _MARGIN
    forces = slopes(edges(image[low[0] : high[0], low[1] : high[1]]).T)
    found = []
    whole: tuple[Slope, Slope] | None = None
    for contour in contours:
        points = _moved(contour - low, forces) + low
        if np.abs(points - np.rint(points)).min() < _DOUBTFUL:
            whole = whole or slopes(edges(image).T, exactly=True)
            points = _as_published(contour, whole)
        found.append(points.astype(np.int64))
    return found


def edges(image: NDArray[np.uint16 | np.int16]) -> NDArray[np.float64]:
    """Sobel's edges in parts of the type's range, by the operations of scikit-image.

    Parameters
    ----------
    image
        uint16 or int16 [y, x].

    Returns
    -------
    float64 [y, x].
    """
    scaled = np.multiply(image, 1.0 / np.iinfo(image.dtype).max, dtype=np.float64)
    np.maximum(scaled, -1.0, out=scaled)
    around = np.pad(scaled, 1, "symmetric")
    kernel = np.array([1, 0, -1])[:, None] * (np.array([1, 2, 1]) / 4)
    total = np.zeros(scaled.shape)
    for weights in (kernel, kernel.T):
        slope = _convolved(around, weights)
        total += slope * slope
    return np.sqrt(total) / np.sqrt(2)


def _convolved(around: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture with a frame of one pixel, by a kernel of 3 × 3; sums in the order of SciPy's."""
    height, width = around.shape[0] - 2, around.shape[1] - 2
    total = np.zeros((height, width))
    for (y, x), weight in np.ndenumerate(kernel[::-1, ::-1]):
        if weight:
            total += weight * around[y : y + height, x : x + width]
    return total


def _as_published(contour: NDArray[np.float64], forces: tuple[Slope, Slope]) -> NDArray[np.float64]:
    """The snake by scikit-image's own operations (`active_contour`, BSD-3), to the last bit."""
    x, y = contour[:, 1].astype(np.float64), contour[:, 0].astype(np.float64)
    same = np.eye(len(x))
    one = np.roll(same, -1, axis=0), np.roll(same, -1, axis=1)
    second = one[0] + one[1] - 2 * same
    fourth = (
        np.roll(same, -2, axis=0) + np.roll(same, -2, axis=1) - 4 * one[0] - 4 * one[1] + 6 * same
    )
    inverse = np.linalg.inv(-SNAKE.alpha * second + SNAKE.beta * fourth + SNAKE.gamma * same)
    along, down = forces
    earlier = np.empty((_HISTORY, 2, len(x)))
    for step in range(SNAKE.max_num_iter):
        force = along(x, y), down(x, y)
        wanted = inverse @ (SNAKE.gamma * x + force[0]), inverse @ (SNAKE.gamma * y + force[1])
        x += SNAKE.max_px_move * np.tanh(wanted[0] - x)
        y += SNAKE.max_px_move * np.tanh(wanted[1] - y)
        turn = step % (_HISTORY + 1)
        if turn < _HISTORY:
            earlier[turn] = x, y
        elif _nearest(earlier[:, 0] + 1j * earlier[:, 1], x + 1j * y) < SNAKE.convergence:
            break
    return np.stack([y, x], axis=1)


def _moved(contour: NDArray[np.float64], forces: tuple[Slope, Slope]) -> NDArray[np.float64]:
    """The snake that starts at a contour; Kass et al., Int J Comput Vis 1 (1988) 321."""
    along, down = forces
    place = contour[:, 1] + 1j * contour[:, 0]
    count = len(place)
    second = 2 - 2 * np.cos(2 * np.pi * np.arange(count) / count)
    stiffness = SNAKE.alpha * second + SNAKE.beta * second**2 + SNAKE.gamma
    earlier = np.empty((_HISTORY, count), np.complex128)
    for step in range(SNAKE.max_num_iter):
        x, y = place.real, place.imag
        force = along(x, y) + 1j * down(x, y)
        wanted = np.fft.ifft(np.fft.fft(SNAKE.gamma * place + SNAKE.w_edge * force) / stiffness)
        way = wanted - place
        place = place + SNAKE.max_px_move * (np.tanh(way.real) + 1j * np.tanh(way.imag))
        turn = step % (_HISTORY + 1)
        if turn < _HISTORY:
            earlier[turn] = place
        elif _nearest(earlier, place) < SNAKE.convergence:
            break
    return np.stack([place.imag, place.real], axis=1)


def _nearest(earlier: NDArray[np.complex128], place: NDArray[np.complex128]) -> float:
    """How far the snake is from the nearest of its earlier places, at its farthest point."""
    way = earlier - place
    return float((np.abs(way.real) + np.abs(way.imag)).max(axis=1).min())
