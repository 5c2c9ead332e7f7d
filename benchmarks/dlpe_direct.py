"""The steps of DLPE between its networks, word for word as spec dlpe §6 and §7 define them.

Full sorts, loops over pixels, sets of pixels: those of the published procedure, and what the tests
of the real steps compare them with. It shares no code with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
"""[x, y, z], 0 or 1."""

Pixel = tuple[int, int]
"""Row (axis 1 of the volume) and column (axis 0)."""

_VISITED_NEXT = ((1, 0), (-1, 0), (0, 1), (0, -1))


def rank_mask(
    lung: Mask, score: NDArray[np.float32], ratio: float, limits: tuple[int, int] = (10, 500)
) -> Mask:
    """Voxels above the score of rank ⌊N·r⌋ in the box of the lungs (§6.1), by a full sort."""
    places = np.where(lung > 0)
    box = tuple(slice(max(int(p.min()), limits[0]), min(int(p.max()), limits[1])) for p in places)
    rank = int(float(np.float32(lung.sum())) * ratio)
    threshold = np.sort(score[box], axis=None)[::-1][rank]
    return (score > threshold).astype(np.uint8)


def extend_plane(plane: Mask, ratio: float, cap: int) -> Mask:
    """Parity definition of tube extension (§7.2) in one plane [x, y], pixel by pixel."""
    image = {(int(y), int(x)) for x, y in np.argwhere(plane)}
    rim = inner_rim(image)
    fragments = list(parts(rim))
    regions = sorted(parts(image), key=lambda region: min(p for p in region if p in rim))
    grown = set(image)
    for region, fragment in zip(regions, fragments[: len(regions)], strict=True):
        diameter = min(three_point(fragment), cap)
        front, whole = set(fragment), set(region)
        for _ in range(round((ratio - 1) * round(diameter) / 2)):
            front = {n for p in front for n in neighbours(p)} - whole
            whole |= front
        grown |= whole
    return drawn(grown, plane.shape)


def enhance(
    ct: NDArray[np.float32], lung: Mask, structures: Mask, inner: Mask, outer: Mask
) -> tuple[NDArray[np.float32], float, float]:
    """Enhancement (§7.1) from the structures and their two enlargements, by a full sort.

    Returns
    -------
    Enhanced volume, baseline, standard deviation.
    """
    values = ct * lung
    ring = (outer > 0) & ~(inner > 0)
    number = int(ring.sum())
    ordered = np.sort(((values + np.float32(10)) * ring), axis=None)[-number:]
    baseline = float(ordered[number - int(number * 0.5)]) - 10
    std = float(ordered[number - int(number * 0.9) : number - int(number * 0.1)].std())
    values[structures > 0] = baseline
    enhanced = np.clip(values - np.float32(baseline) * lung, -0.05, 0.25)
    return enhanced.astype(np.float32, copy=False), baseline, std


def inner_rim(pixels: set[Pixel]) -> set[Pixel]:
    """Pixels with a 4-neighbour that is not among them."""
    return {p for p in pixels if any(n not in pixels for n in neighbours(p))}


def neighbours(p: Pixel) -> Iterator[Pixel]:
    """The 4-neighbours of a pixel."""
    return ((p[0] + i, p[1] + j) for i, j in _VISITED_NEXT)


def parts(pixels: Iterable[Pixel]) -> Iterator[list[Pixel]]:
    """4-connected parts in the order of their first pixels, each in visiting order."""
    left = set(pixels)
    for seed in sorted(left):
        if seed not in left:
            continue
        left.discard(seed)
        stack, visited = [seed], []
        while stack:
            here = stack.pop()
            visited.append(here)
            for near in neighbours(here):
                if near in left:
                    left.discard(near)
                    stack.append(near)
        yield visited


def three_point(visited: list[Pixel]) -> float:
    """Approximate diameter: distances from three of the pixels."""
    points, count = np.array(visited), len(visited)
    thirds = (0, count // 3, 2 * count // 3)
    return max(float(np.hypot(*(points - points[k]).T).max()) for k in thirds)


def drawn(pixels: Iterable[Pixel], shape: tuple[int, ...]) -> Any:
    """A plane with these pixels 1."""
    plane = np.zeros(shape, np.uint8)
    for y, x in pixels:
        if 0 <= x < shape[0] and 0 <= y < shape[1]:
            plane[x, y] = 1
    return plane
