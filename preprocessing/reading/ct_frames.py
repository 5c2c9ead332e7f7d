"""The slices of a DICOM file as its header describes them, one by one.

Values are decoded by pydicom when they are asked for, and whatever it raises on damaged ones ends
here. Text of a header serves to compare slices and is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from hilum.catalog.errors import BadFormat

from .parsing import parsing
from .volume import Triple

ATTRIBUTES = (
    "AcquisitionNumber", "InstanceNumber", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated", "PhotometricInterpretation", "PixelSpacing", "SliceThickness",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelRepresentation", "ConvolutionKernel",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "KVP",
    "NominalPercentageOfCardiacPhase", "TriggerTime", "NominalCardiacTriggerDelayTime",
    "FrameAcquisitionNumber", "StackID", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "PlanePositionSequence", "PlaneOrientationSequence",
    "PixelMeasuresSequence", "PixelValueTransformationSequence", "CTImageFrameTypeSequence",
    "FrameType", "FrameContentSequence", "CardiacSynchronizationSequence",
    "CTReconstructionSequence", "RescaleType", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionDateTime", "FrameAcquisitionDateTime", "ContrastBolusAgent", "FilterType",
)  # fmt: skip
"""Attributes of a header that describe its slices."""

_ASIDE = ("LOCALI", "SCOUT", "TOPOGRAM", "MONITOR", "BOLUS", "SMARTPREP", "SURVIEW")
"""Words of ImageType in slices that are part of no volume: overviews, and watches of a bolus."""

_UNITS = ("HU", "HU_MOD", "US", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")
"""Values of RescaleType (0028,1054): Hounsfield units, also modified ones, unspecified, others."""

DAMAGED = "the header is damaged or truncated; transfer or export the file again"
"""What is said of a header that pydicom cannot read."""


class Pass(NamedTuple):
    """What separates slices of several acquisitions, phases or reconstructions of one series.

    None of it is shown as it is, but for numbers.
    """

    acquisition: float | None
    temporal: float | None
    phase: float | None
    echo: float | None
    energy: float | None
    kernel: str
    trigger: float | None
    stack: str
    kind: tuple[str, ...]
    agent: str
    thickness: float | None
    filter: str
    time: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice as its header describes it.

    Attributes
    ----------
    path, index
        Its file, and which frame of it.
    file
        Number of its file in the order of names, from 1.
    orientation
        LPS directions in which the column and the row index grow (ImageOrientationPatient).
    spacing
        Distance of rows and of columns in mm.
    rescale
        Slope and intercept.
    unit
        What they lead to, one of `_UNITS`; empty where the header does not say.
    padding
        Range of words that stand for no measurement.
    taken
        Which acquisition it belongs to.
    aside
        A localiser or monitor slice, part of no volume.
    short
        The file is shorter than its pixels.
    """

    path: Path
    index: int
    file: int
    rows: int
    columns: int
    frames: int
    position: Triple | None
    orientation: tuple[Triple, Triple] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    rescale: tuple[float, float] | None
    unit: str
    padding: tuple[int, int] | None
    number: int | None
    taken: Pass
    photometric: str
    aside: bool
    short: bool


def frames_of(header: Dataset, path: Path, file: int) -> list[Frame]:
    """Every slice of a file; none when it holds no image.

    Parameters
    ----------
    file
        Its number in the order of names, from 1.

    Raises
    ------
    InputError
        For a damaged header, a transfer syntax that does not exist, and frames without positions.
    """
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    if not rows or not columns:
        return []
    count = integer(header, "NumberOfFrames") or 1
    each = get(header, "PerFrameFunctionalGroupsSequence")
    each = each if isinstance(each, Items) else None
    described = 1 if each is None else len(each)
    if described != count:
        what = "without their positions" if each is None else f"but {described} positions"
        raise BadFormat(f"{count} frames {what}; export the series as single slices")
    native = _is_native(header)
    declared = rows * columns * count * (integer(header, "BitsAllocated") or 16) // 8
    short = native and path.stat().st_size < declared
    shared = first_of(header, "SharedFunctionalGroupsSequence")
    make = _FrameMaker(header, shared, path, file, (rows, columns, count), short)
    return [make.frame(i, None if each is None else each[i]) for i in range(count)]


def _is_native(header: Dataset) -> bool:
    """Whether pixels are stored as they are.

    Raises
    ------
    InputError
        For a transfer syntax that does not exist.
    """
    with of_pydicom():
        syntax = UID(str(header.file_meta.get("TransferSyntaxUID") or ""))
        known = not syntax or syntax.is_transfer_syntax
    if not known:
        plain = syntax.startswith("1.2.840.10008.1.2.") and syntax.replace(".", "").isdecimal()
        shown = f" {syntax}" if plain and len(syntax) < 32 else ""
        raise BadFormat(
            f"transfer syntax{shown} is not one of the standard's; export as Explicit VR Little "
            "Endian"
        )
    return not syntax or not (syntax.is_encapsulated or syntax.is_deflated)


@dataclass(frozen=True, slots=True)
class _FrameMaker:
    """Makes the slices of one file."""

    header: Dataset
    shared: Dataset | None
    path: Path
    file: int
    size: tuple[int, int, int]
    short: bool

    def frame(self, index: int, own: Dataset | None) -> Frame:
        def find(group: str, keyword: str) -> Any:
            """Look in the frame's own functional group, the shared one, the header itself."""
            for level in (own, self.shared):
                item = None if level is None else first_of(level, group)
                if item is not None and (value := get(item, keyword)) is not None:
                    return value
            return get(self.header, keyword)

        header = self.header
        orientation = numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
        position = numbers(find("PlanePositionSequence", "ImagePositionPatient"), 3)
        spacing = numbers(find("PixelMeasuresSequence", "PixelSpacing"), 2)
        slope, intercept = (
            number(find("PixelValueTransformationSequence", f"Rescale{what}"))
            for what in ("Slope", "Intercept")
        )
        unit = str(find("PixelValueTransformationSequence", "RescaleType") or "").strip().upper()
        thickness = number(find("PixelMeasuresSequence", "SliceThickness"))
        kinds = find("CTImageFrameTypeSequence", "FrameType") or get(header, "ImageType")
        kinds = kinds if isinstance(kinds, (MultiValue, list, tuple)) else (kinds or "",)
        kinds = tuple(str(kind).upper() for kind in kinds)
        rows, columns, count = self.size
        return Frame(
            self.path, index, self.file, rows, columns, count,
            position=None if position is None else (position[0], position[1], position[2]),
            orientation=None if orientation is None else (
                (orientation[0], orientation[1], orientation[2]),
                (orientation[3], orientation[4], orientation[5]),
            ),
            spacing=None if spacing is None else (spacing[0], spacing[1]),
            thickness=thickness,
            rescale=None if slope is None or intercept is None else (slope, intercept),
            unit=unit if unit in _UNITS else "",
            padding=_padding(header),
            number=integer(header, "InstanceNumber"),
            taken=self._pass(find, kinds, thickness),
            photometric=text(header, "PhotometricInterpretation"),
            aside=any(word in kind for kind in kinds for word in _ASIDE),
            short=self.short,
        )  # fmt: skip

    def _pass(self, find: Any, kinds: tuple[str, ...], thickness: float | None) -> Pass:
        def one(group: str, *keywords: str) -> float | None:
            values = (number(find(group, keyword)) for keyword in keywords)
            return next((v for v in values if v is not None), None)

        content, heart = "FrameContentSequence", "CardiacSynchronizationSequence"
        return Pass(
            acquisition=one(content, "FrameAcquisitionNumber", "AcquisitionNumber"),
            temporal=one(content, "TemporalPositionIndex", "TemporalPositionIdentifier"),
            phase=one(heart, "NominalPercentageOfCardiacPhase"),
            echo=one("", "EchoNumbers"),
            energy=one("", "KVP"),
            kernel=str(find("CTReconstructionSequence", "ConvolutionKernel") or ""),
            trigger=one(heart, "NominalCardiacTriggerDelayTime", "TriggerTime"),
            stack=str(find(content, "StackID") or ""),
            kind=kinds[2:],
            agent=text(self.header, "ContrastBolusAgent"),
            thickness=None if thickness is None else round(thickness, 2),
            filter=text(self.header, "FilterType"),
            time=_moment(
                text_of(find(content, "FrameAcquisitionDateTime"))
                or text(self.header, "AcquisitionDateTime")
                or text(self.header, "AcquisitionDate") + text(self.header, "AcquisitionTime")
            ),
        )


def _moment(stamp: str) -> float | None:
    """A date and time, or either, as a number that grows with it; None where it is none."""
    whole = re.fullmatch(r"(\d{4,14})(\.\d{1,6})?([+-]\d{4})?", stamp.strip().replace(":", ""))
    return None if whole is None else float(whole[1] + (whole[2] or ""))


def _padding(header: Dataset) -> tuple[int, int] | None:
    low = get(header, "PixelPaddingValue")
    high = get(header, "PixelPaddingRangeLimit")
    high = low if high is None else high
    if not (isinstance(low, int) and isinstance(high, int)):
        return None
    return min(low, high), max(low, high)


def first_of(dataset: Dataset, keyword: str) -> Dataset | None:
    """First item of a sequence; None where there is none."""
    if not keyword:
        return None
    items = get(dataset, keyword)
    return items[0] if isinstance(items, Items) and len(items) else None


def text(header: Dataset, keyword: str) -> str:
    """First value of an attribute as text, not to be shown; empty where there is none."""
    return text_of(get(header, keyword))


def text_of(value: Any) -> str:
    """First one of the values of an attribute as text, as `text` does."""
    with of_pydicom():
        if isinstance(value, MultiValue):
            value = value[0] if len(value) else None
        return str(value or "")


def integer(header: Dataset, keyword: str) -> int | None:
    """Value of an attribute as a whole number; None where it is none."""
    try:
        return int(get(header, keyword))
    except (TypeError, ValueError, OverflowError):
        return None


def number(value: Any) -> float | None:
    """One finite number, or None."""
    found = numbers(value, 1)
    return None if found is None else found[0]


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    if value is None:
        return None
    try:
        found = tuple(float(v) for v in np.atleast_1d(np.asarray(value, np.float64)))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


@contextmanager
def of_pydicom() -> Iterator[None]:
    """Turn what pydicom raises on damaged files into one error; nothing else runs within.

    It raises whatever its parts raise; lack of memory is not the file's fault.
    """
    with parsing(DAMAGED):
        yield


def get(dataset: Dataset, keyword: str) -> Any:
    """Value of an attribute, None where there is none; it is only decoded now."""
    with of_pydicom():
        value = dataset.get(keyword)
    # Items of a sequence are decoded later; where none belongs, they are of no use.
    return None if isinstance(value, Items) and not keyword.endswith("Sequence") else value
