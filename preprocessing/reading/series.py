"""CT series from DICOM and NIfTI, in one order and one orientation, whatever the file's.

Slices come in Hounsfield units in LPS order: slice 0 is the lowest, row 0 anterior, column 0 on the
patient's right. They are decoded when asked for, so a long series needs the memory of a few slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import NoSeries, WrongStudy

from .ct_headers import list_files, scan
from .ct_numbers import Numbering
from .ct_stack import DicomStack, choose, in_order
from .image_headers import JPEG_SIGNATURE, PNG_SIGNATURE
from .locked import Locked
from .nifti import SUFFIXES, Forms, NiftiStack
from .notes import Note, flags_of, look_of
from .stack import Stack
from .volume import Geometry, Reorientation, Volume, extent_mm, find_breaks, slice_widths


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """A series of a folder.

    Attributes
    ----------
    number
        What `open_series` takes as `series`.
    description
        Modality, size, spacing, SeriesNumber, and words of `ct_words` that its header has; no
        identifiers.
    """

    number: int
    modality: str
    slices: int
    description: str


class Series(Locked):
    """A CT series in LPS order.

    Attributes
    ----------
    geometry
        Of the series as an array [z, y, x].
    reorientation
        From the file's order to this one; its ``undo`` brings a mask back.
    remarks
        What is unusual about the series, with a code where a flag depends on it.
    look
        What its header says that changes grey values and textures; for systems that go by them.
    """

    def __init__(
        self, stack: Stack, remarks: Sequence[Note] = (), look: tuple[Note, ...] = ()
    ) -> None:
        super().__init__()
        self._stack = stack
        self.look = look
        self.reorientation: Reorientation = stack.geometry.lps_order()
        self.geometry = stack.geometry.reoriented(self.reorientation)
        self._across = self.reorientation.axes[0] != 0
        self.remarks = (*remarks, *stack.notes)
        if self._across:
            text = "the series is not axial: axial slices are cut from the whole of it"
            self.remarks += (Note(text),)
        self._voxels: NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return self.geometry.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return (self.slice(i) for i in range(len(self)))

    @property
    def kind(self) -> str:
        """Format of the file: ``"DICOM"`` or ``"NIfTI"``."""
        return self._stack.kind

    @property
    def files(self) -> tuple[Path, ...]:
        """File of each slice in the order of `stored_geometry`; none for what is no DICOM."""
        return self._stack.files if isinstance(self._stack, DicomStack) else ()

    @property
    def frames(self) -> tuple[int, ...]:
        """Which frame of its file each slice is, from 0, in the order of `files`."""
        return self._stack.frames if isinstance(self._stack, DicomStack) else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about the series, human-readable; free of identifiers."""
        return tuple(remark.text for remark in self.remarks)

    @property
    def flags(self) -> tuple[str, ...]:
        """What casts doubt on volumes, lengths or sides: codes of `preprocessing.reading.notes`."""
        return flags_of(self.remarks)

    @property
    def even(self) -> bool:
        """Whether slices lie in equal steps, but for what the header rounds."""
        return self._stack.even

    @property
    def forms(self) -> Forms | None:
        """What a NIfTI header says about the geometry of the file's own array."""
        return self._stack.forms

    @property
    def stored_geometry(self) -> Geometry:
        """Geometry of the file's own array [slice, row, column]."""
        return self._stack.geometry

    @property
    def description(self) -> str:
        """Size and spacing, human-readable."""
        depth, height, width = self.geometry.shape
        z, y, x = self.geometry.spacing
        return f"{depth} slices of {width} × {height}, {x:.3f} × {y:.3f} × {z:.3f} mm"

    @property
    def thickness(self) -> float | None:
        """Slice thickness in mm, where the file says it; not the distance of slices."""
        return self._stack.thickness

    @property
    def tilt(self) -> float:
        """Tilt of the gantry in degrees."""
        return self.stored_geometry.tilt

    @property
    def positions(self) -> tuple[float, ...]:
        """Of each slice along the normal, towards the head, in mm; ascending."""
        if self._across:
            return tuple(i * self.geometry.slice_distance for i in range(len(self)))
        if self.reorientation.flips[0]:
            return tuple(-p for p in reversed(self._stack.positions))
        return self._stack.positions

    @property
    def numbers(self) -> tuple[int | None, ...]:
        """InstanceNumber of each slice, where there is one."""
        if self._across:
            return (None,) * len(self)
        numbers = self._stack.numbers
        return numbers[::-1] if self.reorientation.flips[0] else numbers

    @property
    def stored_positions(self) -> tuple[float, ...]:
        """Of each slice of the file along its own normal in mm, in the file's order; ascending."""
        return self._stack.positions

    @property
    def stored_numbers(self) -> tuple[int | None, ...]:
        """InstanceNumber of each slice of the file, in the file's order."""
        return self._stack.numbers

    @property
    def file_order(self) -> tuple[int | None, ...]:
        """Number of each slice in the file's own order: InstanceNumber, else its place from 1."""
        if self._across:
            return (None,) * len(self)
        count = len(self)
        places = range(count, 0, -1) if self.reorientation.flips[0] else range(1, count + 1)
        return tuple(
            place if number is None else number
            for number, place in zip(self.numbers, places, strict=True)
        )

    def length_mm(self, first: int, last: int) -> float:
        """Length of a stretch of slices along the normal in mm, half a step added at either end."""
        if self.even or self._across:
            return (last - first + 1) * self.geometry.slice_distance
        return extent_mm(self.positions, first, last)

    def from_head(self, index: int) -> int:
        """Number of a slice as people count: 1 is next to the head."""
        return len(self) - index

    def where(self, index: int) -> str:
        """A slice as people look for it: counted from the head, and as the file numbers it."""
        text, number = f"slice {self.from_head(index)}", self.numbers[index]
        if number is not None:
            return f"{text}, InstanceNumber {number}"
        own = self.file_order[index]
        return text if own is None else f"{text}, no. {own} in the file"

    def where_missing(self, shown: int = 8) -> str:
        """Between which slices others are missing, counted from the head; empty for none."""
        after = [self.from_head(i) for i in reversed(self.breaks)]
        places = ", ".join(f"{n - 1} and {n}" for n in after[:shown])
        return places + (" …" if len(after) > shown else "")

    def millilitres(self, mask: NDArray[Any]) -> float:
        """Volume of a mask, each slice by the step that it stands for.

        Parameters
        ----------
        mask
            [z, y, x] of the series in LPS order; what is not 0 counts.
        """
        if self.even:
            return int(np.count_nonzero(mask)) * self.geometry.voxel_ml
        stored = self._stack.geometry
        widths = slice_widths(self._stack.positions, stored.slice_distance)
        planes = self.reorientation.undo(mask)
        counts = np.array([np.count_nonzero(plane) for plane in planes])
        return float(counts @ widths) * stored.voxel_ml / stored.slice_distance

    @property
    def breaks(self) -> tuple[int, ...]:
        """Slices after which slices are missing (a step above 1.5 times the median)."""
        return find_breaks(self.positions)

    def slice(self, index: int) -> NDArray[np.int16]:
        """Decode a slice.

        Parameters
        ----------
        index
            From 0, the lowest.

        Returns
        -------
        int16 [H, W] in HU, contiguous. What lies outside the scanner's field of view is as stored,
        often far below −1024 (`windows.padding_to_air` raises it).

        Raises
        ------
        InputError
            When it cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of a series of {len(self)}")
        if self._across:
            return np.ascontiguousarray(self._all()[index])
        last = len(self) - 1
        plane = self._stack.read(last - index if self.reorientation.flips[0] else index)
        within = Reorientation(
            (0, self.reorientation.axes[1], self.reorientation.axes[2]),
            (False, self.reorientation.flips[1], self.reorientation.flips[2]),
        )
        return np.ascontiguousarray(within.apply(plane[None])[0])

    def stored_slice(self, index: int, *, padding_to_air: bool = False) -> NDArray[np.float32]:
        """Decode a slice of the file's own order and orientation.

        Parameters
        ----------
        index
            In the order of `stored_geometry`.
        padding_to_air
            Voxels that the file marks as padding become −1024 HU.

        Returns
        -------
        float32 [rows, columns] in HU, from DICOM neither rounded nor limited.

        Raises
        ------
        InputError
            When it cannot be decoded.
        """
        if isinstance(self._stack, DicomStack):
            return self._stack.read_exact(index, padding_to_air=padding_to_air)
        return self._stack.read(index).astype(np.float32)

    def raw_slice(self, index: int) -> NDArray[np.int32] | None:
        """Decode a slice in the order of `stored_geometry`, without slope and intercept.

        Returns
        -------
        int32 [rows, columns]; None for what is no DICOM. Raises as `stored_slice` does.
        """
        return self._stack.read_raw(index) if isinstance(self._stack, DicomStack) else None

    def numbering(self) -> Numbering | None:
        """The slices by InstanceNumber alone; None for what is no DICOM.

        Raises
        ------
        InputError
            When they cannot be stacked by it, see `ct_numbers.by_number`.
        """
        return self._stack.numbering() if isinstance(self._stack, DicomStack) else None

    def volume(self) -> Volume:
        """Decode the whole series.

        Raises
        ------
        InputError
            When a slice cannot be decoded.
        """
        return Volume(self._all(), self.geometry, self.notes)

    def _all(self) -> NDArray[np.int16]:
        if not self._across:
            voxels = np.empty(self.geometry.shape, np.int16)
            for i in range(len(self)):
                voxels[i] = self.slice(i)
            return voxels
        with self._lock:
            if self._voxels is None:
                stored = np.empty(self._stack.geometry.shape, np.int16)
                for i in range(len(stored)):
                    stored[i] = self._stack.read(i)
                self._voxels = np.ascontiguousarray(self.reorientation.apply(stored))
            return self._voxels


def open_series(
    path: Path | str | Sequence[Path],
    *,
    series: str | int | None = None,
    acquisition: int | None = None,
) -> Series:
    """Open a CT series; nothing but headers is read, and slices that share a place.

    Parameters
    ----------
    path
        A NIfTI file, a DICOM file, a folder with DICOM files in any order and of any series, or
        several DICOM files.
    series
        Which series of a mixed folder: its number in `list_series`, or its SeriesInstanceUID. None:
        the axial chest CT with the most voxels.
    acquisition
        Which of several acquisitions of the series, from 1 in their order. None: the one with the
        most voxels in regular steps, of equal ones the last.

    Raises
    ------
    InputError
        When there is no usable CT series. Messages hold no identifiers and no file names.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    if len(paths) == 1 and paths[0].name.lower().endswith(SUFFIXES) and not paths[0].is_dir():
        return Series(NiftiStack(paths[0]))
    files = list_files(paths)
    found = scan(files)
    if not found.groups and not found.unusable:
        _explain_others(files)
    chosen = choose(found, series, paths[0] if len(paths) == 1 else None)
    notes = list(found.notes)
    if (several := len(found.groups)) > 1:
        which = f"no. {chosen.ordinal}, {chosen.description}; --series N chooses another"
        note = f"one of {several} series in the folder: {which}"
        if (studies := len({group.study for group in found.groups})) > 1:
            note = f"one of {several} series of {studies} studies in the folder: {which}"
        notes.insert(0, Note(note))
    if not chosen.unit_known:
        notes.append(Note("RescaleType (0028,1054) does not say that the values are in HU"))
    order = in_order(chosen, acquisition)
    return Series(DicomStack(order), notes, look_of(order.frames[0].taken.kernel, chosen.contrast))


def list_series(path: Path | str | Sequence[Path]) -> tuple[SeriesInfo, ...]:
    """List the DICOM series of a folder, by their headers alone.

    Raises
    ------
    InputError
        For a path that does not exist or holds too many files.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    return tuple(
        SeriesInfo(group.ordinal, group.modality, len(group.images), group.description)
        for group in scan(list_files(paths)).groups
    )


def _explain_others(files: Sequence[Path]) -> None:
    """Refuse a folder without DICOM with a hint at what it holds instead."""
    nifti = sum(f.name.lower().endswith(SUFFIXES) for f in files)
    if nifti:
        raise NoSeries(f"no DICOM images, but {nifti} NIfTI file(s); give one of them itself")
    if any(_is_picture(f) for f in files):
        raise WrongStudy(
            "a picture of 8 bits has no Hounsfield units; give the slice as DICOM or NIfTI (only "
            "ct-angel takes pictures)"
        )


def _is_picture(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(8).startswith((PNG_SIGNATURE, JPEG_SIGNATURE))
    return False
