"""From the headers of a folder to one CT series in order: choose, check, sort, decode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import (
    BadFormat,
    BadSize,
    Damaged,
    InputError,
    NoGeometry,
    NoSeries,
    WrongStudy,
)

from . import ct_acquisitions
from .ct_acquisitions import SAME_PLACE_MM, rounding_of
from .ct_frames import Frame
from .ct_headers import Group, Scan
from .ct_numbers import Numbering, by_number
from .ct_pixels import FrameReader
from .ct_steps import on_angles, slice_step, uneven
from .limits import MAX_SLICES, MAX_VOXELS, check_declared_size
from .notes import Note
from .volume import Geometry, is_even

_TILT_DEGREES = 0.05
"""A tilt below this is the rounding of positions in the header."""

_LEAST_PLACES = 3
"""Slices at fewer places are no volume: they watch a contrast agent, or are one slice alone."""

_LISTED = 20
"""Series that a message names."""

_LARGEST_RESCALE = 1e6
"""A slope or intercept beyond this leads to no Hounsfield units."""


@dataclass(frozen=True, slots=True)
class Order:
    """The slices of a series along their normal.

    Attributes
    ----------
    positions
        Along the normal in mm, ascending.
    left_out
        InstanceNumbers of slices that came twice: at one place, with equal pixels.
    even
        The slices lie in equal steps, but for what the header rounds.
    """

    frames: tuple[Frame, ...]
    geometry: Geometry
    positions: tuple[float, ...]
    notes: tuple[Note, ...]
    left_out: tuple[int | None, ...] = ()
    even: bool = True


def choose(scan: Scan, series: str | int | None, folder: Path | None = None) -> Group:
    """Choose a series: the named one, or the axial chest CT with the most voxels.

    A series of less than three places counts less than any other, one that its header calls
    something else than a chest less than one of which nothing is known, and that less than a chest.

    Parameters
    ----------
    series
        Its number in the list of series, from 1, or its SeriesInstanceUID.
    folder
        Where the study lies: series with files in it come before those of folders below.

    Raises
    ------
    InputError
        When there is none, it is no CT, two have equal claims, or there are several patients. The
        message lists what there is.
    """
    listed = "; ".join(f"{g.ordinal}: {g.description}" for g in scan.groups[:_LISTED])
    listed += "; …" if len(scan.groups) > _LISTED else ""
    if not scan.groups:
        if scan.unusable:
            raise Damaged("; ".join(scan.reasons))
        raise BadFormat(
            f"no DICOM images among {scan.files} file(s); give a DICOM series or a NIfTI file"
        )
    if series is not None:
        for group in scan.groups:
            if str(series).strip() in (str(group.ordinal), group.uid):
                if group.modality != "CT" or not group.images:
                    raise WrongStudy(f"series {group.ordinal} is no CT series: {group.description}")
                if not group.in_hounsfield:
                    raise WrongStudy(
                        f"series {group.ordinal} has no Hounsfield units: {group.description}"
                    )
                return group
        raise NoSeries(f"no series of that name; there are: {listed}. Give --series N")
    candidates = [g for g in scan.groups if g.modality == "CT" and g.images and g.in_hounsfield]
    if not candidates:
        why = "".join(f"; {reason}" for reason in scan.reasons)
        raise WrongStudy(f"no CT series; there are: {listed}{why}. Give a CT of the chest")
    here = [g for g in candidates if any(f.path.parent == folder for f in g.frames)] or candidates
    _refuse_several_patients(here, listed)

    def rank(group: Group) -> tuple[int, ...]:
        whole = group.places >= _LEAST_PLACES
        return group.axial, whole, group.unit_known, group.chest, group.voxels

    best = max(rank(g) for g in here)
    chosen = [g for g in here if rank(g) == best]
    if len(chosen) > 1:
        raise NoSeries(
            f"{len(chosen)} CT series have equal claims; choose one by --series N: {listed}"
        )
    return chosen[0]


def _refuse_several_patients(groups: list[Group], listed: str) -> None:
    """Refuse to choose between patients: the other one's study would be lost in silence."""
    volumes = [g for g in groups if g.axial and g.places >= _LEAST_PLACES]
    patients = len({g.patient for g in volumes})
    if patients > 1:
        raise NoSeries(
            f"CT series of {patients} patients (PatientID) in one folder; give a folder of one "
            f"patient, or choose a series by --series N: {listed}"
        )


def in_order(group: Group, acquisition: int | None = None) -> Order:
    """Check the slices of a series against each other and sort them along their normal.

    Parameters
    ----------
    acquisition
        Which of several acquisitions, see `ct_acquisitions.choose`.

    Raises
    ------
    InputError
        For slices of different size, spacing or orientation, for different slices at one place,
        for missing positions, spacing or rescale, and for a series that is too large.
    """
    frames, notes = group.images, []
    if len(frames) < len(group.frames):
        text = f"{len(group.frames) - len(frames)} localiser(s) were left out"
        notes.append(Note(text))
    frames, chosen = ct_acquisitions.choose(frames, acquisition)
    notes += chosen
    _check_size(frames)
    row, column = _same_plane(frames)
    normal = np.cross(row, column)
    if len(frames) == 1 and frames[0].position is None:
        notes.append(Note("the slice has no position; it is taken as 0"))
        places = np.zeros((1, 3))
    else:
        missing = [f.file for f in frames if f.position is None]
        if missing:
            raise NoGeometry(
                f"{_files(missing)}: no ImagePositionPatient (0020,0032), so the order of the "
                "slices is unknown; export the series again"
            )
        places = np.array([f.position for f in frames])
    along = places @ normal
    numbers = np.array([float(f.number or 0) for f in frames])
    order = np.lexsort([numbers, np.round(along / SAME_PLACE_MM)])
    kept = _without_duplicates(frames, along, order)
    left_out = tuple(frames[i].number for i in np.setdiff1d(order, kept))
    if left_out:
        notes.append(Note(f"{len(left_out)} slice(s) at the place of another one were left out"))
    frames, along, places = tuple(frames[i] for i in kept), along[kept], places[kept]
    spacing = frames[0].spacing
    if spacing is None:
        raise NoGeometry("no PixelSpacing (0028,0030); export the series again")
    even = is_even(along.tolist(), rounding_of(frames))
    if not even:
        notes.append(uneven(along))
    step = slice_step(frames[0], along, places, normal, notes)
    geometry = Geometry.from_steps(
        (len(frames), frames[0].rows, frames[0].columns),
        places[0],
        np.stack([step, column * spacing[0], row * spacing[1]]),
    )
    notes += on_angles(geometry)
    return Order(frames, geometry, tuple(along.tolist()), tuple(notes), left_out, even)


class DicomStack:
    """The slices of a DICOM series in order, decoded when asked for.

    Attributes
    ----------
    geometry
        Of the array [slice, row, column] as stored: in equal steps from the first to the last.
    positions
        Along the slices' normal in mm, ascending.
    even
        They lie in equal steps, but for what the header rounds.
    numbers
        InstanceNumber of each slice.
    files
        File of each slice.
    """

    kind = "DICOM"
    forms = None

    def __init__(self, order: Order) -> None:
        self._frames, self._left_out = order.frames, order.left_out
        self.geometry = order.geometry
        self.positions = order.positions
        self.even = order.even
        self.notes = order.notes
        self.numbers = tuple(f.number for f in order.frames)
        self.files = tuple(f.path for f in order.frames)
        self.frames = tuple(f.index for f in order.frames)
        self.thickness = order.frames[0].thickness
        self._reader = FrameReader()

    def read(self, index: int) -> NDArray[np.int16]:
        """Decode a slice; int16 [rows, columns] in HU.

        Raises
        ------
        InputError
            When it cannot be decoded, saying which slice and file.
        """
        with self._named(index) as frame:
            return self._reader.hounsfield(frame)

    def read_exact(self, index: int, *, padding_to_air: bool = False) -> NDArray[np.float32]:
        """Decode a slice; float32 [rows, columns] in HU, not rounded and not limited.

        Parameters
        ----------
        padding_to_air
            Voxels of PixelPaddingValue become −1024 HU.

        Raises
        ------
        InputError
            When it cannot be decoded, saying which slice and file.
        """
        with self._named(index) as frame:
            return self._reader.exact(frame, padding_to_air=padding_to_air)

    def numbering(self) -> Numbering:
        """The slices by InstanceNumber alone, see `ct_numbers.by_number`."""
        return by_number(self._frames, self._left_out)

    def read_raw(self, index: int) -> NDArray[np.int32]:
        """Decode a slice as `read` does, without slope and intercept."""
        with self._named(index) as frame:
            return self._reader.stored(frame)

    @contextmanager
    def _named(self, index: int) -> Iterator[Frame]:
        """A slice; errors say which one it is."""
        frame = self._frames[index]
        try:
            yield frame
        except InputError as error:
            count, head = len(self._frames), float(self.geometry.normal[2])
            number = count - index if head > 0.5 else index + 1
            where = " from the head" if abs(head) > 0.5 else ""
            raise type(error)(
                f"slice {number} of {count}{where} (file {frame.file} in the order of names): "
                f"{error}"
            ) from None


def _check_size(frames: tuple[Frame, ...]) -> None:
    first = frames[0]
    if len(frames) > MAX_SLICES:
        raise BadSize(
            f"{len(frames)} slices, more than the limit of {MAX_SLICES}; give a series of the "
            "chest alone"
        )
    check_declared_size("DICOM", first.columns, first.rows)
    sizes = sorted({(f.columns, f.rows) for f in frames})
    if len(sizes) > 1:
        raise NoGeometry(
            f"slices of different sizes in one series ({sizes[0][0]} × {sizes[0][1]}, "
            f"{sizes[1][0]} × {sizes[1][1]}); give a series of one size"
        )
    if len(frames) * first.rows * first.columns > MAX_VOXELS:
        raise BadSize(
            f"{len(frames)} slices of {first.columns} × {first.rows}: more than the limit of "
            f"{MAX_VOXELS / 1e9:.1f} · 10⁹ voxels; give a smaller series"
        )
    for what, files in (
        (
            "shorter than the pixels that the header declares; transfer it again",
            [f.file for f in frames if f.short],
        ),
        (
            "no usable RescaleSlope or RescaleIntercept (0028,1053 and 1052), so there are no "
            "Hounsfield units; export the series again",
            [f.file for f in frames if not _usable(f.rescale)],
        ),
        (
            "CT slices stored as MONOCHROME1 or in colour; export the series as MONOCHROME2",
            [f.file for f in frames if f.photometric != "MONOCHROME2"],
        ),
    ):
        if files:
            raise Damaged(f"{_files(files)}: {what}")


def _usable(rescale: tuple[float, float] | None) -> bool:
    return rescale is not None and rescale[0] != 0 and max(map(abs, rescale)) <= _LARGEST_RESCALE


def _files(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in sorted(set(numbers))[:5])
    return f"file {shown}{' …' if len(set(numbers)) > 5 else ''} in the order of names"


def _same_plane(frames: tuple[Frame, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Directions along rows and columns, the same in all slices, as unit vectors."""
    missing = [f.file for f in frames if f.orientation is None]
    if missing:
        raise NoGeometry(
            f"{_files(missing)}: no ImageOrientationPatient (0020,0037), so left and right are "
            "unknown; export the series again"
        )
    planes = np.array([f.orientation for f in frames])
    if np.abs(planes - planes[0]).max() > 1e-3:
        raise NoGeometry("slices of different orientation in one series; give one orientation")
    spacings = {f.spacing for f in frames}
    if None not in spacings:
        values = np.array(list(spacings))
        if np.ptp(values, axis=0).max() > 1e-3 * values.max():
            raise NoGeometry("slices of different pixel spacing in one series; give one spacing")
    row, column = planes[0]
    lengths = np.linalg.norm(planes[0], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise NoGeometry(
            "ImageOrientationPatient (0020,0037) does not hold two perpendicular unit vectors; "
            "export the series again"
        )
    return row / lengths[0], column / lengths[1]


def _without_duplicates(
    frames: tuple[Frame, ...], along: NDArray[Any], order: NDArray[Any]
) -> NDArray[Any]:
    """Keep the first of equal slices at one place; returns the kept ones, sorted.

    Raises
    ------
    InputError
        For slices at one place whose pixels differ.
    """
    kept: list[int] = []
    reader = FrameReader()
    known: tuple[int, NDArray[np.float32]] | None = None
    for i in order.tolist():
        if not kept or abs(along[i] - along[kept[-1]]) >= SAME_PLACE_MM:
            kept.append(i)
            continue
        if known is None or known[0] != kept[-1]:
            known = kept[-1], reader.exact(frames[kept[-1]], padding_to_air=False)
        if not np.array_equal(known[1], reader.exact(frames[i], padding_to_air=False)):
            near = np.abs(along - along[i]) < SAME_PLACE_MM
            raise NoGeometry(
                f"{int(near.sum())} slices at one position, of which "
                f"{_files([frames[kept[-1]].file, frames[i].file])} differ; give one series with a "
                "position for each slice"
            )
    return np.array(kept)
