"""A CT as DLPE stacks it: by InstanceNumber as published, or by positions in LPS order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, namespace
from ..reading.ct_numbers import Numbering
from ..reading.series import Series
from ..reading.volume import Geometry, Reorientation, Triple, Volume
from ..windows import padding_to_air
from .grid import Shape, uneven_levels

Scan = Series | Volume

_SPACE_AXIS = (2, 0, 1)
"""Axis of [row, column, slice] that each axis of [slice, row, column] is."""


@dataclass(frozen=True, slots=True)
class Source:
    """A scan as planes [row, column] in HU, decoded when asked for.

    Attributes
    ----------
    plane
        Gives plane k, of any real type.
    stored
        Geometry of the array of the file.
    geometry
        Of the planes as an array [slice, row, column], by their positions.
    spacing
        Distance of rows, columns and slices in mm.
    reorientation, order
        From the array of the file to the planes, as in `Space`.
    levels, level_axis
        As in `Space`.
    """

    plane: Callable[[int], Array]
    stored: Geometry
    geometry: Geometry
    spacing: Triple
    reorientation: Reorientation
    order: tuple[int, ...] | None = None
    levels: tuple[float, ...] | None = None
    level_axis: int = 2
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Rows, columns and slices."""
        slices, rows, columns = self.geometry.shape
        return rows, columns, slices

    def whole(self) -> Array:
        """All planes as int16 [slice, row, column]."""
        first = self.plane(0)
        xp = namespace(first)
        voxels = xp.empty(self.geometry.shape, dtype=xp.int16)
        for k in range(voxels.shape[0]):
            voxels[k, ...] = _int16(first if k == 0 else self.plane(k))
        return voxels


def as_published(scan: Scan) -> Source:
    """The stack of the published program: rows, columns and InstanceNumbers as they are (§2.1).

    What is no DICOM comes in LPS order with its own spacing.

    Raises
    ------
    InputError
        For InstanceNumbers that are missing or not consecutive, and for a missing SliceThickness.
    """
    numbering = None if isinstance(scan, Volume) else scan.numbering()
    if numbering is None or isinstance(scan, Volume):
        note = "no DICOM files: taken in LPS order with its own spacing"
        return _in_lps_order(scan, air=False, notes=(note,))
    order = np.array(numbering.order)
    turn, own = Reorientation(), None
    if (np.diff(order) < 0).all() and len(order) > 1:
        turn = Reorientation(flips=(True, False, False))
    elif (np.diff(order) != 1).any():
        own = numbering.order
    return Source(
        plane=lambda z: scan.stored_slice(numbering.order[z]),
        stored=scan.stored_geometry,
        geometry=scan.stored_geometry.reoriented(turn),
        spacing=numbering.spacing,
        reorientation=turn,
        order=own,
        notes=_published_notes(scan, numbering, turn, own),
    )


def by_position(scan: Scan) -> Source:
    """The scan by the positions of its slices in LPS order, padding raised to −1024 HU.

    Spec dlpe §2.2. Slices that are missing or uneven keep their places as `levels`.
    """
    return _in_lps_order(scan, air=True, notes=())


def _in_lps_order(scan: Scan, *, air: bool, notes: tuple[str, ...]) -> Source:
    def limited(plane: Array) -> Array:
        return padding_to_air(plane) if air else plane

    if isinstance(scan, Volume):
        turn = scan.geometry.lps_order()
        voxels = turn.apply(scan.voxels)
        return Source(
            plane=lambda k: limited(voxels[k, ...]),
            stored=scan.geometry,
            geometry=scan.geometry.reoriented(turn),
            spacing=_plane_spacing(scan.geometry.reoriented(turn)),
            reorientation=turn,
            notes=(*scan.notes, *notes),
        )
    levels, level_axis = _levels(scan) if air else (None, 2)
    plane = _planes(scan, padding_to_air=air)
    return Source(
        plane=lambda k: limited(plane(k)),
        stored=scan.stored_geometry,
        geometry=scan.geometry,
        spacing=_plane_spacing(scan.geometry),
        reorientation=scan.reorientation,
        levels=levels,
        level_axis=level_axis,
        notes=(*scan.notes, *notes),
    )


def _planes(
    series: Series, *, padding_to_air: bool
) -> Callable[[int], NDArray[np.float32 | np.int16]]:
    """The planes of a series in LPS order; one that is not axial is decoded as a whole first."""
    turn = series.reorientation
    if turn.axes[0] == 0:
        last = len(series) - 1

        def plane(k: int) -> NDArray[np.float32]:
            at = last - k if turn.flips[0] else k
            return turn.apply(series.stored_slice(at, padding_to_air=padding_to_air)[None])[0]

        return plane
    stored = np.empty(series.stored_geometry.shape, np.int16)
    for k in range(len(stored)):
        stored[k] = _int16(series.stored_slice(k, padding_to_air=padding_to_air))
    voxels = turn.apply(stored)
    return lambda k: voxels[k]


def _levels(series: Series) -> tuple[tuple[float, ...] | None, int]:
    """Uneven places of the slices, and the axis of [row, column, slice] along which they lie."""
    if series.even:
        return None, _SPACE_AXIS[series.reorientation.axes.index(0)]
    levels = uneven_levels(series.stored_positions, series.stored_geometry.slice_distance)
    axis = series.reorientation.axes.index(0)
    if levels is not None and series.reorientation.flips[axis]:
        levels = tuple(levels[-1] - level for level in reversed(levels))
    return levels, _SPACE_AXIS[axis]


def _plane_spacing(geometry: Geometry) -> Triple:
    return geometry.spacing[1], geometry.spacing[2], geometry.spacing[0]


def _int16(plane: Array) -> Array:
    xp = namespace(plane)
    if plane.dtype == xp.int16:
        return plane
    return xp.astype(xp.clip(xp.round(plane), -(2**15), 2**15 - 1), xp.int16)


def _published_notes(
    series: Series, numbering: Numbering, turn: Reorientation, own: tuple[int, ...] | None
) -> tuple[str, ...]:
    """What the published way of stacking makes of a series that is not as it expects."""
    notes = list(series.notes)
    thickness, distance = numbering.spacing[2], series.stored_geometry.slice_distance
    if len(numbering.order) > 1 and abs(thickness / distance - 1) > 0.01:
        notes.append(
            f"slices {distance:.2f} mm apart were taken as {thickness:.2f} mm apart, their "
            "thickness, as the published program does"
        )
    if own is not None or turn != series.reorientation:
        notes.append(
            "rows, columns or InstanceNumbers do not run to the back, to the left and to the feet; "
            "the published program takes them as if they did; mode corrected turns the scan"
        )
    return tuple(notes)
