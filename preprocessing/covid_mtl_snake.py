"""Active contours around a lung, in the pixels where scikit-image's would end.

scikit-image moves a snake by the inverse of a dense matrix, made anew for each contour. The matrix
is circulant, so two Fourier transforms do the same; and contours of one picture share its edges and
their splines. Coordinates then differ by rounding errors below 1e-7. A snake is wanted in whole
pixels, so that is of no account unless a coordinate lies that close to a whole number: such a snake
is left to the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from skimage.filters import sobel
from skimage.segmentation import active_contour
from skimage.util import img_as_float

from ..catalog.covid_mtl import SNAKE

_DOUBTFUL = 2e-6
"""Distance from a whole number below which a coordinate is left to the library, in pixels."""

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
    edges = sobel(img_as_float(image[low[0] : high[0], low[1] : high[1]]))
    forces = _forces(edges)
    found = []
    for contour in contours:
        points = _moved(contour - low, forces) + low
        if np.abs(points - np.rint(points)).min() < _DOUBTFUL:
            exact: Any = active_contour(
                image, contour, boundary_condition="periodic", **asdict(SNAKE)
            )
            points = exact
        found.append(points.astype(np.int64))
    return found


def _forces(edges: NDArray[np.float64]) -> tuple[Any, Any]:
    """Slopes of the edges along columns and rows, as functions of column and row."""
    height, width = edges.shape
    surface = RectBivariateSpline(np.arange(width), np.arange(height), edges.T, kx=2, ky=2, s=0)
    return surface.partial_derivative(1, 0), surface.partial_derivative(0, 1)


def _moved(contour: NDArray[np.float64], forces: tuple[Any, Any]) -> NDArray[np.float64]:
    """The snake that starts at a contour; Kass et al., Int J Comput Vis 1 (1988) 321."""
    along, down = forces
    place = contour[:, 1] + 1j * contour[:, 0]
    count = len(place)
    second = 2 - 2 * np.cos(2 * np.pi * np.arange(count) / count)
    stiffness = SNAKE.alpha * second + SNAKE.beta * second**2 + SNAKE.gamma
    earlier = np.empty((_HISTORY, count), np.complex128)
    for step in range(SNAKE.max_num_iter):
        x, y = place.real, place.imag
        force = along(x, y, grid=False) + 1j * down(x, y, grid=False)
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
