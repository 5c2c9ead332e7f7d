"""What DICOM files of CT say about themselves, read without their pixels, and sorted into series.

Identifiers and free text serve to compare files and are never shown: messages count files in the
order of their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from hilum.catalog.errors import BadSize, Damaged, InputError, Unreadable

from . import ct_words, dicom
from .ct_frames import ATTRIBUTES, DAMAGED, Frame, frames_of, get, integer, of_pydicom, text
from .folders import walk
from .limits import MAX_FILES
from .notes import Note

_CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
    }
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_HOUNSFIELD = ("", "HU", "HU_MOD", "US")
"""Units that are Hounsfield's, or may be."""

_MADE_OF_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("11.", "30", "66.", "88.", "104."))
"""Classes of presentation states, parametric maps, segmentations, reports and documents."""

_OURS = "Hilum"
"""Manufacturer of DICOM results of ours, which a PACS gives back with their study."""

_ENHANCED = "DLPE_ENHANCED"
"""Part of ImageType in Hilum's own derived series, which goes to the study of its source."""

_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID")
"""What the slices of one series share: programs that take names out give one UID to several."""

_ATTRIBUTES = (
    *ATTRIBUTES, *_SERIES, "SOPClassUID", "Modality", "SeriesNumber", "BodyPartExamined",
    "ProtocolName", "SeriesDescription", "StudyDescription", "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """The slices of one series.

    Attributes
    ----------
    ordinal
        Its number among the series of the folder, from 1.
    uid, study, patient
        Identifiers, not to be shown.
    series_number
        SeriesNumber, where it is a usual one.
    chest
        Whether it shows the chest: 1 yes, −1 no, 0 not known.
    kernel
        "sharp", "soft", or nothing.
    described
        What `ct_words.described` finds in its description.
    """

    ordinal: int
    uid: str
    study: str
    patient: str
    modality: str
    series_number: int | None
    chest: int
    kernel: ct_words.Kernel
    contrast: bool
    described: tuple[str, ...]
    frames: tuple[Frame, ...]

    @property
    def images(self) -> tuple[Frame, ...]:
        """Its slices without localisers and monitor slices."""
        return tuple(f for f in self.frames if not f.aside)

    @property
    def voxels(self) -> int:
        """How many voxels its slices have."""
        return sum(f.rows * f.columns for f in self.images)

    @property
    def places(self) -> int:
        """At how many places its slices lie."""
        return len({f.position for f in self.images})

    @property
    def axial(self) -> bool:
        """The slices lie across the body, up to 45°."""
        orientation = self.images[0].orientation if self.images else None
        if orientation is None:
            return False
        return abs(float(np.cross(orientation[0], orientation[1])[2])) > np.sqrt(0.5)

    @property
    def in_hounsfield(self) -> bool:
        """Nothing says that the values are others, as in maps of iodine or of atomic numbers."""
        return all(f.unit in _HOUNSFIELD and _ENHANCED not in f.taken.kind for f in self.images)

    @property
    def unit_known(self) -> bool:
        """The header does not call the unit of its values unspecified."""
        return all(f.unit != "US" for f in self.images)

    @property
    def description(self) -> str:
        """What distinguishes it from other series; no identifiers and no text of its headers."""
        images = self.images
        parts = [f"{self.modality}, {len(self.frames)} localiser(s)"]
        if images:
            first = images[0]
            parts = [f"{self.modality}, {len(images)} slices of {first.columns} × {first.rows}"]
            if (step := self._step) is not None:
                parts.append(f"{step:.3g} mm apart")
            if first.thickness:
                parts.append(f"{first.thickness:.3g} mm thick")
        parts += [{1: "chest", -1: "not the chest"}[self.chest]] if self.chest else []
        parts += [] if self.in_hounsfield else ["no Hounsfield units"]
        parts += [f"{self.kernel} kernel"] if self.kernel else []
        parts += ["with contrast agent"] if self.contrast else []
        parts += self.described
        if self.series_number is not None:
            parts.append(f"SeriesNumber {self.series_number}")
        return ", ".join(parts)

    @property
    def _step(self) -> float | None:
        """Mean distance of its places in mm."""
        places = np.array(sorted({f.position for f in self.images if f.position is not None}))
        if len(places) < 2:
            return None
        length = float(np.linalg.norm(np.ptp(places, axis=0)))
        return length / (len(places) - 1)


@dataclass(frozen=True, slots=True)
class Scan:
    """All series of a folder, and how many files were left out and why.

    Attributes
    ----------
    unusable
        Number of each DICOM file that cannot be used, in the order of names, and why.
    """

    groups: tuple[Group, ...]
    files: int
    strangers: int
    unusable: tuple[tuple[int, str], ...]

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was left out."""
        notes = []
        if self.strangers:
            notes.append(Note(f"{self.strangers} file(s) that are no DICOM images were left out"))
        return (*notes, *(Note(f"{reason}; left out") for reason in self.reasons))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why DICOM files cannot be used, the most frequent reason first."""
        texts = []
        for why, count in Counter(why for _, why in self.unusable).most_common(3):
            which = [n for n, other in self.unusable if other == why]
            shown = ", ".join(map(str, which[:8])) + (" …" if len(which) > 8 else "")
            texts.append(f"{count} DICOM file(s) cannot be used (no. {shown} by name): {why}")
        return tuple(texts)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """List the files that `paths` (files and folders) hold, in the order of their names.

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
            for _, found in walk(path):
                files += found
                if len(files) > MAX_FILES:
                    break
        else:
            raise Unreadable("no such file or folder; check the path")
        if len(files) > MAX_FILES:
            raise BadSize(
                f"more than {MAX_FILES} files; give the folder of one study or one series"
            )
    return files


def scan(files: Sequence[Path]) -> Scan:
    """Read the headers of `files` and sort the slices into series."""
    series: dict[tuple[object, ...], list[Group]] = {}
    strangers, unusable = 0, []
    for number, path in enumerate(files, start=1):
        try:
            group = _read_group(path, number)
        except InputError as error:
            unusable.append((number, str(error).removeprefix("DICOM: ")))
            continue
        if group is None:
            strangers += 1
        else:
            series.setdefault(_identity(group), []).append(group)
    groups = [
        replace(parts[0], frames=tuple(f for part in parts for f in part.frames))
        for parts in series.values()
    ]
    groups.sort(key=lambda g: (g.series_number or 0, g.uid, g.modality, g.patient, g.study))
    numbered = tuple(replace(group, ordinal=i) for i, group in enumerate(groups, start=1))
    return Scan(numbered, len(files), strangers, tuple(unusable))


def _identity(group: Group) -> tuple[object, ...]:
    """What the slices of one series share; see `_SERIES`."""
    return group.uid or group.series_number, group.modality, group.patient, group.study


def holds_image(path: Path) -> bool | None:
    """Tell whether a file is a DICOM image: True, False, or None for what was made of images.

    That is pictures of reports, segmentations, presentation states, and all results of ours.
    A damaged one counts as an image, so that someone hears of it.
    """
    try:
        header = _read_header(path, ("SOPClassUID", "Rows", "Manufacturer"))
        if header is None:
            return path.suffix.lower() in (".dcm", ".ima")
        described, kinds = get(header, "Rows") is not None, _classes(header)
    except InputError:
        return True
    if _is_made(header) or any(kind.startswith(_SECONDARY_CAPTURE) for kind in kinds):
        return None
    return described or not kinds or not kinds.isdisjoint(_CT_CLASSES)


def made_of_images(path: Path) -> bool:
    """Whether a DICOM file is no image but was made of some, or by us; a damaged one is not."""
    try:
        header = _read_header(path, ("SOPClassUID", "Manufacturer"))
        return header is not None and _is_made(header)
    except InputError:
        return False


def _is_made(header: Dataset) -> bool:
    ours = text(header, "Manufacturer") == _OURS
    return ours or any(kind.startswith(_MADE_OF_IMAGES) for kind in _classes(header))


def series_of(path: Path) -> tuple[str, ...] | None:
    """What tells the series of a DICOM file from others, not to be shown; None for other files."""
    try:
        header = _read_header(path, (*_SERIES, "SeriesNumber"))
        if header is None:
            return None
        uid, *others = (text(header, keyword) for keyword in _SERIES)
        return uid or text(header, "SeriesNumber"), *others
    except InputError:
        return None


def _read_header(path: Path, attributes: Sequence[str]) -> Dataset | None:
    """Header of a DICOM file; None for anything else, a DICOMDIR among it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(2048)
            if not dicom.is_dicom(head):
                return None
            if DeflatedExplicitVRLittleEndian.encode() not in head:
                stream.seek(0)
                with of_pydicom():
                    header = pydicom.dcmread(
                        stream, force=True, stop_before_pixels=True, specific_tags=list(attributes)
                    )
                    indexed = header.file_meta.get("MediaStorageSOPClassUID")
                return None if indexed == MediaStorageDirectoryStorage else header
    except OSError:
        raise Unreadable("the file cannot be read; check its rights") from None
    return dicom.header(path, attributes)


def _read_group(path: Path, number: int) -> Group | None:
    """The slices of one file; None for what is no DICOM image."""
    header = _read_header(path, _ATTRIBUTES)
    if header is None:
        return None
    frames = frames_of(header, path, number)
    if frames:
        return _group(header, frames)
    if not _classes(header).isdisjoint(_CT_CLASSES):
        raise Damaged(DAMAGED)
    return None


def _classes(header: Dataset) -> set[str]:
    """What kind of object a file is, by its header and by the file meta information before it."""
    with of_pydicom():
        own, meta = header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")
        return {str(kind) for kind in (own, meta) if kind}


def _modality(header: Dataset) -> str:
    """CT for images of a CT class; else what the header says."""
    sop_class = text(header, "SOPClassUID")
    modality = ct_words.modality(text(header, "Modality"))
    if sop_class in _CT_CLASSES or (not sop_class and modality == "CT"):
        return "CT"
    return f"{modality} (secondary)" if modality == "CT" else modality or "unknown modality"


def _group(header: Dataset, frames: Iterable[Frame]) -> Group:
    number = integer(header, "SeriesNumber")
    texts = ("BodyPartExamined", "ProtocolName", "SeriesDescription", "StudyDescription")
    return Group(
        ordinal=0,
        uid=text(header, "SeriesInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        patient=text(header, "PatientID"),
        modality=_modality(header),
        series_number=number if number is not None and 0 <= number < 100_000 else None,
        chest=ct_words.claim(*(text(header, keyword) for keyword in texts)),
        kernel=ct_words.kernel(text(header, "ConvolutionKernel")),
        contrast=ct_words.contrast(text(header, "ContrastBolusAgent"))
        or bool(get(header, "ContrastBolusAgentSequence")),
        described=ct_words.described(text(header, "SeriesDescription")),
        frames=tuple(frames),
    )
