"""Where DLPE's normalised space lies in a scan: the exact map, as published and corrected.

Normalised space [x, y, z] and the scan as a mode sees it [row, column, slice] have parallel axes
unless the slices lie obliquely in the patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import FIELD_MM, LONGEST_MM, MULTIPLE
from hilum.catalog.errors import BadOption, NoGeometry
from hilum.catalog.terms import Mode

from ..arrays import Array, namespace
from ..reading.volume import Geometry, Reorientation, Triple

Shape = tuple[int, int, int]

Matrix = tuple[Triple, Triple, Triple]

STRAIGHT_DEGREES = 2.0
"""Up to this angle the axes of a scan are taken for the patient's."""

MAX_SIDE = 1024

_UNEVEN_STEPS = 0.05
"""Slices that lie further from even places than this, in steps, are taken at their own."""

_ANTERIOR_TO_HEAD = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
"""LPS directions of the axes of normalised space."""


@dataclass(frozen=True, slots=True)
class Space:
    """A normalised space and the map from it to the scan.

    The scan is [row, column, slice] as the mode sees it: from anterior to posterior, from the
    patient's right to left, and to the head; in mode ``parity`` rows and columns of the files, and
    InstanceNumbers downwards.

    Attributes
    ----------
    shape
        Voxels of normalised space.
    field_mm
        What they cover along each axis, by `spacing`.
    source_shape
        Rows, columns and slices of the scan.
    spacing
        Distance of rows, columns and slices in mm, as used.
    matrix, offset
        Place in the scan = matrix · index + offset, in rows, columns and slices.
    reorientation
        From the array of the file [slice, row, column] to the scan as [slice, row, column].
    order
        In mode ``parity``, for InstanceNumbers that go up and down: which slice of the file each
        slice is.
    levels
        Place of each slice in steps, where slices are uneven or missing; None: 0, 1, 2 …
    level_axis
        Axis of the scan along which `levels` count.
    shortened
        The stack was declared to be 450 mm long.
    notes
        What is unusual about the map, human-readable.
    """

    mode: Mode
    shape: Shape
    field_mm: Triple
    source_shape: Shape
    spacing: Triple
    matrix: Matrix
    offset: Triple
    reorientation: Reorientation = field(default_factory=Reorientation)
    order: tuple[int, ...] | None = None
    levels: tuple[float, ...] | None = None
    level_axis: int = 2
    shortened: bool = False
    notes: tuple[str, ...] = ()

    @property
    def straight(self) -> bool:
        """Its axes are the scan's."""
        matrix = np.array(self.matrix)
        return bool((matrix == np.diag(np.diag(matrix))).all())

    @property
    def scale(self) -> Triple:
        """The diagonal of the matrix; of a straight one all of it."""
        return self.matrix[0][0], self.matrix[1][1], self.matrix[2][2]

    @property
    def voxel_mm(self) -> Triple:
        """Size of a voxel in effect; the published program's is a little below the nominal one."""
        return _triple(np.array(self.field_mm) / self.shape)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return math.prod(self.voxel_mm) / 1000

    @property
    def stored_shape(self) -> Shape:
        """Shape of the array of the file [slice, row, column]."""
        rows, columns, slices = self.source_shape
        lying = dict(zip(self.reorientation.axes, (slices, rows, columns), strict=True))
        return lying[0], lying[1], lying[2]

    def slice_places(self, axis: int) -> NDArray[np.float64]:
        """Places of the samples along an axis of the scan, in steps."""
        if self.levels is not None and axis == self.level_axis:
            return np.array(self.levels)
        return np.arange(self.source_shape[axis], dtype=np.float64)

    def sample_indices(self, places: Array, axis: int) -> Array:
        """(Fractional) sample of the scan at each place along one of its axes."""
        if self.levels is None or axis != self.level_axis:
            return places
        xp = namespace(places)
        levels = xp.asarray(self.levels)
        within = xp.interp(places, levels, xp.arange(len(levels)))
        return within + xp.maximum(places - levels[-1], 0.0) + xp.minimum(places, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """A scan in normalised space.

    Attributes
    ----------
    voxels
        float32 [x, y, z], (HU + 600) / 1600.
    space
        Where they lie in the scan.
    geometry
        Of the array [slice, row, column] of the file, for results on the grid of the input.
    notes
        What is unusual about the scan and its map, human-readable; free of identifiers.
    """

    voxels: Array = field(repr=False)
    space: Space
    geometry: Geometry
    notes: tuple[str, ...] = ()


def check_side(side: int) -> None:
    """Refuse a side of normalised space that the networks cannot take."""
    if side % MULTIPLE or not MULTIPLE <= side <= MAX_SIDE:
        raise BadOption(
            f"a grid of {side}; give a multiple of {MULTIPLE} up to {MAX_SIDE}, 512 as published"
        )


def published_cut(length: int, spacing: float, field_mm: float) -> tuple[int, int]:
    """Which samples of an axis the published program resizes: first one, and how many.

    The first may be negative and the last beyond the axis: around it the program puts zeros. Spec
    dlpe §3.1.

    Raises
    ------
    InputError
        For a spacing greater than the field.
    """
    span = math.trunc(field_mm / spacing)
    if span < 1:
        raise NoGeometry(
            f"voxels of {spacing:g} mm, more than the whole field of {field_mm:g} mm; check the "
            "spacing in the headers"
        )
    return length // 2 - span // 2, span


def shortened(slices: int, spacing: Triple) -> Triple:
    """The spacing with which a stack is 450 mm long at most, as the published program has it."""
    long = slices * spacing[2] > LONGEST_MM
    return spacing[0], spacing[1], LONGEST_MM / slices if long else spacing[2]


def published_space(source_shape: Shape, spacing: Triple, side: int) -> Space:
    """The published program's space, its truncation and half-voxel shifts included (§3.1)."""
    used = shortened(source_shape[2], spacing)
    notes = []
    if used != spacing:
        notes.append(
            f"the stack of {source_shape[2] * spacing[2]:.0f} mm was declared to be "
            f"{LONGEST_MM:.0f} mm long, as the published program does"
        )
    scale, offset, covered = [], [], []
    for length, step, field_mm in zip(source_shape, used, FIELD_MM, strict=True):
        start, span = published_cut(length, step, field_mm)
        scale.append(span / side)
        offset.append(0.5 * span / side - 0.5 + start)
        covered.append(span * step)
    return Space(
        mode="parity",
        shape=(side, side, side),
        field_mm=_triple(covered),
        source_shape=source_shape,
        spacing=used,
        matrix=_matrix(np.diag(scale)),
        offset=_triple(offset),
        shortened=used != spacing,
        notes=tuple(notes),
    )


def physical_space(
    geometry: Geometry, side: int, levels: tuple[float, ...] | None, level_axis: int
) -> Space:
    """The exact map: 334 × 334 × 512 mm around the middle of the scan (§3.1, corrected).

    Parameters
    ----------
    geometry
        Of the scan as an array [slice, row, column] in LPS order.
    levels, level_axis
        As in `Space`.

    Notes
    -----
    Along the scan's own axes where they are the patient's, within `STRAIGHT_DEGREES`; else along
    the patient's.
    """
    slices, rows, columns = geometry.shape
    along_z, along_y, along_x = geometry.spacing
    spacing = (along_y, along_x, along_z)
    shape, voxel = (side, side, side), np.array(FIELD_MM) / side
    last = np.array([rows, columns, slices]) - 1.0
    if levels is not None:
        last[level_axis] = levels[-1]
    notes = _notes_on_place(geometry, levels)
    length = (last[2] + 1) * spacing[2]
    if length > LONGEST_MM:
        notes.append(
            f"the stack is {length:.0f} mm long; the published program would declare it to be "
            f"{LONGEST_MM:.0f} mm"
        )
    if oblique_angle(geometry) > STRAIGHT_DEGREES:
        to_index = np.linalg.inv(geometry.steps.T)[[1, 2, 0]]
        matrix = to_index @ (np.array(_ANTERIOR_TO_HEAD).T * voxel)
    else:
        matrix = np.diag(voxel / spacing)
    return Space(
        mode="corrected",
        shape=shape,
        field_mm=FIELD_MM,
        source_shape=(rows, columns, slices),
        spacing=spacing,
        matrix=_matrix(matrix),
        offset=_triple(matrix @ np.full(3, 0.5 - side / 2) + last / 2),
        levels=levels,
        level_axis=level_axis,
        notes=tuple(notes),
    )


def _notes_on_place(geometry: Geometry, levels: tuple[float, ...] | None) -> list[str]:
    notes = []
    if levels is not None:
        notes.append(
            "uneven or missing slices: the scan was interpolated between those there are, each at "
            "its own place"
        )
    angle = oblique_angle(geometry)
    if angle > STRAIGHT_DEGREES:
        notes.append(
            f"the scan's axes are turned by up to {angle:.0f}° against the patient's: it was "
            "resampled along the patient's"
        )
    return notes


def oblique_angle(geometry: Geometry) -> float:
    """Largest angle in degrees between an axis of an array in LPS order and the patient's."""
    along = np.array(geometry.direction)[[0, 1, 2], [2, 1, 0]]
    return float(np.degrees(np.arccos(np.clip(along, -1, 1))).max())


def uneven_levels(positions: Sequence[float], step: float) -> tuple[float, ...] | None:
    """Places of slices in steps of `step` mm from the first; None when they are even.

    Parameters
    ----------
    positions
        Along the normal in mm, ascending.
    """
    levels = (np.array(positions) - positions[0]) / step
    if np.abs(levels - np.arange(len(levels))).max() <= _UNEVEN_STEPS:
        return None
    return tuple(levels.tolist())


def _triple(values: Sequence[float] | NDArray[np.float64]) -> Triple:
    return float(values[0]), float(values[1]), float(values[2])


def _matrix(values: NDArray[np.float64]) -> Matrix:
    return _triple(values[0]), _triple(values[1]), _triple(values[2])
