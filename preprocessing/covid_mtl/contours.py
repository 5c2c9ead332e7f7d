"""Outlines of a mask by marching squares, as scikit-image's `find_contours` gives them.

Points, their order and the order of the outlines are the same, to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOP, _BOTTOM, _LEFT, _RIGHT = range(4)

_PIECES = {
    1: ((_TOP, _LEFT),), 2: ((_RIGHT, _TOP),), 3: ((_RIGHT, _LEFT),), 4: ((_LEFT, _BOTTOM),),
    5: ((_TOP, _BOTTOM),), 6: ((_RIGHT, _TOP), (_LEFT, _BOTTOM)), 7: ((_RIGHT, _BOTTOM),),
    8: ((_BOTTOM, _RIGHT),), 9: ((_TOP, _LEFT), (_BOTTOM, _RIGHT)), 10: ((_BOTTOM, _TOP),),
    11: ((_BOTTOM, _LEFT),), 12: ((_LEFT, _RIGHT),), 13: ((_TOP, _RIGHT),), 14: ((_LEFT, _TOP),),
}  # fmt: skip
"""From which side of a square to which the outline runs, the mask on its left.

A square of four pixels is the sum of those in the mask: 1 and 2 above, 4 and 8 below. Pixels that
touch at a corner alone are apart.
"""


def find_contours(mask: NDArray[np.uint8], level: float) -> list[NDArray[np.float64]]:
    """Find the outlines of a mask.

    Parameters
    ----------
    mask
        uint8 [H, W] of 0 and 1, 2 by 2 pixels at least.
    level
        Between 0 and 1: where between a pixel outside and one inside the outline runs.

    Returns
    -------
    float64 [n, 2] each: rows and columns. A closed outline ends with its first point; one that
    meets the edge of the picture is open.
    """
    following, number = _pieces(mask)
    heads = set(following) - set(following.values())
    outlines: list[tuple[int, list[int]]] = []
    starts = sorted(heads, key=number.__getitem__)
    while following:
        # Open outlines first; what is left runs in circles.
        point = starts.pop(0) if starts else next(iter(following))
        path, first = [point], number[point]
        while point in following:
            first = min(first, number[point])
            point = following.pop(point)
            path.append(point)
        if path[0] == point:
            last = max(range(len(path) - 1), key=lambda k: number[path[k]]) + 1
            path = path[last:-1] + path[: last + 1]  # it begins where its last piece ends
        outlines.append((first, path))
    return [_points(np.array(path, np.int64), mask, level) for _, path in sorted(outlines)]


def _pieces(mask: NDArray[np.uint8]) -> tuple[dict[int, int], dict[int, int]]:
    """For each point the next one, and the number of the piece between them in reading order.

    A point lies between a pixel and the one on its right, 2 × the pixel's index, or the one below
    it, that plus 1.
    """
    width = mask.shape[1]
    squares = mask[:-1, :-1] | mask[:-1, 1:] << 1 | mask[1:, :-1] << 2 | mask[1:, 1:] << 3
    rows, columns = np.nonzero((squares > 0) & (squares < 15))
    kinds = squares[rows, columns].tolist()
    following: dict[int, int] = {}
    number: dict[int, int] = {}
    for kind, pixel in zip(kinds, (rows * width + columns).tolist(), strict=True):
        sides = 2 * pixel, 2 * (pixel + width), 2 * pixel + 1, 2 * (pixel + 1) + 1
        for start, end in _PIECES[kind]:
            number[sides[start]] = len(following)
            following[sides[start]] = sides[end]
    return following, number


def _points(path: NDArray[np.int64], mask: NDArray[np.uint8], level: float) -> NDArray[np.float64]:
    pixel, down = path >> 1, path & 1
    row, column = np.divmod(pixel, mask.shape[1])
    inside = mask[row, column] > 0  # the pixel; its neighbour is outside then
    share = np.where(inside, (level - 1.0) / -1.0, level)
    points = np.stack([row + down * share, column + (1 - down) * share], axis=1)
    return points.astype(np.float64, copy=False)
