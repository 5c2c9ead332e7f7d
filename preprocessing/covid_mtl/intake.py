"""A scan as COVID-MTL takes it: stored values S = HU + 1024 in the order of its slices.

Spec covid_mtl §3. The published program takes the numbers of the file for stored values, whatever
slope and intercept say, and rows, columns and slices as they are; mode ``corrected`` converts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import (
    HU_OFFSET,
    MIN_SLICES,
    PADDING,
    PUBLISHED_NIFTI_STEP_MM,
    STORED_MAX,
    UNEVEN,
)
from hilum.catalog.errors import BadOrder, BadSize, NoGeometry
from hilum.catalog.terms import Mode

from ..arrays import Array, namespace
from ..dlpe.source import Scan, by_position
from ..reading.series import Series
from ..reading.volume import Geometry, Reorientation, Triple, Volume

_AXIAL = 0.7
"""Cosine between the slices' normal and the body's axis above which they are axial."""

_STEP_TOLERANCE_MM = 0.01
"""What a NIfTI header may be off the published step without being misread."""

VALUES_MISREAD = "values_misread"
ORIENTATION_MISREAD = "orientation_misread"
SPACING_MISREAD = "spacing_misread"


@dataclass(frozen=True, slots=True)
class Intake:
    """A scan as it was taken in.

    Attributes
    ----------
    stored
        uint16 [z, y, x]; int16 where the published program leaves negative values. z to the head,
        y to the back, x to the patient's left, in mode ``corrected`` always, in mode ``parity``
        when the file has that order.
    spacing
        What the voxels are taken to measure along each axis, in mm.
    geometry
        Where they truly lie.
    notes
        For people to read.
    flags
        What mode ``parity`` takes for something else than it is: `VALUES_MISREAD`,
        `ORIENTATION_MISREAD`, `SPACING_MISREAD`.
    """

    stored: Array
    spacing: Triple
    geometry: Geometry
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def take_in(scan: Scan, mode: Mode = "parity") -> Intake:
    """Take a scan in.

    Parameters
    ----------
    scan
        A series, or a volume in HU whose voxels may lie on a GPU.
    mode
        ``"parity"``: as the published program; a `Volume` has nothing that it would take
        differently. ``"corrected"``: in HU and LPS order.

    Raises
    ------
    InputError
        For fewer than 3 slices, uneven distances of slices (mode ``corrected``), slices that are
        not axial (mode ``parity``), and a series that cannot be read.
    """
    if isinstance(scan, Volume):
        taken = _converted(scan)
    elif mode == "corrected":
        _check_steps(scan)
        taken = _converted(scan)
    else:
        taken = _published(scan)
    if taken.stored.shape[0] < MIN_SLICES:
        raise BadSize(f"{taken.stored.shape[0]} slice(s); give a series of {MIN_SLICES} at least")
    return taken


def published_values(raw: NDArray[np.int32]) -> NDArray[np.uint16 | np.int16]:
    """Take the numbers of a file for stored values, as the published program does.

    Parameters
    ----------
    raw
        int32 [z, y, x]; it is worked on in place.

    Returns
    -------
    uint16, or int16 when negative values remain.
    """
    raw[raw == PADDING] = 0
    low, high = int(raw.min()), int(raw.max())
    if high > STORED_MAX or low < -HU_OFFSET:
        if low < 0:
            raw += HU_OFFSET
        np.clip(raw, 0, STORED_MAX, out=raw)
        low = 0
    return raw.astype(np.int16 if low < 0 else np.uint16)


def _converted(scan: Scan) -> Intake:
    """S from HU, rounded, limited to what S may be; padding becomes air."""
    source = by_position(scan)
    geometry = source.geometry
    first = source.plane(0)
    xp = namespace(first)
    stored = xp.empty(geometry.shape, dtype=xp.uint16)
    for k in range(len(stored)):
        plane = xp.rint(first if k == 0 else source.plane(k)) + HU_OFFSET
        stored[k] = xp.clip(plane, 0, STORED_MAX).astype(xp.uint16)
    spacing = geometry.slice_distance, geometry.spacing[1], geometry.spacing[2]
    return Intake(stored, spacing, geometry, source.notes)


def _published(series: Series) -> Intake:
    """The numbers of the file in its own rows and columns, by their height."""
    if series.kind == "NIfTI":
        return _published_nifti(series)
    stored = series.stored_geometry
    if abs(stored.normal[2]) < _AXIAL:
        raise BadOrder(
            "the slices are not axial, and the published program orders slices by their height; "
            "choose mode corrected, which turns the scan"
        )
    turn = Reorientation(flips=(bool(stored.normal[2] < 0), False, False))
    raw = np.empty(stored.shape, np.int32)
    for k, plane in enumerate(raw):
        plane[:] = series.raw_slice(k)
    values = published_values(turn.apply(raw))
    geometry = stored.reoriented(turn)
    positions = series.stored_positions[:: -1 if turn.flips[0] else 1]
    # The first two slices count, by the height of their corners alone.
    rise = abs(float(stored.steps[0][2])) / stored.slice_distance
    step = abs(positions[1] - positions[0]) * rise if len(positions) > 1 else 0.0
    doubts = _doubts(series, values, turn)
    spacing = _single(step, stored.spacing[1], stored.spacing[2])
    return Intake(values, spacing, geometry, (*series.notes, *doubts.values()), tuple(doubts))


def _published_nifti(series: Series) -> Intake:
    """Columns from left to right, and spacings one place off in the header (spec §3)."""
    stored = series.stored_geometry
    turn = Reorientation(flips=(False, False, True))
    raw = np.empty(stored.shape, np.int32)
    for k, plane in enumerate(raw):
        plane[:] = series.stored_slice(k)
    values = published_values(raw)[:, :, ::-1]
    note = (
        f"NIfTI: slices {stored.spacing[0]:.2f} mm apart were taken as {PUBLISHED_NIFTI_STEP_MM:g} "
        "mm apart, turned, and their values as they are, as the published program does; mode "
        "corrected goes by the header"
    )
    spacing = _single(PUBLISHED_NIFTI_STEP_MM, stored.spacing[2], stored.spacing[1])
    other = abs(stored.spacing[0] - PUBLISHED_NIFTI_STEP_MM) > _STEP_TOLERANCE_MM
    return Intake(
        np.ascontiguousarray(values), spacing, stored.reoriented(turn), (*series.notes, note),
        (SPACING_MISREAD,) if other else (),
    )  # fmt: skip


def _single(*spacing: float) -> Triple:
    """The published program holds spacings in single precision."""
    z, y, x = (float(np.float32(s)) for s in spacing)
    return z, y, x


def _doubts(
    series: Series, values: NDArray[np.uint16 | np.int16], turn: Reorientation
) -> dict[str, str]:
    """What the published way of reading makes of a file that is not as it expects, by flag."""
    doubts = {}
    middle = len(values) // 2
    stored = len(values) - 1 - middle if turn.flips[0] else middle
    hu = series.stored_slice(stored, padding_to_air=True)
    away = np.abs(values[middle] - np.clip(hu + HU_OFFSET, 0, STORED_MAX)) > 1
    if away.mean() > 0.5:
        doubts[VALUES_MISREAD] = (
            "the file's numbers are not HU + 1024, and the published program takes them so: its "
            "thresholds then mean something else; mode corrected converts them"
        )
    if turn != series.reorientation:
        doubts[ORIENTATION_MISREAD] = (
            "rows or columns do not run to the back and to the left; the published program takes "
            "them as if they did; mode corrected turns the scan"
        )
    return doubts


def _check_steps(series: Series) -> None:
    """Refuse distances of slices that differ from their median."""
    steps = np.diff(series.stored_positions)
    if not len(steps) or series.even:
        return
    median = float(np.median(steps))
    if np.abs(steps / median - 1).max() > UNEVEN:
        raise NoGeometry(
            f"slices {steps.min():.2f} to {steps.max():.2f} mm apart, usually {median:.2f} mm; "
            "slices are missing or uneven, give a series with all of them"
        )
