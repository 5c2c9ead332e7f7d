"""Surfaces as encapsulated STL on the frame of reference of the series (PS3.3 A.85.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from highdicom.color import CIELabColor
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EncapsulatedSTLStorage, ExplicitVRLittleEndian

from ..meshes import Surface, stl_bytes
from . import codes
from .content import Provenance
from .equipment import MANUFACTURER, STATEMENT, concept, contribution, described, serial
from .identity import SERIES_NUMBERS, Identity
from .source import PATIENT_AND_STUDY, Source, reference

_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


def encapsulated(
    surfaces: Sequence[Surface], *, source: Source, identity: Identity, provenance: Provenance
) -> Iterator[tuple[str, FileDataset]]:
    """One object for each surface, of one series, with the surface's name."""
    for number, surface in enumerate(surfaces, 1):
        made = _instance(surface, number, source, identity, provenance)
        identity.settle(made, "surfaces")
        yield surface.name, made


def _instance(
    surface: Surface, number: int, source: Source, identity: Identity, provenance: Provenance
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EncapsulatedSTLStorage
    meta.MediaStorageSOPInstanceUID = identity.uid("surfaces", surface.name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name in (*PATIENT_AND_STUDY, "FrameOfReferenceUID", "PositionReferenceIndicator"):
        if name in source.first:
            made[name] = source.first[name]
    for name in _TYPE_2:
        if name not in made:
            setattr(made, name, None)
    made.SOPClassUID, made.SOPInstanceUID = EncapsulatedSTLStorage, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID = identity.uid("surfaces", "series")
    made.SeriesNumber, made.InstanceNumber = SERIES_NUMBERS["surfaces"], number
    made.SeriesDescription, made.Modality = described("surfaces"), "M3D"
    made.Manufacturer = made.ManufacturerModelName = MANUFACTURER
    made.SoftwareVersions, made.DeviceSerialNumber = provenance.version, serial(provenance)
    made.InstanceCreationDate = made.ContentDate = identity.date
    made.InstanceCreationTime = made.ContentTime = identity.time
    made.AcquisitionDateTime = None
    made.BurnedInAnnotation, made.RecognizableVisualFeatures = "NO", "NO"
    made.SourceInstanceSequence = Items([reference(image) for image in source.images])
    made.ReferencedSeriesSequence = Items([_series(source)])
    made.DocumentTitle = f"{surface.name}. {STATEMENT}"
    made.ConceptNameCodeSequence = Items([concept(codes.MODEL)])
    made.MIMETypeOfEncapsulatedDocument = "model/stl"
    _describe(made, surface)
    made.ContributingEquipmentSequence = Items(contribution(provenance))
    return made


def _series(source: Source) -> Dataset:
    made = Dataset()
    made.SeriesInstanceUID = source.first.SeriesInstanceUID
    made.ReferencedInstanceSequence = Items([reference(image) for image in source.images])
    return made


def _describe(made: Dataset, surface: Surface) -> None:
    """Manufacturing 3D Model (PS3.3 C.35.1), and the file itself, of even length."""
    made.MeasurementUnitsCodeSequence = Items([concept(codes.MM)])
    made.ModelModification, made.ModelMirroring = "NO", "NO"
    made.ModelUsageCodeSequence = Items([concept(codes.PLANNING)])
    made.ContentDescription = surface.name
    made.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*surface.colour).value)
    stored = stl_bytes(surface)
    made.EncapsulatedDocumentLength = len(stored)
    made.EncapsulatedDocument = stored + b"\0" * (len(stored) % 2)
