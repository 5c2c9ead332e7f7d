"""Inputs that hold marks wherever a patient could be named, and the search for these marks."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image, PngImagePlugin
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

MARK = "ZZMARK"
NUMBER = "19310729"
"""The mark where only digits may stand: dates and UIDs."""

NAME = "ZZFILE"
"""The mark in names of files, which messages and the report may repeat: users gave them."""

_MARKS = re.compile(rb"ZZMARK|19310729", re.IGNORECASE)

_TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}

_MEANING = {
    "Modality", "PhotometricInterpretation", "PatientOrientation", "ViewPosition", "Laterality",
    "SpecificCharacterSet", "ImageType", "PresentationIntentType", "PresentationLUTShape",
    "VOILUTFunction", "RescaleType", "PixelPresentation", "VolumetricProperties",
}  # fmt: skip
"""Read as codes: another value makes another image of the file, or none."""

_CLASSES = {"SOPClassUID", "MediaStorageSOPClassUID", "TransferSyntaxUID"}


def plant_dicom(dataset: Dataset) -> Dataset:
    """Put marks into every attribute of a data set that does not say how the image is read."""
    for tag, (kind, _, _, retired, keyword) in DicomDictionary.items():
        if tag >> 16 not in (0x08, 0x10, 0x12, 0x18, 0x20, 0x28, 0x32, 0x38, 0x40, 0x4008):
            continue
        if retired or not keyword or keyword in _MEANING | _CLASSES:
            continue
        if kind in _TEXTS:
            dataset.add_new(tag, kind, f"{MARK}{tag:08X}")
        elif kind == "DA":
            dataset.add_new(tag, kind, NUMBER)
        elif kind == "UI" and keyword != "SOPInstanceUID":
            dataset.add_new(tag, kind, f"1.2.{NUMBER}.{tag}")
    if "SOPInstanceUID" in dataset:
        dataset.SOPInstanceUID = f"1.2.{NUMBER}.{dataset.get('InstanceNumber', 1)}"
    private = dataset.private_block(0x0009, f"{MARK} CREATOR", create=True)
    private.add_new(0x01, "LO", f"{MARK}PRIVATE")
    dataset.preamble = MARK.encode().ljust(128, b" ")
    return dataset


_ALSO = (
    "LUTDescriptor", "LUTData", "NumberOfFrames", "PixelPaddingValue", "VOILUTFunction",
    "WindowWidth", "WindowCenter", "ViewPosition", "ImageType", "ProtocolName", "SliceThickness",
    "AcquisitionNumber", "GantryDetectorTilt", "SpacingBetweenSlices", "SpecificCharacterSet",
    "RescaleType", "KVP", "VOILUTSequence", "ModalityLUTSequence", "TemporalPositionIdentifier",
    "ViewCodeSequence",
)  # fmt: skip
"""Attributes that a reader may look at though phantoms do not have them."""


def spoilt_by_marks(path: Path) -> Iterator[tuple[str, Dataset]]:
    """A file once for each attribute that says how it is read, with a mark in it."""
    tags = {e.tag for e in pydicom.dcmread(path)} | {pydicom.tag.Tag(k) for k in _ALSO}
    for tag in sorted(tags - {pydicom.tag.Tag("PixelData")}):
        dataset = pydicom.dcmread(path)
        dataset[tag] = pydicom.DataElement(tag, "UT", f"{MARK}{int(tag):08X}")
        yield keyword_for_tag(tag), dataset


def plant_nifti(voxels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], path: Path) -> Path:
    """Write a NIfTI file with marks in all texts of its header."""
    image = nibabel.Nifti1Image(voxels, affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = f"{MARK}{field}"[:15].encode()
    for kind in ("comment", "afni", "ignore"):
        text = f"{MARK} in an extension".encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(kind, text))
    nibabel.save(image, path)
    return path


def plant_png(pixels: np.ndarray[Any, Any], path: Path) -> Path:
    """Write a PNG with marks in chunks of text, compressed and not, and in EXIF."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", f"{MARK} author")
    text.add_text(f"{MARK} key", f"{MARK} packed", zip=True)
    text.add_itxt("Title", f"{MARK} title")
    Image.fromarray(pixels).save(path, pnginfo=text, exif=_exif())
    return path


def plant_jpeg(pixels: np.ndarray[Any, Any], path: Path) -> Path:
    """Write a JPEG with marks in EXIF and in its comment."""
    Image.fromarray(pixels).save(path, exif=_exif(), comment=f"{MARK} comment".encode())
    return path


def _exif() -> Image.Exif:
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9286):  # description, artist, copyright, comment
        exif[tag] = f"{MARK} exif"
    return exif


IDENTIFYING = {
    # Whose
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate",
    "PatientIdentityRemoved", "DeidentificationMethod",
    # Of which study and images
    "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber", "ReferringPhysicianName",
    "SeriesInstanceUID", "ReferencedSOPInstanceUID", "UID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "LossyImageCompression", "AcquisitionDate", "BodyPartExamined",
    "PatientPosition",
    # Taken with which machine
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    # Dates of objects are those of the images
    "ContentDate", "ContributionDateTime", "DateOfSecondaryCapture", "InstanceCreationDate",
    "PresentationCreationDate",
}  # fmt: skip
"""Attributes that results in DICOM have to take over from the images: whose they are, and which."""


def object_leaks(path: Path) -> set[str]:
    """Attributes of a DICOM object of the results that hold marks and are not `IDENTIFYING`."""
    data = path.read_bytes()
    dataset = pydicom.dcmread(path)
    found = {"preamble"} if _MARKS.search(data[:128]) else set()

    def look(part: Dataset) -> None:
        for element in part:
            if element.VR == "SQ":
                for item in element.value:
                    look(item)
            elif element.tag.is_private or element.keyword not in IDENTIFYING:
                value = element.value if isinstance(element.value, bytes) else repr(element.value)
                if text_leaks(value):
                    found.add(element.keyword or str(element.tag))

    for part in (dataset.file_meta, dataset):
        look(part)
    return found


def leaks(folder: Path) -> list[str]:
    """Where marks are below a folder of results: in names, contents, and what is packed in them."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if _MARKS.search(name.encode()) or NAME in name:
            found.append(f"{name}: its name")
        if path.is_file():
            is_object = "dicom" in path.relative_to(folder).parts
            whats = object_leaks(path) if is_object else _contents(path)
            found += [f"{name}: {what}" for what in whats]
    return found


def _contents(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    parts = [data]
    if data[:2] == b"\x1f\x8b":
        # A truncated file too, as far as it goes.
        parts.append(zlib.decompressobj(wbits=31).decompress(data))
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts += [archive.read(name) for name in archive.namelist()]
    elif data.startswith(b"\x89PNG"):
        with suppress(OSError, SyntaxError), Image.open(path) as picture:  # damaged ones
            picture.load()
            parts.append(repr(picture.info).encode())
            parts.append(repr(dict(picture.getexif())).encode())
    for part in parts:
        yield from text_leaks(part)
    if path.suffix in (".png", ".gz", ".npz") and any(NAME.encode() in part for part in parts):
        yield "the input's name"


def text_leaks(text: bytes | str) -> list[str]:
    """Marks in a text, each with what stands around it."""
    data = text.encode() if isinstance(text, str) else text
    around = ((max(0, m.start() - 60), m.end() + 30) for m in _MARKS.finditer(data))
    return [data[start:end].decode("latin-1") for start, end in around]
