"""What DICOM files of CT say about themselves, read without their pixels, and sorted into series.

Identifiers serve to compare files and are never shown: messages count files in the order of their
names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ..catalog.errors import InputError
from . import dicom
from .limits import read_bytes
from .volume import Triple

MAX_FILES = 20_000
"""Files that a folder may hold."""

UNREADABLE = (*dicom._UNREADABLE, BytesLengthException)
"""What pydicom raises on damaged files."""

_CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
    }
)

_ATTRIBUTES = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
    "AcquisitionNumber", "InstanceNumber", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation", "PixelSpacing",
    "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit", "BodyPartExamined",
    "ConvolutionKernel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
    "PixelValueTransformationSequence", "CTImageFrameTypeSequence", "FrameType",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice as its header describes it.

    Attributes
    ----------
    path, index
        Its file, and which frame of it.
    file
        Number of its file in the order of names, from 1.
    identity
        Tells it from other slices; an identifier, not to be shown.
    orientation
        LPS directions in which the column and the row index grow (ImageOrientationPatient).
    spacing
        Distance of rows and of columns in mm.
    rescale
        Slope and intercept.
    padding
        Range of stored values that stand for no measurement.
    short
        The file is shorter than its pixels.
    """

    path: Path
    index: int
    file: int
    identity: str
    rows: int
    columns: int
    frames: int
    position: Triple | None
    orientation: tuple[Triple, Triple] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    rescale: tuple[float, float] | None
    padding: tuple[int, int] | None
    number: int | None
    acquisition: int
    photometric: str
    localiser: bool
    short: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The slices of one series.

    Attributes
    ----------
    ordinal
        Its number among the series of the folder, from 1.
    uid
        An identifier, not to be shown.
    """

    ordinal: int
    uid: str
    modality: str
    series_number: int
    body_part: str
    kernel: str
    frames: tuple[Frame, ...]

    @property
    def images(self) -> tuple[Frame, ...]:
        """Its slices without localisers."""
        return tuple(f for f in self.frames if not f.localiser)

    @property
    def voxels(self) -> int:
        """How many voxels its slices have."""
        return sum(f.rows * f.columns for f in self.images)

    @property
    def axial(self) -> bool:
        """The slices lie across the body, up to 45°."""
        orientation = self.images[0].orientation if self.images else None
        if orientation is None:
            return False
        return abs(float(np.cross(orientation[0], orientation[1])[2])) > np.sqrt(0.5)

    @property
    def description(self) -> str:
        """Modality, size and spacing; no identifiers."""
        images = self.images
        if not images:
            return f"{self.modality}, {len(self.frames)} localiser(s)"
        first = images[0]
        text = f"{self.modality}, {len(images)} slices of {first.columns} × {first.rows}"
        if first.thickness:
            text += f", {first.thickness:g} mm thick"
        return f"{text}, kernel {self.kernel}" if self.kernel else text


@dataclass(frozen=True, slots=True)
class Scan:
    """All series of a folder, and how many files were left out and why."""

    groups: tuple[Group, ...]
    files: int
    strangers: int
    damaged: tuple[int, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for people to read."""
        notes = []
        if self.strangers:
            notes.append(f"{self.strangers} file(s) that are no DICOM images were left out")
        if self.damaged:
            which = ", ".join(str(i) for i in self.damaged[:8])
            notes.append(
                f"{len(self.damaged)} damaged DICOM file(s) were left out: in the order of names "
                f"no. {which}{' …' if len(self.damaged) > 8 else ''}"
            )
        return tuple(notes)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """List the files that `paths` (files and folders) hold, sorted, links not followed.

    Raises
    ------
    InputError
        For a path that does not exist, or more than `MAX_FILES` files.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                files += [Path(folder, n) for n in sorted(names) if not n.startswith(".")]
                if len(files) > MAX_FILES:
                    break
        else:
            raise InputError("no such file or folder; check the path")
        if len(files) > MAX_FILES:
            raise InputError(
                f"more than {MAX_FILES} files; give the folder of one study or one series"
            )
    return files


def scan(files: Sequence[Path]) -> Scan:
    """Read the headers of `files` and sort the slices into series."""
    series: dict[str, list[Group]] = {}
    strangers, damaged = 0, []
    for number, path in enumerate(files, start=1):
        try:
            header = _read_header(path)
            frames = [] if header is None else _frames(header, path, number)
            group = _group(header, frames) if header is not None and frames else None
        except (InputError, *UNREADABLE):
            # Values are only decoded when they are used, so each may turn out to be damaged.
            damaged.append(number)
            continue
        if group is None:
            strangers += 1
        else:
            series.setdefault(f"{group.uid}|{group.modality}", []).append(group)
    groups = [
        replace(parts[0], frames=tuple(f for part in parts for f in part.frames))
        for parts in series.values()
    ]
    groups.sort(key=lambda g: (g.series_number, g.uid, g.modality))
    numbered = tuple(replace(group, ordinal=i) for i, group in enumerate(groups, start=1))
    return Scan(numbered, len(files), strangers, tuple(damaged))


def _read_header(path: Path) -> Dataset | None:
    """Header of a DICOM file; None for anything else, a DICOMDIR among it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(2048)
    except OSError:
        raise InputError("the file cannot be read; check its rights") from None
    if not dicom.is_dicom(head):
        return None
    if DeflatedExplicitVRLittleEndian.encode() in head:
        return dicom.parse(read_bytes(path), _ATTRIBUTES)
    return pydicom.dcmread(
        path, force=True, stop_before_pixels=True, specific_tags=list(_ATTRIBUTES)
    )


def _modality(header: Dataset) -> str:
    """CT for images of a CT class; else what the header says."""
    sop_class = str(header.get("SOPClassUID", ""))
    modality = _word(header.get("Modality"))
    if sop_class in _CT_CLASSES or (not sop_class and modality == "CT"):
        return "CT"
    return f"{modality} (secondary)" if modality == "CT" else modality or "unknown modality"


def _word(value: Any) -> str:
    """Short harmless text: what is longer or holds other characters may name somebody."""
    text = str(value or "")
    harmless = all(c.isalnum() or c in " -_./" for c in text)
    return text.strip() if harmless and len(text) <= 16 else ""


def _group(header: Dataset, frames: Iterable[Frame]) -> Group:
    kernel = header.get("ConvolutionKernel")
    if isinstance(kernel, MultiValue):
        kernel = kernel[0] if len(kernel) else None
    return Group(
        ordinal=0,
        uid=str(header.get("SeriesInstanceUID", "")),
        modality=_modality(header),
        series_number=_integer(header, "SeriesNumber") or 0,
        body_part=_word(header.get("BodyPartExamined")).upper(),
        kernel=_word(kernel),
        frames=tuple(frames),
    )


def _frames(header: Dataset, path: Path, file: int) -> list[Frame]:
    """Every slice of a file; none when it holds no image."""
    rows, columns = _integer(header, "Rows"), _integer(header, "Columns")
    if not rows or not columns:
        return []
    count = _integer(header, "NumberOfFrames") or 1
    shared = _first(header, "SharedFunctionalGroupsSequence")
    each = header.get("PerFrameFunctionalGroupsSequence")
    described = 1 if each is None else len(each)
    if described != count:
        raise InputError(f"{count} frames declared, {described} described")
    syntax = header.file_meta.get("TransferSyntaxUID")
    native = syntax is None or not (syntax.is_encapsulated or syntax.is_deflated)
    declared = rows * columns * count * (_integer(header, "BitsAllocated") or 16) // 8
    short = native and path.stat().st_size < declared
    return [
        _frame(header, shared, None if each is None else each[i], path, file, i, count, short)
        for i in range(count)
    ]


def _frame(
    header: Dataset,
    shared: Dataset | None,
    own: Dataset | None,
    path: Path,
    file: int,
    index: int,
    count: int,
    short: bool,
) -> Frame:
    def find(group: str, keyword: str) -> Any:
        """Look in the frame's own functional group, the shared one, then the header itself."""
        for level in (own, shared):
            item = None if level is None else _first(level, group)
            if item is not None and item.get(keyword) is not None:
                return item.get(keyword)
        return header.get(keyword)

    orientation = _numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    position = _numbers(find("PlanePositionSequence", "ImagePositionPatient"), 3)
    spacing = _numbers(find("PixelMeasuresSequence", "PixelSpacing"), 2)
    thickness = _numbers(find("PixelMeasuresSequence", "SliceThickness"), 1)
    slope = _numbers(find("PixelValueTransformationSequence", "RescaleSlope"), 1)
    intercept = _numbers(find("PixelValueTransformationSequence", "RescaleIntercept"), 1)
    kinds = find("CTImageFrameTypeSequence", "FrameType") or header.get("ImageType") or ()
    low = header.get("PixelPaddingValue")
    high = header.get("PixelPaddingRangeLimit", low)
    padded = isinstance(low, int) and isinstance(high, int)
    return Frame(
        path, index, file, f"{header.get('SOPInstanceUID') or path}#{index}",
        int(header.Rows), int(header.Columns), count,
        position=None if position is None else (position[0], position[1], position[2]),
        orientation=None if orientation is None else (
            (orientation[0], orientation[1], orientation[2]),
            (orientation[3], orientation[4], orientation[5]),
        ),
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        thickness=None if thickness is None else thickness[0],
        rescale=None if slope is None or intercept is None else (slope[0], intercept[0]),
        padding=(min(low, high), max(low, high)) if padded else None,
        number=_integer(header, "InstanceNumber"),
        acquisition=_integer(header, "AcquisitionNumber") or 0,
        photometric=str(header.get("PhotometricInterpretation", "")),
        localiser=any("LOCALI" in str(kind).upper() for kind in kinds),
        short=short,
    )  # fmt: skip


def _first(dataset: Dataset, keyword: str) -> Dataset | None:
    items = dataset.get(keyword)
    return items[0] if items else None


def _integer(header: Dataset, keyword: str) -> int | None:
    try:
        return int(header.get(keyword))
    except (TypeError, ValueError):
        return None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    try:
        numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, np.float64)))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
