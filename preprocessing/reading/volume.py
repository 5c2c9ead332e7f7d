"""Voxels and where they lie: a CT volume apart from the file it came from.

Everything here uses DICOM's patient coordinates, LPS: x grows to the patient's left, y to the
posterior, z to the head, in millimetres. Arrays are [z, y, x]; in a volume *in LPS order* the first
slice is the lowest, row 0 is anterior, and column 0 is on the patient's right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import NoGeometry
from hilum.catalog.terms import GAP_FACTOR

from ..arrays import Array, namespace

Triple = tuple[float, float, float]

ROUNDING_MM = 0.1
"""What one decimal of a header can move two places against each other."""

_UNEVEN_STEPS = 0.05
"""Slices this far from even places, in steps, count as even: no volume changes by it."""

_MOST_ROUNDED = 0.4
"""Places are never taken for rounded by more than this, in steps: half a step may be a gap."""

_TARGET = (2, 1, 0)
"""Patient axis (x, y, z) along which each array axis [z, y, x] runs in LPS order."""


@dataclass(frozen=True, slots=True)
class Reorientation:
    """A permutation of an array's axes and the axes flipped after it. No voxel is interpolated.

    Attributes
    ----------
    axes
        Source axis of each target axis.
    flips
        Which target axes run backwards.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array: Array) -> Array:
        """Reorient an array [a, b, c, …] of three axes or more; a view of it."""
        turned = _permuted(array, self.axes)
        return turned[(*(slice(None, None, -1 if f else 1) for f in self.flips), ...)]

    def undo(self, array: Array) -> Array:
        """Bring an array back to the source order; a view of it."""
        turned = array[(*(slice(None, None, -1 if f else 1) for f in self.flips), ...)]
        return _permuted(turned, sorted(range(3), key=self.axes.__getitem__))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of an array [z, y, x] lie.

    Attributes
    ----------
    shape
        Voxels along each array axis.
    origin
        LPS coordinates of the centre of voxel [0, 0, 0] in mm.
    spacing
        Distance of neighbours along each array axis in mm.
    direction
        For each array axis the LPS unit vector along which its index grows. The vectors need not be
        perpendicular: a tilted gantry shears the volume.
    """

    shape: tuple[int, int, int]
    origin: Triple
    spacing: Triple
    direction: tuple[Triple, Triple, Triple]

    def __post_init__(self) -> None:
        values = np.array([self.origin, self.spacing, *self.direction])
        if not np.isfinite(values).all() or min(self.spacing) <= 0 or min(self.shape) < 1:
            raise NoGeometry(
                "the geometry of the volume is not usable (a spacing or size that is not positive, "
                "or a number that is none); export the series again"
            )
        if abs(np.linalg.det(values[2:])) < 0.1:
            raise NoGeometry(
                "the axes of the volume are (nearly) parallel; export the series again"
            )

    @classmethod
    def from_steps(
        cls, shape: tuple[int, int, int], origin: NDArray[Any], steps: NDArray[Any]
    ) -> Geometry:
        """Make it from the vectors [3, 3] in mm between neighbours along each array axis.

        Raises
        ------
        InputError
            For vectors that are no numbers, zero, or parallel.
        """
        spacing = np.linalg.norm(steps, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = steps / spacing[:, None]
        a, b, c = (_triple(row) for row in unit)
        return cls(shape, _triple(origin), _triple(spacing), (a, b, c))

    @property
    def steps(self) -> NDArray[np.float64]:
        """Vectors between neighbours along each array axis: [3, 3], rows in LPS, mm."""
        return np.asarray(self.direction, np.float64) * np.asarray(self.spacing)[:, None]

    @property
    def affine(self) -> NDArray[np.float64]:
        """[4, 4]: voxel (z, y, x, 1) → LPS coordinates in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.steps.T
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def nifti_affine(self) -> NDArray[np.float64]:
        """[4, 4]: voxel (x, y, z, 1) → RAS coordinates in mm, as NIfTI files have it.

        It belongs to the transposed array, ``voxels.transpose(2, 1, 0)``.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = self.steps[::-1].T
        matrix[:3, 3] = self.origin
        matrix[:2] *= -1
        return matrix

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the slices, on the side to which the slice index grows."""
        across = np.cross(self.direction[2], self.direction[1])
        across /= np.linalg.norm(across)
        return across * (1.0 if across @ np.array(self.direction[0]) >= 0 else -1.0)

    @property
    def slice_distance(self) -> float:
        """Distance of neighbouring slices along their normal in mm."""
        return float(self.normal @ self.steps[0])

    @property
    def tilt(self) -> float:
        """Angle between the slices' normal and the line through their corners in degrees."""
        return float(np.degrees(np.arccos(np.clip(self.normal @ self.direction[0], -1, 1))))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.steps))) / 1000

    def point(self, index: Triple) -> NDArray[np.float64]:
        """LPS coordinates in mm of a (fractional) voxel index (z, y, x)."""
        return np.array(self.origin) + np.array(index) @ self.steps

    def lps_order(self) -> Reorientation:
        """How to bring an array of this geometry into LPS order, along the nearest axes."""
        cosines = np.abs(np.array(self.direction))

        def fit(axes: tuple[int, ...]) -> float:
            return float(sum(cosines[a, p] for a, p in zip(axes, _TARGET, strict=True)))

        best = max(permutations(range(3)), key=fit)
        flips = [self.direction[a][p] < 0 for a, p in zip(best, _TARGET, strict=True)]
        return Reorientation((best[0], best[1], best[2]), (flips[0], flips[1], flips[2]))

    def reoriented(self, by: Reorientation) -> Geometry:
        """Compute the geometry of an array after ``by.apply``."""
        steps = self.steps[list(by.axes)]
        shape = np.array(self.shape)[list(by.axes)]
        last = np.where(by.flips, shape - 1, 0)
        origin = np.array(self.origin) + last @ steps
        steps = np.where(np.array(by.flips)[:, None], -steps, steps)
        return Geometry.from_steps((int(shape[0]), int(shape[1]), int(shape[2])), origin, steps)


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT volume.

    Attributes
    ----------
    voxels
        int16 [z, y, x] in HU.
    geometry
        Where they lie.
    notes
        What is unusual about their origin, human-readable; free of identifiers.
    """

    voxels: Array
    geometry: Geometry
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.voxels.shape) != self.geometry.shape:
            raise NoGeometry(
                f"voxels {list(self.voxels.shape)} do not fit a geometry of "
                f"{list(self.geometry.shape)}; give both from one source"
            )

    def reoriented(self, by: Reorientation) -> Volume:
        """Return the same volume with its array permuted and flipped."""
        return Volume(by.apply(self.voxels), self.geometry.reoriented(by), self.notes)


def find_breaks(positions: Sequence[float], factor: float = GAP_FACTOR) -> tuple[int, ...]:
    """Slices after which the step to the next one exceeds `factor` times the median step.

    Parameters
    ----------
    positions
        Along the slices' normal in mm, ascending.
    """
    steps = np.diff(np.asarray(positions, np.float64))
    if not len(steps):
        return ()
    return tuple(int(i) for i in np.flatnonzero(steps > factor * np.median(steps)))


def is_even(positions: Sequence[float], rounding: float = 0.0) -> bool:
    """Tell whether slices lie in equal steps from the first to the last.

    Parameters
    ----------
    positions
        Along the slices' normal in mm, ascending.
    rounding
        What the places may be off because a header rounds them, in mm.
    """
    places = np.asarray(positions, np.float64)
    if len(places) < 3:
        return True
    step = (places[-1] - places[0]) / (len(places) - 1)
    off = np.abs(places - places[0] - step * np.arange(len(places))).max()
    return bool(off <= max(_UNEVEN_STEPS * step, min(rounding * 1.001, _MOST_ROUNDED * step)))


def slice_widths(positions: Sequence[float], alone: float) -> NDArray[np.float64]:
    """What each slice stands for along the normal: to halfway towards its neighbours.

    Parameters
    ----------
    positions
        Along the slices' normal in mm, ascending.
    alone
        What a single slice stands for, in mm.

    Returns
    -------
    float64 [n] in mm; the first and the last slice reach as far outwards as inwards.
    """
    steps = np.diff(np.asarray(positions, np.float64))
    if not len(steps):
        return np.full(len(positions), alone)
    return (np.append(steps[0], steps) + np.append(steps, steps[-1])) / 2


def extent_mm(positions: Sequence[float], first: int, last: int) -> float:
    """Length of a stretch of slices along the normal in mm, half a step added at either end.

    Of uneven slices it is the step that lies inside the stretch, where there is one, so that a gap
    beyond its end counts for nothing.

    Parameters
    ----------
    positions
        Of two slices or more in mm, ascending.
    """
    steps = np.diff(np.asarray(positions, np.float64))
    if is_even(positions, ROUNDING_MM):
        return (last - first + 1) * float(positions[-1] - positions[0]) / len(steps)
    if last > first:
        within = steps[first:last]
        return float(within.sum() + (within[0] + within[-1]) / 2)
    return float(min(steps[max(first - 1, 0) : first + 1]))


def _permuted(array: Array, axes: Sequence[int]) -> Array:
    """View an array with its first three axes in another order."""
    return namespace(array).permute_dims(array, (*axes, *range(3, array.ndim)))


def _triple(values: NDArray[Any]) -> Triple:
    return float(values[0]), float(values[1]), float(values[2])
