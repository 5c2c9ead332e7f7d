"""CT series from DICOM and NIfTI, in one order and one orientation, whatever the file's.

Slices come in Hounsfield units in LPS order: slice 0 is the lowest, row 0 anterior, column 0 on the
patient's right. They are decoded when asked for, so a long series needs the memory of a few slices.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import InputError
from .ct_headers import list_files, scan
from .ct_numbers import Numbering
from .ct_stack import DicomStack, choose, in_order
from .image_headers import JPEG_SIGNATURE, PNG_SIGNATURE
from .nifti import SUFFIXES, NiftiStack
from .volume import Geometry, Reorientation, Volume, find_breaks


class Stack(Protocol):
    """Slices in the order and orientation of their file."""

    @property
    def kind(self) -> str:
        """Format of the file."""
        ...

    geometry: Geometry
    positions: tuple[float, ...]
    numbers: tuple[int | None, ...]
    notes: tuple[str, ...]

    @property
    def thickness(self) -> float | None:
        """Slice thickness in mm."""
        ...

    def read(self, index: int) -> NDArray[np.int16]:
        """Decode a slice [rows, columns] in HU."""
        ...


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """A series of a folder.

    Attributes
    ----------
    number
        What `open_series` takes as `series`.
    description
        Modality, size and spacing; no identifiers.
    """

    number: int
    modality: str
    slices: int
    description: str


class Series:
    """A CT series in LPS order.

    Attributes
    ----------
    geometry
        Of the series as an array [z, y, x].
    reorientation
        From the file's order to this one; its ``undo`` brings a mask back.
    notes
        What is unusual about the series, for people to read; free of identifiers.
    """

    def __init__(self, stack: Stack, notes: Sequence[str] = ()) -> None:
        self._stack = stack
        self.reorientation: Reorientation = stack.geometry.lps_order()
        self.geometry = stack.geometry.reoriented(self.reorientation)
        self._across = self.reorientation.axes[0] != 0
        self.notes = (*notes, *stack.notes)
        if self._across:
            self.notes += ("the series is not axial: axial slices are cut from the whole of it",)
        self._voxels: NDArray[np.int16] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.geometry.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return (self.slice(i) for i in range(len(self)))

    @property
    def kind(self) -> str:
        """Format of the file: ``"DICOM"`` or ``"NIfTI"``."""
        return self._stack.kind

    @property
    def stored_geometry(self) -> Geometry:
        """Geometry of the file's own array [slice, row, column]."""
        return self._stack.geometry

    @property
    def description(self) -> str:
        """Size and spacing, for people to read."""
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
        """Decode a slice of the file's own order, without slope and intercept.

        Parameters
        ----------
        index
            In the order of `stored_geometry`.

        Returns
        -------
        int32 [rows, columns]; None for what is no DICOM.

        Raises
        ------
        InputError
            When it cannot be decoded.
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


def open_series(path: Path | str | Sequence[Path], *, series: str | int | None = None) -> Series:
    """Open a CT series; nothing but headers is read.

    Parameters
    ----------
    path
        A NIfTI file, a DICOM file, a folder with DICOM files in any order and of any series, or
        several DICOM files.
    series
        Which series of a mixed folder: its number in `list_series`, or its SeriesInstanceUID. None:
        the axial chest CT with the most voxels.

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
    if not found.groups:
        _explain_others(files)
    order = in_order(choose(found, series))
    notes = list(found.notes)
    if len(found.groups) > 1:
        notes.insert(0, f"one of {len(found.groups)} series in the folder")
    return Series(DicomStack(order), notes)


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
        raise InputError(f"no DICOM images, but {nifti} NIfTI file(s); give one of them itself")
    if any(_is_picture(f) for f in files):
        raise InputError(
            "a picture of 8 bits has no Hounsfield units; give the slice as DICOM or NIfTI (only "
            "ct-angel takes pictures)"
        )


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head: Any = stream.read(8)
    except OSError:
        return False
    return head.startswith((PNG_SIGNATURE, JPEG_SIGNATURE))
