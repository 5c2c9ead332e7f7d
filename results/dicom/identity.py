"""Identifiers and times of objects, all of them from the study's key: the same run, the same bytes.

A PACS that already holds an instance keeps the old one and reports success, so whatever changes the
content of an object must change its UID: the key holds content, options and weights, and
`WRITER_REVISION` the code that writes.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

WRITER_REVISION = 5
"""Raised whenever objects come out differently from the same result."""

_NAMESPACE = uuid.UUID("7d3b6f2e-6a55-4c1b-9a53-2f6b6f0c7a11")

SERIES_NUMBERS = {
    "anatomy": 9000, "lesions": 9001, "report": 9002, "window": 9003, "enhanced": 9004,
    "pictures": 9005, "surfaces": 9006, "parametric": 9007, "probability": 9008, "withdrawal": 9099,
}  # fmt: skip
"""A block of their own, so that Hilum's series stand together."""

_DATES = ("ContentDate", "AcquisitionDate", "SeriesDate", "StudyDate")
_NO_DATE, _NO_TIME = "19700101", "000000"


@dataclass(frozen=True, slots=True)
class Identity:
    """Makes the identifiers of one study's objects.

    Attributes
    ----------
    key
        Of the study folder.
    date, time
        Those of the source: the day on which a result was computed is not part of it.
    patient_name, character_set
        As they stand in the source, see `source.Source`.
    """

    key: str
    date: str
    time: str
    patient_name: DataElement | None = None
    character_set: DataElement | None = None

    @classmethod
    def of(
        cls,
        key: str,
        source: Dataset,
        patient_name: DataElement | None = None,
        character_set: DataElement | None = None,
    ) -> Identity:
        """Of the objects that are made of `source` under a key."""
        for name in _DATES:
            date = str(source.get(name) or "")
            if re.fullmatch(r"\d{8}", date):
                time = str(source.get(name.replace("Date", "Time")) or "")
                whole = re.fullmatch(r"\d{6}(\.\d{1,6})?", time)
                return cls(key, date, time if whole else _NO_TIME, patient_name, character_set)
        return cls(key, _NO_DATE, _NO_TIME, patient_name, character_set)

    def uid(self, *parts: str) -> UID:
        """A UID of the key and some words (DICOM PS3.5 B.2, UUID-derived)."""
        text = "\n".join((self.key, str(WRITER_REVISION), *parts))
        return UID(f"2.25.{uuid.uuid5(_NAMESPACE, text).int}")

    def settle(self, dataset: Dataset, product: str) -> None:
        """Take the moment in which an object was made out of it, and put the patient's name in."""
        if self.patient_name is not None:
            dataset[self.patient_name.tag] = self.patient_name
            dataset.pop("SpecificCharacterSet", None)
            if self.character_set is not None:
                dataset[self.character_set.tag] = self.character_set
        moment = self.date + self.time
        settled = {
            "InstanceCreationDate": self.date,
            "InstanceCreationTime": self.time,
            "ContentDate": self.date,
            "ContentTime": self.time,
            "DateOfSecondaryCapture": self.date,
            "TimeOfSecondaryCapture": self.time,
            "PresentationCreationDate": self.date,
            "PresentationCreationTime": self.time,
            "ContributionDateTime": moment,
            "ObservationDateTime": moment,
            "DimensionOrganizationUID": self.uid(product, "dimensions"),
        }
        for found in _datasets(dataset):
            for element in found:
                if element.keyword in settled:
                    element.value = settled[element.keyword]


def _datasets(dataset: Dataset) -> Any:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _datasets(item)
