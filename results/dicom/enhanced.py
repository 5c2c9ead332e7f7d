"""The enhanced volume as a derived CT series, one instance for each source slice (PS3.3 A.3).

Position, orientation, spacing and frame of reference are those of the source, so that viewers link
both. The values are no Hounsfield units, and RescaleType says so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from . import codes
from .content import Enhanced, Provenance
from .equipment import MANUFACTURER, STATEMENT, concept, contribution, described, serial
from .identity import SERIES_NUMBERS, Identity
from .source import PATIENT_AND_STUDY, Source, reference

LEVELS = 4095
"""Stored values run from 0 to here; slope and intercept restore the values."""

_COPIED = (
    *PATIENT_AND_STUDY, "FrameOfReferenceUID", "PositionReferenceIndicator",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "InstanceNumber", "PatientPosition", "BodyPartExamined", "KVP",
    "GantryDetectorTilt", "AcquisitionDate", "AcquisitionTime", "AcquisitionNumber",
    "SliceLocation",
)  # fmt: skip
"""Attributes of patient, study and place, taken over as they are, also where they are empty."""

_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
    "SliceThickness", "KVP", "AcquisitionNumber", "InstanceNumber", "PatientPosition",
)  # fmt: skip
"""Attributes that must be there, if empty."""


def enhanced_series(
    enhanced: Enhanced, *, source: Source, identity: Identity, provenance: Provenance
) -> Iterator[FileDataset]:
    """The instances, in the order of the slices; made one by one, for little memory."""
    voxels = enhanced.voxels
    low, high = float(voxels.min()), float(voxels.max())
    slope = (high - low) / LEVELS or 1.0
    for index, image in enumerate(source.images):
        made = _instance(image, enhanced.title, identity, provenance)
        made.RescaleIntercept, made.RescaleSlope = f"{low:.9g}", f"{slope:.9g}"
        made.RescaleType = "US"
        made.WindowCenter = f"{enhanced.window.level:.6g}"
        made.WindowWidth = f"{max(enhanced.window.width, slope):.6g}"
        made.WindowCenterWidthExplanation = "scan-optimal"
        stored = np.rint((voxels[index] - low) / slope)
        made.PixelData = stored.astype("<i2").tobytes()
        made["PixelData"].VR = "OW"
        made.Rows, made.Columns = voxels.shape[1:]
        identity.settle(made, "enhanced")
        yield made


def _instance(
    image: Dataset, title: str, identity: Identity, provenance: Provenance
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = identity.uid("enhanced", str(image.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name in _COPIED:
        if name in image:
            made[name] = image[name]
    for name in _TYPE_2:
        if name not in made:
            setattr(made, name, None)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID = identity.uid("enhanced", "series")
    made.SeriesNumber = SERIES_NUMBERS["enhanced"]
    made.SeriesDescription = described(title)
    made.Modality = "CT"
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "DLPE_ENHANCED"]
    made.DerivationDescription = f"{title}. {STATEMENT}"
    made.InstanceCreationDate = made.ContentDate = identity.date
    made.InstanceCreationTime = made.ContentTime = identity.time
    made.Manufacturer = made.ManufacturerModelName = MANUFACTURER
    made.SoftwareVersions, made.DeviceSerialNumber = provenance.version, serial(provenance)
    made.BurnedInAnnotation, made.RecognizableVisualFeatures = "NO", "NO"
    made.LossyImageCompression = "00"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = 1
    made.SourceImageSequence = Sequence([_with_purpose(image)])
    series = Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([reference(image)])
    made.ReferencedSeriesSequence = Sequence([series])
    made.ContributingEquipmentSequence = Sequence(contribution(provenance))
    return made


def _with_purpose(image: Dataset) -> Dataset:
    item = reference(image)
    item.PurposeOfReferenceCodeSequence = Sequence([concept(codes.SOURCE_IMAGE)])
    return item
