"""Where studies come from: which series there are, what rules ask of them, and their files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydicom.dataset import Dataset

from hilum.catalog.errors import Damaged, HilumError, InputError
from hilum.preprocessing.reading.dicom import header
from hilum.results.dicom.equipment import MANUFACTURER

from .rules import SeriesFacts

FACTS = (
    "Modality", "BodyPartExamined", "SeriesDescription", "ProtocolName", "SliceThickness",
    "Manufacturer", "ManufacturerModelName", "ImageType", "ContributingEquipmentSequence",
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "RetrieveAETitle",
)  # fmt: skip
"""Attributes that are looked at."""

BELONGS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Attributes that say what an instance belongs to."""

MIXED = (
    "the series holds instances of another {}; correct them in the PACS, then `hilum gateway retry`"
)
"""Why a series is set aside that holds what does not belong together."""


ODD = "it has an identifier that is none of DICOM's; correct it in the PACS"
"""Why a series is set aside whose UIDs are other text."""

_UID = re.compile("[0-9.]{1,64}")


def is_uid(text: str) -> bool:
    """Whether an identifier is one of DICOM: others would say who it is, or lead elsewhere."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Found:
    """A series that a source has."""

    uid: str
    study: str
    instances: int


def merged(found: Iterable[Found]) -> list[Found]:
    """Each series once: a PACS that has it under two patients lists it twice."""
    counts: dict[tuple[str, str], int] = {}
    for series in found:
        key = series.uid, series.study
        counts[key] = counts.get(key, 0) + series.instances
    return [Found(uid, study, count) for (uid, study), count in counts.items()]


class Source(Protocol):
    """A PACS or a folder.

    Attributes
    ----------
    trouble
        What could not be asked at the last look, while all else was; empty when nothing.
    """

    trouble: str

    def check(self) -> None:
        """Make sure that it can be asked.

        Raises
        ------
        HilumError
            When that fails.
        """
        ...

    def news(self, cursor: str) -> tuple[list[Found], str]:
        """Series that are new or may have changed since `cursor`, and the next cursor."""
        ...

    def study(self, study: str) -> list[Found]:
        """All series of one study."""
        ...

    def instances(self, series: Found) -> list[str]:
        """SOPInstanceUIDs of a series."""
        ...

    def facts(self, series: Found, instance: str) -> SeriesFacts:
        """What rules ask, from one instance of the series."""
        ...

    def fetch(self, series: Found, folder: Path) -> list[str]:
        """Write the instances into a folder, a file each; returns their SOPInstanceUIDs.

        Raises
        ------
        InputError
            For instances of another patient, study or series than the first one's.
        """
        ...


def facts_of(read: Dataset | Mapping[str, Any], instances: int, aet: str = "") -> SeriesFacts:
    """What rules ask about a series, from the header of one of its instances."""

    def text(name: str) -> str:
        return str(read.get(name) or "")

    return SeriesFacts(
        modality=text("Modality"),
        body_part=text("BodyPartExamined"),
        texts=(text("SeriesDescription"), text("ProtocolName")),
        aet=aet or text("RetrieveAETitle"),
        instances=instances,
        slice_thickness=_number(read.get("SliceThickness")),
        ours=_ours(read),
    )


def _ours(read: Dataset | Mapping[str, Any]) -> str:
    """Why a series is a result of Hilum's own."""
    for name in ("Manufacturer", "ManufacturerModelName"):
        if str(read.get(name) or "") == MANUFACTURER:
            return "made by Hilum"
    kind = [str(one) for one in read.get("ImageType") or ()]
    items = read.get("ContributingEquipmentSequence") or ()
    makers = [str(item.get("Manufacturer") or "") for item in items]
    return "derived by Hilum" if "DERIVED" in kind and MANUFACTURER in makers else ""


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


class OneOf:
    """Makes sure that what is fetched belongs to one patient, study and series."""

    def __init__(self, series: Found) -> None:
        self._series = series
        self._patient: str | None = None

    def check(self, read: Dataset) -> str:
        """The SOPInstanceUID of an instance that belongs there."""
        patient = str(read.get("PatientID") or "")
        if self._patient is None:
            self._patient = patient
        for what, there, wanted in (
            ("study", read.get("StudyInstanceUID"), self._series.study),
            ("series", read.get("SeriesInstanceUID"), self._series.uid),
            ("patient", patient, self._patient),
        ):
            if str(there or "") != wanted:
                raise Damaged(MIXED.format(what))
        uid = str(read.get("SOPInstanceUID") or "")
        if not uid:
            raise Damaged("the series holds an instance without SOPInstanceUID")
        return uid


@dataclass(slots=True)
class FolderSource:
    """A folder that is watched: every DICOM file below it, whatever its name.

    A file is read again when its size or time changes. Names of files mean nothing.
    """

    folder: Path
    trouble: str = ""
    _seen: dict[Path, tuple[tuple[int, int], tuple[str, str, str] | None]] = field(
        default_factory=dict
    )

    def check(self) -> None:
        """Make sure that it is there."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")

    def news(self, cursor: str) -> tuple[list[Found], str]:
        """Every series that is there: the ledger knows which of them are new."""
        return list(self._series()), cursor

    def study(self, study: str) -> list[Found]:
        """All series of one study."""
        return [series for series in self._series() if series.study == study]

    def instances(self, series: Found) -> list[str]:
        """SOPInstanceUIDs of a series."""
        return sorted(self._files(series))

    def facts(self, series: Found, instance: str) -> SeriesFacts:
        """What rules ask, from one instance."""
        return facts_of(header(self._files(series)[instance], FACTS), series.instances)

    def fetch(self, series: Found, folder: Path) -> list[str]:
        """Copy the files, so that what is processed cannot change any more."""
        one, uids = OneOf(series), []
        for number, (uid, path) in enumerate(sorted(self._files(series).items()), 1):
            target = folder / f"{number:05d}.dcm"
            shutil.copyfile(path, target)
            if one.check(header(target, BELONGS)) != uid:
                raise Damaged("a file of the series changed while it was copied")
            uids.append(uid)
        return uids

    def _series(self) -> Iterator[Found]:
        self._scan()
        groups: dict[tuple[str, str], set[str]] = {}
        for _, found in self._seen.values():
            if found is not None:
                groups.setdefault(found[:2], set()).add(found[2])
        for (study, uid), instances in groups.items():
            yield Found(uid, study, len(instances))

    def _files(self, series: Found) -> dict[str, Path]:
        self._scan()
        return {
            found[2]: path
            for path, (_, found) in self._seen.items()
            if found is not None and found[:2] == (series.study, series.uid)
        }

    def _scan(self) -> None:
        there: set[Path] = set()
        for place, _, names in os.walk(self.folder):
            for name in names:
                path = Path(place, name)
                try:
                    state = path.stat()
                except OSError:
                    continue
                if not path.is_file() or path.is_symlink():
                    continue
                there.add(path)
                stamp = (state.st_mtime_ns, state.st_size)
                if self._seen.get(path, (None,))[0] != stamp:
                    self._seen[path] = (stamp, _identifiers(path))
        for gone in set(self._seen) - there:
            del self._seen[gone]


def _identifiers(path: Path) -> tuple[str, str, str] | None:
    """UIDs of study, series and instance; None for a file that is no image of DICOM."""
    names = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    try:
        read = header(path, names)
        found = tuple(str(read.get(name) or "") for name in names)
    except (HilumError, OSError):
        return None
    return (found[0], found[1], found[2]) if all(found) else None
