"""Where normalised space is cut for pictures, and which sides of the patient are seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.arrays import Array, to_host

if TYPE_CHECKING:
    from hilum.preprocessing.dlpe.space import Normalised

RIM_MM = 8.0
"""What is shown around the lungs."""

AXIAL_SECTIONS = 12

Sides = tuple[str, str, str]
"""For each axis the sides of the patient at its first and its last index."""

UPRIGHT: Sides = ("AP", "RL", "FH")
"""What the axes of normalised space are meant to be."""

Span = tuple[int, int]
"""First index, and the one after the last."""

_PATIENT = ("RL", "AP", "FH")
"""The same for the axes x, y, z of LPS coordinates."""

_ACROSS = {"R": "sagittal", "A": "coronal", "F": "axial"}
"""Name of a plane across an axis of `_PATIENT`, by its first letter."""


@dataclass(frozen=True, slots=True)
class Section:
    """A cut through normalised space.

    Attributes
    ----------
    index
        Of arrays [x, y, z].
    size
        Height and width in mm as it is shown.
    sides
        Sides of the patient on its left and right.
    """

    index: tuple[int | slice, int | slice, int | slice]
    size: tuple[float, float]
    sides: str
    caption: str

    def cut(self, volume: Array) -> NDArray[Any]:
        """Cut the section out of a volume [x, y, z]; on the host, upright.

        Across axis 2: axis 0 runs down. Else: axis 2 runs up.
        """
        plane = to_host(volume[self.index])
        level = isinstance(self.index[2], int)
        return np.ascontiguousarray(plane if level else plane.T[::-1])


def sides_of(normalised: Normalised) -> Sides:
    """The sides of the patient at both ends of each axis of normalised space.

    `UPRIGHT`, unless the published program took a scan as it should not have.
    """
    space = normalised.space
    if not space.straight:
        return UPRIGHT
    seen = normalised.geometry.reoriented(space.reorientation)
    slices, rows, columns = (_sides(direction) for direction in seen.direction)
    if space.order is not None and space.order[0] > space.order[-1]:
        slices = slices[::-1]
    return rows, columns, slices


def choose_sections(
    lung: Array, voxel_mm: tuple[float, float, float], sides: Sides = UPRIGHT
) -> tuple[list[Section], list[Section]]:
    """Cut the lungs into sections from the head down, and three long ones.

    Parameters
    ----------
    lung
        uint8 [x, y, z]; where it is empty, the whole volume is cut.
    voxel_mm
        Size of a voxel along each axis.

    Returns
    -------
    Axial sections at even distances; a coronal section, and a sagittal one through each lung, where
    most of it is seen.
    """
    profiles = _profiles(lung)
    lungs = [_extent(p) for p in profiles]
    box = [
        _widened(span, len(p), RIM_MM / mm)
        for span, p, mm in zip(lungs, profiles, voxel_mm, strict=True)
    ]
    deep, wide, high = ((up - low) * mm for (low, up), mm in zip(box, voxel_mm, strict=True))
    x, y, z = (slice(*span) for span in box)
    low, up = lungs[1]
    row = _fullest(profiles[0], lungs[0])
    columns = [_fullest(profiles[1], s) for s in ((low, (low + up) // 2), ((low + up) // 2, up))]
    axial = [
        Section((x, y, level), (deep, wide), sides[1], f"z {level}" + _above(sides[0][0], "A"))
        for level in _levels(lungs[2])
    ]
    top = _above(sides[2][1], "H")
    long = [Section((row, y, z), (high, wide), sides[1], _plane_name(sides[0]) + top)]
    for column, side in zip(columns, sides[1], strict=True):
        lung_name = {"R": ", right lung", "L": ", left lung"}.get(side, "")
        name = _plane_name(sides[1]) + lung_name + top
        long.append(Section((x, column, z), (high, deep), sides[0], name))
    return axial, long


def _sides(direction: tuple[float, float, float]) -> str:
    axis = int(np.abs(direction).argmax())
    return _PATIENT[axis] if direction[axis] > 0 else _PATIENT[axis][::-1]


def _plane_name(sides: str) -> str:
    return next(name for letter, name in _ACROSS.items() if letter in sides)


def _above(letter: str, expected: str) -> str:
    """Tell what is above when it is not what a viewer expects."""
    return "" if letter == expected else f", {letter} above"


def _profiles(lung: Array) -> tuple[NDArray[np.int64], ...]:
    """Voxels of the lung in each plane across each axis; plane by plane, for little memory."""
    over_x, over_y, over_z = (np.zeros(n, np.int64) for n in lung.shape)
    for i in range(len(over_x)):
        plane = to_host(lung[i])
        if plane.any():
            over_x[i] = np.count_nonzero(plane)
            over_y += np.count_nonzero(plane, axis=1)
            over_z += np.count_nonzero(plane, axis=0)
    return over_x, over_y, over_z


def _extent(profile: NDArray[np.int64]) -> Span:
    """Where a profile is not zero; the whole where it is nowhere."""
    found = np.flatnonzero(profile)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, len(profile))


def _widened(span: Span, length: int, rim: float) -> Span:
    return max(0, span[0] - round(rim)), min(length, span[1] + round(rim))


def _fullest(profile: NDArray[np.int64], span: Span) -> int:
    """The plane within `span` that holds most; its middle where all hold the same."""
    part = profile[slice(*span)]
    if not len(part) or not part.any():
        return min(sum(span) // 2, len(profile) - 1)
    return span[0] + int(part.argmax())


def _levels(span: Span) -> list[int]:
    """Planes at even distances within `span`, from the last one down."""
    low, up = span
    count = min(AXIAL_SECTIONS, up - low)
    return [int(low + (k + 0.5) * (up - low) / count) for k in reversed(range(count))]
