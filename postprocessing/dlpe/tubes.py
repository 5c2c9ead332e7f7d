"""Enlarge the cross-sections of airways and vessels by a share of their diameter.

Between two such outlines lies the parenchyma from which the baseline is taken. The published
program was meant to enlarge every cross-section of a slice z. It numbers the fragments of the
outlines and the cross-sections separately and enlarges section k by fragment k, so that most
sections stay as they are. Mode ``parity`` repeats this (spec dlpe §7.2), ``corrected`` does what
was meant (§7.4).

Slices are images with row = axis 1 and column = axis 0; the numbers depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, namespace, to_host

from .extent import Box, extent, grown

Plane = NDArray[np.uint8]
"""[y, x], 0 or 1."""

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)

_SLAB = 64
"""Slices that are turned into images at a time."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How far cross-sections grow.

    Attributes
    ----------
    ratio
        Diameter afterwards relative to before, 1 or more.
    cap
        Diameters above this are taken as this, in voxels.
    """

    ratio: float
    cap: int

    def rounds(self, mode: Mode) -> NDArray[np.int64]:
        """Rounds of growth by one voxel on all sides, for diameters 0 … cap (int64 [cap + 1])."""
        diameters = range(self.cap + 1)
        if mode == "parity":
            return np.array([round((self.ratio - 1) * d / 2) for d in diameters])
        percent = round(100 * (self.ratio - 1))
        return np.array([(d * percent + 100) // 200 for d in diameters])


@dataclass(frozen=True, slots=True)
class _Parts:
    """The 4-connected parts of a plane; entry i is part i + 1 in reading order.

    Attributes
    ----------
    labels
        int32 [y, x], numbers as OpenCV gave them.
    numbers
        OpenCV's number of each part.
    first
        Index of each part's first pixel in the flat plane.
    boxes
        int32 [n, 4]: left, top, width, height.
    """

    labels: NDArray[np.int32]
    numbers: NDArray[np.int64]
    first: NDArray[np.int64]
    boxes: NDArray[np.int32]

    @classmethod
    def of(cls, plane: Plane) -> _Parts:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
        flat = labels.ravel()
        places = np.flatnonzero(plane)[::-1]
        first = np.zeros(count, np.int64)
        first[flat[places]] = places  # the last one written stays
        numbers = np.argsort(first[1:], kind="stable") + 1
        boxes = np.asarray(stats[numbers, :4], np.int32)
        return cls(np.asarray(labels, np.int32), numbers, first[numbers], boxes)

    def reach(self) -> NDArray[np.int64]:
        """Diagonals of the parts' boxes, rounded: no diameter is longer."""
        return np.rint(np.hypot(*(self.boxes[:, 2:] - 1).T)).astype(np.int64)


def extend(mask: Array, ratio: float, cap: int, mode: Mode = "parity") -> Array:
    """Enlarge the cross-sections of tubes; see `extend_each`."""
    return extend_each(mask, (Growth(ratio, cap),), mode)[0]


def extend_each(mask: Array, growths: Sequence[Growth], mode: Mode = "parity") -> tuple[Array, ...]:
    """Enlarge the cross-sections of tubes in every slice z, in several ways at once.

    Parameters
    ----------
    mask
        uint8 [x, y, z], 0 or 1; NumPy or CuPy. It is not changed.
    growths
        How far, each in its own result.
    mode
        ``"parity"`` (spec dlpe §7.2): section k grows from fragment k of all outlines, by the
        fragment's approximate diameter. ``"corrected"`` (§7.4): every section grows on all sides,
        by its exact diameter.

    Returns
    -------
    uint8 [x, y, z] for each growth, the mask included, of the same kind as `mask`.

    Raises
    ------
    InputError
        For a ratio below 1 or a negative cap.

    Notes
    -----
    Runs on the host: fragments are visited pixel by pixel. Where the published program reads
    beyond the border of a slice, there is background here, and growth over the border is lost.
    The ratio 1.2 of the published program is ``1.1 + 0.1`` = 1.2000000000000002; in mode
    ``"parity"`` 1.2 itself grows less.
    """
    if any(g.ratio < 1 or g.cap < 0 for g in growths):
        raise BadOption(f"tubes grow by a ratio of 1 or more, up to a cap of 0 or more: {growths}")
    xp, host = namespace(mask), to_host(mask)
    results = [np.zeros(host.shape, np.uint8) for _ in growths]
    tables = [g.rounds(mode) for g in growths]
    found = extent(host)
    if found is not None:
        box = grown(found, max(int(t[-1]) for t in tables), host.shape)
        for start in range(box[2].start, box[2].stop, _SLAB):
            slab = box[0], box[1], slice(start, min(start + _SLAB, box[2].stop))
            _extend_slab(host, results, tables, slab, mode)
    return tuple(results if xp is namespace(host) else (xp.asarray(r) for r in results))


def _extend_slab(
    mask: NDArray[Any],
    results: list[NDArray[np.uint8]],
    tables: Sequence[NDArray[np.int64]],
    slab: Box,
    mode: Mode,
) -> None:
    planes = _images(mask[slab])
    enlarged = [planes.copy() for _ in results]
    grow = _grow_fragments if mode == "parity" else _grow_sections
    for number, plane in enumerate(planes):
        if plane.any():
            grow(plane, [e[number] for e in enlarged], tables)
    for result, images in zip(results, enlarged, strict=True):
        result[slab] = _volume(images)


def _images(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn [x, y, z] into slices [z, y, x] of 0 and 1."""
    across, down, slices = voxels.shape
    turned = np.ascontiguousarray(voxels.transpose(1, 0, 2) != 0).view(np.uint8)
    # OpenCV transposes in tiles, several times faster than NumPy.
    flat = cv2.transpose(turned.reshape(down * across, slices))
    return np.asarray(flat, np.uint8).reshape(slices, down, across)


def _volume(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn slices [z, y, x] into [x, y, z]."""
    slices, down, across = images.shape
    turned = np.asarray(cv2.transpose(images.reshape(slices, down * across)), np.uint8)
    return turned.reshape(down, across, slices).transpose(1, 0, 2)


def _grow_fragments(
    plane: Plane, enlarged: Sequence[Plane], tables: Sequence[NDArray[np.int64]]
) -> None:
    """Parity: grow section k from fragment k of all inner rims, in one plane."""
    inside: Any = cv2.erode(plane, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    rim = plane - inside
    sections, fragments = _Parts.of(plane), _Parts.of(rim)
    used = fragments.reach()[: len(sections.numbers)]
    candidates = np.flatnonzero(_grows(used, tables))
    if not len(candidates):
        return
    width = plane.shape[1] + 2
    unvisited = bytearray(np.pad(rim, 1).tobytes())
    for k in candidates.tolist():
        row, column = divmod(int(fragments.first[k]), plane.shape[1])
        visited = visit(unvisited, (row + 1) * width + column + 1, width)
        rounds = _looked_up(_three_point_diameter(visited, width), tables)
        if not any(rounds):
            continue
        window = _window(fragments.boxes[k], max(rounds), plane.shape)
        front: Any = (fragments.labels[window] == fragments.numbers[k]).view(np.uint8)
        free = (sections.labels[window] != sections.numbers[k]).view(np.uint8)
        parts = [e[window] for e in enlarged]
        for number in range(1, max(rounds) + 1):
            front = cv2.bitwise_and(cv2.dilate(front, _CROSS), free)
            for part, last in zip(parts, rounds, strict=True):
                if number == last:
                    part |= front


def _grow_sections(
    plane: Plane, enlarged: Sequence[Plane], tables: Sequence[NDArray[np.int64]]
) -> None:
    """Corrected: grow every section on all sides by its own diameter, in one plane."""
    sections = _Parts.of(plane)
    candidates = np.flatnonzero(_grows(sections.reach(), tables))
    longest = max(len(t) for t in tables) - 1
    rounds = np.zeros((len(tables), len(sections.numbers) + 1), np.uint8)
    for k in candidates.tolist():
        number, (left, top, width, height) = sections.numbers[k], sections.boxes[k].tolist()
        diameter = longest
        if max(width, height) <= longest:
            inside = sections.labels[top : top + height, left : left + width] == number
            diameter = _exact_diameter(inside)
        rounds[:, number] = _looked_up(diameter, tables)
    for part, by_number in zip(enlarged, rounds, strict=True):
        # Sections that still have n rounds to go join those that have grown down to n.
        left_to_go = by_number[sections.labels]
        front: Any = np.zeros_like(plane)
        for number in range(int(by_number.max()), 0, -1):
            front = cv2.dilate(front | (left_to_go == number).view(np.uint8), _CROSS)
        part |= front


def _grows(diameters: NDArray[np.int64], tables: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Tell which diameters have a round of growth in any table."""
    return np.any([t[np.minimum(diameters, len(t) - 1)] > 0 for t in tables], axis=0)


def _looked_up(diameter: float, tables: Sequence[NDArray[np.int64]]) -> list[int]:
    """Rounds for a diameter, which is rounded half to even and capped."""
    return [int(t[min(round(diameter), len(t) - 1)]) for t in tables]


def visit(unvisited: bytearray, seed: int, width: int) -> list[int]:
    """Collect a 4-connected part depth first; what is visited is cleared.

    Parameters
    ----------
    unvisited
        Flat image with a border of zeros, `width` pixels a row.
    seed
        Index of the part's first pixel.

    Returns
    -------
    Indices in the order of the published program: below, above, right and left are put on a stack,
    the last one is visited next.
    """
    stack, visited = [seed], []
    unvisited[seed] = 0
    while stack:
        here = stack.pop()
        visited.append(here)
        for near in (here + width, here - width, here + 1, here - 1):
            if unvisited[near]:
                unvisited[near] = 0
                stack.append(near)
    return visited


def _three_point_diameter(visited: list[int], width: int) -> float:
    """Longest distance of any pixel from the first, and from those after a third and two thirds."""
    rows, columns = np.divmod(np.array(visited), width)
    squared = 0
    for k in (0, len(visited) // 3, 2 * len(visited) // 3):
        squared = max(squared, int(((rows - rows[k]) ** 2 + (columns - columns[k]) ** 2).max()))
    return squared**0.5


def _exact_diameter(section: NDArray[np.bool_]) -> float:
    """Longest distance of any two pixels; both are the first or last of their rows."""
    rows = np.arange(len(section))
    ends = np.concatenate(
        [section.argmax(axis=1), section.shape[1] - 1 - section[:, ::-1].argmax(axis=1)]
    )
    rows = np.concatenate([rows, rows])
    squared = (rows[:, None] - rows) ** 2 + (ends[:, None] - ends) ** 2
    return float(squared.max()) ** 0.5


def _window(box: NDArray[np.int32], by: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A part's box, enlarged on all sides within the plane."""
    left, top, width, height = box.tolist()
    rows = slice(max(top - by, 0), min(top + height + by, shape[0]))
    return rows, slice(max(left - by, 0), min(left + width + by, shape[1]))
