"""The files of a study as the objects that results refer to: headers only, pixels are not read."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

from hilum.catalog.errors import BadFormat, Damaged

_NEEDED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
)
_PLACED = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
"""What a slice of a CT series needs besides; a file of several frames has it frame by frame."""

_SAME = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName")

_PERSONAL = (0x0010, 0x0012, 0x0032, 0x0038, 0x0040)
"""Groups of attributes of the patient, a clinical trial, the visit, the order and the procedure."""

_KEPT = {
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate",
    "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
}  # fmt: skip
"""Of these: who it is, and whether that was taken out."""

_DROPPED = {
    "StudyDescription", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
    "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "ConsultingPhysicianName",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
}  # fmt: skip
"""Free text about the study, other people, and the place."""

_CT = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
)  # fmt: skip
"""Classes of CT images, whatever their Modality says."""

_TYPE_2 = ("PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName")
"""Attributes that every object has, empty where the source lacks them; besides `_TIMES`."""

_SEXES = ("M", "F", "O")
_TIMES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
"""Attributes that each object has, empty where they are unknown."""


NO_NAME = "NAME^NO"
"""In the place of a patient's name while objects are made, see `Source`."""

PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "PatientAge", "PatientWeight", "PatientSize", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of patient and study, taken over as they are, also where they are empty."""


def reference(image: Dataset) -> Dataset:
    """An image as a result refers to it."""
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


@dataclass(frozen=True, slots=True)
class Source:
    """What was processed.

    Attributes
    ----------
    images
        Headers of the images, one for each slice in the file's own order; of a file with several
        frames the one header. In the place of the patient's name they have another one: a library
        that finds fault with a name prints it.
    patient_name, character_set
        The true ones, which go into each object at last.
    """

    images: tuple[Dataset, ...]
    patient_name: DataElement | None = None
    character_set: DataElement | None = None

    @property
    def first(self) -> Dataset:
        """Header with the attributes of patient and study."""
        return self.images[0]

    @property
    def is_ct(self) -> bool:
        """A CT series; else an X-ray."""
        return self.first.get("Modality") == "CT"

    @property
    def multi_frame(self) -> bool:
        """One file holds all slices."""
        return "PerFrameFunctionalGroupsSequence" in self.first


def read_source(paths: Sequence[Path]) -> Source:
    """Read the headers of the files of a study.

    Parameters
    ----------
    paths
        One for each slice in the file's own order.

    Raises
    ------
    InputError
        When a file lacks what results refer to, or the files are of different studies.
    """
    images = tuple(
        dcmread(path, stop_before_pixels=True, force=True) for path in dict.fromkeys(paths)
    )
    for number, image in enumerate(images, 1):
        if image.get("SOPClassUID") in _CT:
            image.Modality = "CT"
        lies = image.get("Modality") == "CT" and "PerFrameFunctionalGroupsSequence" not in image
        needed = (*_NEEDED, *_PLACED) if lies else _NEEDED
        lacking = [
            name
            for name in needed
            if not image.get(name) or (name.endswith("UID") and _several(image, name))
        ]
        if lacking:
            raise Damaged(
                f"image {number} of {len(images)} has no {', '.join(lacking)}, to which DICOM "
                "results refer; export the study again, or run without --dicom"
            )
    if len({image.SOPInstanceUID for image in images}) < len(images):
        raise Damaged(
            "several images have one SOPInstanceUID, so no result can refer to one of them; export "
            "the study again, or run without --dicom"
        )
    for name in _SAME:
        if len({str(image.get(name, "")) for image in images}) > 1:
            raise Damaged(
                f"the images differ in {name}: no result can belong to two of them; export one "
                "series of one study, or run without --dicom"
            )
    of_several = sum("PerFrameFunctionalGroupsSequence" in image for image in images)
    if of_several and images[1:]:
        raise BadFormat(
            f"the series is in {len(images)} files of several frames each, to which no result can "
            "refer at once; export it as single slices, or run without --dicom"
        )
    if "PatientName" not in images[0]:
        images[0].PatientName = ""
    first = images[0]
    name = deepcopy(first["PatientName"])
    sets = deepcopy(first["SpecificCharacterSet"]) if first.get("SpecificCharacterSet") else None
    for image in images:
        without_name(image)
        _leave_out_what_no_object_needs(image)
        _empty_what_is_wrong(image)
    _give_thickness(images)
    return Source(images, name, sets)


def _leave_out_what_no_object_needs(image: Dataset) -> None:
    """Keep whose images these are, not what else was written of the patient: it would be copied."""
    for tag in list(image.keys()):
        keyword = keyword_for_tag(tag)
        if (tag.group in _PERSONAL and keyword not in _KEPT) or keyword in _DROPPED:
            del image[tag]


def _empty_what_is_wrong(image: Dataset) -> None:
    """Leave out values that no object may have: a library that is given one refuses to write it."""
    for name in (*_TYPE_2, *_TIMES):
        if name not in image:
            setattr(image, name, "")
        elif _several(image, name):
            setattr(image, name, image[name].value[0])
    if image.get("PatientSex") not in _SEXES:
        image.PatientSex = ""
    for name, kind in _TIMES.items():
        try:
            kind(str(image.get(name) or ""))
        except ValueError:
            setattr(image, name, "")
    if not isinstance(image.get("SamplesPerPixel"), int):
        image.SamplesPerPixel = 1


def _several(image: Dataset, name: str) -> bool:
    """Whether there are several values where one belongs."""
    return isinstance(image.get(name), MultiValue)


def _give_thickness(images: Sequence[Dataset]) -> None:
    """Where slices of a CT do not say how thick they are, take their distance, as objects must."""
    lacking = [
        image
        for image in images
        if "ImagePositionPatient" in image
        and (not image.get("SliceThickness") or _several(image, "SliceThickness"))
    ]
    if not lacking:
        return
    ends = [np.array(images[k].ImagePositionPatient, float) for k in (0, -1)]
    distance = float(np.linalg.norm(ends[1] - ends[0])) / max(1, len(images) - 1)
    for image in lacking:
        image.SliceThickness = f"{distance or 1.0:.6g}"


def without_name(image: Dataset) -> None:
    """Take the patient's name out of a header, and its character set: a library names few sets.

    Text is decoded before, and written by the true set at last.
    """
    image.PatientName = NO_NAME
    image.decode()
    image.SpecificCharacterSet = "ISO_IR 192"
