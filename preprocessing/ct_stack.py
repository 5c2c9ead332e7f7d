"""From the headers of a folder to one CT series in order: choose, check, sort, decode."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from ..catalog.ct_angel import GAP_FACTOR
from ..catalog.ct_classifier import AIR_HU
from ..catalog.errors import InputError
from . import dicom
from .ct_headers import UNREADABLE, Frame, Group, Scan
from .ct_numbers import Numbering, by_number
from .limits import check_declared_size, read_bytes
from .volume import Geometry

MAX_SLICES = 3000
"""Slices that a series may have."""

MAX_VOXELS = 2**31
"""Voxels that a series may declare."""

MAX_MULTIFRAME_BYTES = 2**31
"""Largest file of several frames that is read."""

_SAME_PLACE_MM = 0.01
"""Slices closer than this lie at the same place."""

_TILT_DEGREES = 0.05
"""A tilt below this is the rounding of positions in the header."""

_HIGHEST_HU = 3071
"""A padding value above this cannot be told from metal by its size."""

_ELSEWHERE = frozenset(
    {"HEAD", "BRAIN", "SKULL", "SINUS", "FACE", "ORBIT", "KNEE", "HIP", "ANKLE", "FOOT", "WRIST",
     "HAND", "ELBOW", "LEG", "ARM", "EXTREMITY", "PELVIS", "LSPINE"}
)  # fmt: skip
"""Body parts of series that are no chest CT."""


@dataclass(frozen=True, slots=True)
class Order:
    """The slices of a series along their normal.

    Attributes
    ----------
    positions
        Along the normal in mm, ascending.
    left_out
        InstanceNumbers of slices at the place of another one.
    """

    frames: tuple[Frame, ...]
    geometry: Geometry
    positions: tuple[float, ...]
    notes: tuple[str, ...]
    left_out: tuple[int | None, ...] = ()


def choose(scan: Scan, series: str | int | None) -> Group:
    """Choose a series: the named one, or the axial CT with the most voxels.

    Parameters
    ----------
    series
        Its number in the list of series, from 1, or its SeriesInstanceUID.

    Raises
    ------
    InputError
        When there is none, it is no CT, or two have equal claims. The message lists what there is.
    """
    listed = "; ".join(f"{g.ordinal}: {g.description}" for g in scan.groups)
    if not scan.groups:
        raise InputError(
            f"no DICOM images among {scan.files} file(s); give a DICOM series or a NIfTI file"
        )
    if series is not None:
        for group in scan.groups:
            if str(series).strip() in (str(group.ordinal), group.uid):
                if group.modality != "CT" or not group.images:
                    raise InputError(f"series {group.ordinal} is no CT series: {group.description}")
                return group
        raise InputError(f"no series of that name; there are: {listed}")
    candidates = [g for g in scan.groups if g.modality == "CT" and g.images]
    if not candidates:
        raise InputError(f"no CT series; there are: {listed}. Give a CT of the chest")

    def rank(group: Group) -> tuple[bool, bool, int]:
        return group.axial, group.body_part not in _ELSEWHERE, group.voxels

    best = max(rank(g) for g in candidates)
    chosen = [g for g in candidates if rank(g) == best]
    if len(chosen) > 1:
        raise InputError(
            f"{len(chosen)} CT series have equal claims; name one by its number: {listed}"
        )
    return chosen[0]


def in_order(group: Group) -> Order:
    """Check the slices of a series against each other and sort them along their normal.

    Raises
    ------
    InputError
        For slices of different size, spacing or orientation, for missing positions, spacing or
        rescale, and for a series that is too large.
    """
    frames, notes = group.images, []
    if len(frames) < len(group.frames):
        notes.append(f"{len(group.frames) - len(frames)} localiser(s) were left out")
    _check_size(frames)
    row, column = _same_plane(frames)
    normal = np.cross(row, column)
    if len(frames) == 1 and frames[0].position is None:
        notes.append("the slice has no position; it is taken as 0")
        places = np.zeros((1, 3))
    else:
        missing = [f.file for f in frames if f.position is None]
        if missing:
            raise InputError(
                f"{_files(missing)}: no ImagePositionPatient (0020,0032), so the order of the "
                "slices is unknown; export the series again"
            )
        places = np.array([f.position for f in frames])
    along = places @ normal
    numbers = np.array([f.number or 0 for f in frames])
    acquisitions = np.array([f.acquisition for f in frames])
    order = np.lexsort([numbers, acquisitions, np.round(along / _SAME_PLACE_MM)])
    kept = _without_duplicates(frames, along, order)
    left_out = tuple(frames[i].number for i in np.setdiff1d(order, kept))
    if left_out:
        notes.append(f"{len(left_out)} slice(s) at the place of another one were left out")
    frames, along, places = tuple(frames[i] for i in kept), along[kept], places[kept]
    spacing = frames[0].spacing
    if spacing is None:
        raise InputError("no PixelSpacing (0028,0030); export the series again")
    step = _slice_step(frames[0], along, places, normal, notes)
    geometry = Geometry.from_steps(
        (len(frames), frames[0].rows, frames[0].columns),
        places[0],
        np.stack([step, column * spacing[0], row * spacing[1]]),
    )
    _note_angles(geometry, notes)
    return Order(frames, geometry, tuple(along.tolist()), tuple(notes), left_out)


class DicomStack:
    """The slices of a DICOM series in order, decoded when asked for.

    Attributes
    ----------
    geometry
        Of the array [slice, row, column] as stored.
    positions
        Along the slices' normal in mm, ascending.
    numbers
        InstanceNumber of each slice.
    """

    kind = "DICOM"

    def __init__(self, order: Order) -> None:
        self._frames, self._left_out = order.frames, order.left_out
        self.geometry = order.geometry
        self.positions = order.positions
        self.notes = order.notes
        self.numbers = tuple(f.number for f in order.frames)
        self.thickness = order.frames[0].thickness
        self._open: tuple[Path, Dataset] | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> NDArray[np.int16]:
        """Decode a slice; int16 [rows, columns] in HU.

        Raises
        ------
        InputError
            When it cannot be decoded, saying which slice and file.
        """
        return _hounsfield(self.read_raw(index), self._frames[index])

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
        frame, stored = self._frames[index], self.read_raw(index)
        slope, intercept = frame.rescale or (1.0, 0.0)
        hu = (stored * slope + intercept).astype(np.float32)
        if padding_to_air and frame.padding is not None:
            hu[(stored >= frame.padding[0]) & (stored <= frame.padding[1])] = AIR_HU
        return hu

    def numbering(self) -> Numbering:
        """The slices by InstanceNumber alone, see `ct_numbers.by_number`."""
        return by_number(self._frames, self._left_out)

    def read_raw(self, index: int) -> NDArray[np.int32]:
        """Decode a slice as `read` does, without slope and intercept."""
        frame = self._frames[index]
        try:
            return dicom.stored_values(self._dataset(frame))
        except (InputError, *UNREADABLE) as error:
            what = error if isinstance(error, InputError) else "DICOM: damaged; transfer it again"
            raise InputError(
                f"slice {index + 1} of {len(self._frames)} (file {frame.file} in the order of "
                f"names): {what}"
            ) from None

    def _dataset(self, frame: Frame) -> Dataset:
        if frame.frames == 1:
            return dicom.parse(read_bytes(frame.path))
        with self._lock:
            if self._open is None or self._open[0] != frame.path:
                data = read_bytes(frame.path, limit=MAX_MULTIFRAME_BYTES)
                self._open = frame.path, dicom.parse(data)
            whole = self._open[1]
        return _single_frame(whole, frame)


def _check_size(frames: tuple[Frame, ...]) -> None:
    first = frames[0]
    if len(frames) > MAX_SLICES:
        raise InputError(
            f"{len(frames)} slices, more than the limit of {MAX_SLICES}; give a series of the "
            "chest alone"
        )
    check_declared_size("DICOM", first.columns, first.rows)
    sizes = sorted({(f.columns, f.rows) for f in frames})
    if len(sizes) > 1:
        raise InputError(
            f"slices of different sizes in one series ({sizes[0][0]} × {sizes[0][1]}, "
            f"{sizes[1][0]} × {sizes[1][1]}); give a series of one size"
        )
    if len(frames) * first.rows * first.columns > MAX_VOXELS:
        raise InputError(
            f"{len(frames)} slices of {first.columns} × {first.rows}: more than the limit of "
            f"{MAX_VOXELS / 1e9:.1f} · 10⁹ voxels; give a smaller series"
        )
    for what, files in (
        (
            "shorter than the pixels that the header declares; transfer it again",
            [f.file for f in frames if f.short],
        ),
        (
            "no RescaleSlope or RescaleIntercept (0028,1053 and 1052), so there are no Hounsfield "
            "units; export the series again",
            [f.file for f in frames if f.rescale is None or f.rescale[0] == 0],
        ),
        (
            "CT slices stored as MONOCHROME1 or in colour; export the series as MONOCHROME2",
            [f.file for f in frames if f.photometric != "MONOCHROME2"],
        ),
    ):
        if files:
            raise InputError(f"{_files(files)}: {what}")


def _files(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in sorted(set(numbers))[:5])
    return f"file {shown}{' …' if len(set(numbers)) > 5 else ''} in the order of names"


def _same_plane(frames: tuple[Frame, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Directions along rows and columns, the same in all slices, as unit vectors."""
    missing = [f.file for f in frames if f.orientation is None]
    if missing:
        raise InputError(
            f"{_files(missing)}: no ImageOrientationPatient (0020,0037), so left and right are "
            "unknown; export the series again"
        )
    planes = np.array([f.orientation for f in frames])
    if np.abs(planes - planes[0]).max() > 1e-3:
        raise InputError("slices of different orientation in one series; give one orientation")
    spacings = {f.spacing for f in frames}
    if None not in spacings:
        values = np.array(list(spacings))
        if np.ptp(values, axis=0).max() > 1e-3 * values.max():
            raise InputError("slices of different pixel spacing in one series; give one spacing")
    row, column = planes[0]
    lengths = np.linalg.norm(planes[0], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise InputError(
            "ImageOrientationPatient (0020,0037) does not hold two perpendicular unit vectors; "
            "export the series again"
        )
    return row / lengths[0], column / lengths[1]


def _without_duplicates(
    frames: tuple[Frame, ...], along: NDArray[Any], order: NDArray[Any]
) -> NDArray[Any]:
    """Keep the first slice of each place; returns the kept ones, sorted."""
    kept: list[int] = []
    seen: set[str] = set()
    for i in order.tolist():
        near = kept and abs(along[i] - along[kept[-1]]) < _SAME_PLACE_MM
        if frames[i].identity in seen or near:
            continue
        seen.add(frames[i].identity)
        kept.append(i)
    return np.array(kept)


def _slice_step(
    first: Frame,
    along: NDArray[Any],
    places: NDArray[Any],
    normal: NDArray[Any],
    notes: list[str],
) -> NDArray[Any]:
    """Vector from a slice to the next one: of median length, along the line through all."""
    if len(along) == 1:
        if not first.thickness:
            notes.append("one slice without a thickness; it is taken as 1 mm")
        return normal * (first.thickness or 1.0)
    steps = np.diff(along)
    median = float(np.median(steps))
    gaps = int((steps > GAP_FACTOR * median).sum())
    if gaps:
        notes.append(
            f"{gaps} gap(s): slices are {median:.2f} mm apart, in places up to {steps.max():.2f} mm"
        )
    elif np.abs(steps / median - 1).max() > 0.01:
        notes.append(
            f"uneven slices: {steps.min():.2f} to {steps.max():.2f} mm apart; taken as "
            f"{median:.2f} mm"
        )
    line = (places[-1] - places[0]) / (along[-1] - along[0])
    off = places - places[0] - (along - along[0])[:, None] * line
    if np.linalg.norm(off, axis=1).max() > 1:
        notes.append("slices are shifted against each other by more than 1 mm")
    tilt = np.degrees(np.arccos(np.clip(1 / np.linalg.norm(line), -1, 1)))
    return median * (normal if tilt < _TILT_DEGREES else line)


def _note_angles(geometry: Geometry, notes: list[str]) -> None:
    if geometry.tilt > _TILT_DEGREES:
        notes.append(f"the gantry was tilted by {geometry.tilt:.1f}°: the volume is sheared")
    turn = float(np.degrees(np.arccos(min(1.0, np.abs(geometry.normal).max()))))
    if turn > 5:
        notes.append(f"the slices are turned by {turn:.0f}° against the patient's axes")


def _hounsfield(stored: NDArray[np.int32], frame: Frame) -> NDArray[np.int16]:
    """Rescale to HU; padding that would show as metal becomes air."""
    slope, intercept = frame.rescale or (1.0, 0.0)
    if slope == 1 and intercept.is_integer():
        hu = stored + np.int32(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    hu = np.clip(hu, -(2**15), 2**15 - 1).astype(np.int16)
    if frame.padding is not None:
        low, high = frame.padding
        if min(low * slope, high * slope) + intercept > _HIGHEST_HU:
            hu[(stored >= low) & (stored <= high)] = AIR_HU
    return hu


def _single_frame(whole: Dataset, frame: Frame) -> Dataset:
    """Make a single-frame image of one frame of a multi-frame one."""
    one = Dataset()
    one.file_meta = whole.file_meta
    for element in whole:
        if element.keyword not in (
            "PixelData", "NumberOfFrames", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
        ):  # fmt: skip
            one.add(element)
    try:
        if whole.file_meta.TransferSyntaxUID.is_encapsulated:
            part = encapsulate(
                [get_frame(whole.PixelData, frame.index, number_of_frames=frame.frames)]
            )
        else:
            length = frame.rows * frame.columns * int(whole.BitsAllocated) // 8
            part = whole.PixelData[frame.index * length : (frame.index + 1) * length]
    except UNREADABLE:
        raise InputError("DICOM: damaged pixel data; transfer or export the file again") from None
    one.PixelData = part
    one["PixelData"].VR = whole["PixelData"].VR
    one["PixelData"].is_undefined_length = whole["PixelData"].is_undefined_length
    return one
