"""DICOM files at a low level: recognise, parse within limits, pixels as the modality meant them.

What kind of image is wanted is not decided here. Only the attributes that were asked for are
parsed: names and other identifiers of patients are never read.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ..catalog.errors import InputError
from .image_headers import JPEG_SIGNATURE, jpeg_frame
from .limits import MAX_FILE_BYTES, check_declared_size

# Its warnings quote the values they complain about, names of patients among them. What is wrong
# with a file is told by the exceptions here.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.ERROR)
config.settings.reading_validation_mode = config.IGNORE

_PIXEL_ATTRIBUTES = (
    "SOPClassUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PlanarConfiguration", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "ModalityLUTSequence", "LUTDescriptor", "LUTData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip

_UNREADABLE = (
    InvalidDicomError, AttributeError, EOFError, IndexError, KeyError, MemoryError,
    NotImplementedError, OSError, OverflowError, RuntimeError, TypeError, ValueError, struct.error,
    zlib.error,
)  # fmt: skip
"""What pydicom and its decoders raise on damaged files."""


def is_dicom(data: bytes) -> bool:
    """Tell DICOM by its content: the mark after the preamble, or a first element without one."""
    if data[128:132] == b"DICM":
        return True
    group, element = struct.unpack_from("<HH", data.ljust(8, b"\0"))
    if group not in (2, 8) or element > 0x18:
        return False
    length = struct.unpack_from("<I", data.ljust(8, b"\0"), 4)[0]
    return data[4:6] in (b"UL", b"CS", b"UI", b"DA", b"SH", b"OB") or length <= 64


def parse(data: bytes, attributes: Iterable[str] = ()) -> Dataset:
    """Parse a DICOM file.

    Parameters
    ----------
    data
        The whole file, with or without a preamble.
    attributes
        Keywords of attributes to parse besides those that describe the pixels.

    Raises
    ------
    InputError
        For a damaged or truncated file, a DICOMDIR, a file without pixels, or a deflated one that
        unpacks to more than `limits.MAX_FILE_BYTES`.
    """
    _check_deflated(data)
    tags: list[Any] = [Tag(keyword) for keyword in (*_PIXEL_ATTRIBUTES, *attributes)]
    try:
        dataset = dcmread(io.BytesIO(data), force=True, specific_tags=tags)
    except _UNREADABLE:
        raise InputError(
            "DICOM: the file is damaged or truncated; transfer or export it again"
        ) from None
    if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise InputError("DICOMDIR: an index without pixels; give the image files it lists")
    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputError(
            "DICOM without pixel data (7FE0,0010): a report or a truncated file; give an image"
        )
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit
            else ExplicitVRLittleEndian if little
            else ExplicitVRBigEndian
        )  # fmt: skip
    return dataset


def stored_values(dataset: Dataset) -> NDArray[np.int32]:
    """Decode the pixels of a single-frame monochrome image.

    Returns
    -------
    int32 [H, W]: stored values with sign (PixelRepresentation), of BitsStored bits; what else the
    words may hold (old overlays) is masked off.

    Raises
    ------
    InputError
        For several frames, colour, a bit depth beyond 16, a transfer syntax that cannot be decoded,
        or damaged pixel data.
    """
    rows, columns, bits, shift = _layout(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_codestream(dataset, rows, columns)
    elif len(dataset.PixelData) < rows * columns * dataset.BitsAllocated // 8:
        raise InputError("DICOM: fewer pixels than declared, the file is truncated; transfer again")
    values = _words(dataset, rows, columns)
    if values.shape != (rows, columns):
        raise InputError(f"DICOM: pixels {list(values.shape)} instead of {[rows, columns]}")
    values = (values.astype(np.int32) >> shift) & (2**bits - 1)
    if dataset.PixelRepresentation == 1:
        sign = 1 << (bits - 1)
        values = (values ^ sign) - sign
    return values


def modality_values(dataset: Dataset, stored: NDArray[np.int32]) -> NDArray[np.float32]:
    """Apply the Modality LUT, or else rescale slope and intercept (Hounsfield units in CT).

    Parameters
    ----------
    stored
        Stored values, of any shape.

    Returns
    -------
    float32, of the same shape.

    Raises
    ------
    InputError
        For a damaged table, or a slope that is zero or no number.
    """
    if dataset.get("ModalityLUTSequence"):
        return look_up(dataset.ModalityLUTSequence[0], stored, "Modality LUT")[0]
    slope = number(dataset, "RescaleSlope", 1.0)
    intercept = number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise InputError("DICOM: RescaleSlope (0028,1053) is 0; export the image again")
    return (stored * slope + intercept).astype(np.float32)


def look_up(item: Dataset, values: NDArray[Any], name: str) -> tuple[NDArray[np.float32], int]:
    """Apply a table of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1).

    Returns
    -------
    float32, of the shape of `values`; and the largest value that the table's bits can express.

    Raises
    ------
    InputError
        For a table whose length is not the declared one.
    """
    try:
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        raw = item.LUTData
        entries = entries or 2**16
        if isinstance(raw, bytes):
            raw = np.frombuffer(raw, np.uint8 if len(raw) < 2 * entries else np.dtype("<u2"))
        table = np.atleast_1d(np.asarray(raw)).astype(np.int64)[:entries]
    except _UNREADABLE:
        raise InputError(f"DICOM: the {name} is damaged; export the image again") from None
    if len(table) != entries or not 1 <= bits <= 16:
        raise InputError(f"DICOM: the {name} is damaged; export the image again")
    # The first mapped value is signed exactly when what goes in is.
    if first > 0x7FFF and values.min() < 0:
        first -= 0x10000
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)
    return table[places].astype(np.float32), 2**bits - 1


def number(dataset: Dataset, keyword: str, default: float) -> float:
    """Read the first value of a numeric attribute, or `default` where there is none.

    Raises
    ------
    InputError
        When it is not a finite number.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        return default
    try:
        result = float(value[0] if isinstance(value, list | MultiValue) else value)
    except (TypeError, ValueError, IndexError):
        result = np.nan
    if not np.isfinite(result):
        raise InputError(f"DICOM: {keyword} is not a number; export the image again")
    return result


def _layout(dataset: Dataset) -> tuple[int, int, int, int]:
    """Rows, columns, bits stored, and how far the words must be shifted to the right."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
        frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
        photometric = str(dataset.PhotometricInterpretation)
    except _UNREADABLE:
        raise InputError("DICOM: the pixels are not described; export the image again") from None
    check_declared_size("DICOM", columns, rows)
    if frames != 1:
        raise InputError(f"DICOM with {frames} frames; give a single-frame image")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError("DICOM in colour; give an image with grey values (MONOCHROME1 or 2)")
    if allocated not in (8, 16) or not 1 <= bits <= allocated:
        raise InputError(f"DICOM: {bits} of {allocated} bits; give an image of 8 to 16 bits")
    if "HighBit" not in dataset:
        dataset.HighBit = bits - 1
    if "PixelRepresentation" not in dataset:
        dataset.PixelRepresentation = 0
    return rows, columns, bits, max(0, int(dataset.HighBit) + 1 - bits)


def _words(dataset: Dataset, rows: int, columns: int) -> NDArray[Any]:
    """Decode the pixels as the file's words, [H, W], unsigned or already with their sign."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if not syntax.is_encapsulated and syntax.is_little_endian:
            # pydicom would mask the words as if their high bit were always BitsStored − 1.
            kind = "<u1" if dataset.BitsAllocated == 8 else "<u2"
            return np.frombuffer(dataset.PixelData, kind, rows * columns).reshape(rows, columns)
        return pixel_array(dataset)
    except NotImplementedError:
        raise InputError(
            f"DICOM: transfer syntax {syntax.name} cannot be decoded; export the image as "
            "Explicit VR Little Endian"
        ) from None
    except _UNREADABLE:
        raise InputError("DICOM: damaged pixel data; transfer or export the file again") from None


def _check_codestream(dataset: Dataset, rows: int, columns: int) -> None:
    """Refuse compressed pixels whose own header declares another size than the DICOM one."""
    try:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
        if start >= 0:  # JPEG 2000
            right, bottom, left, top = struct.unpack_from(">IIII", stream, start + 8)
            size = (bottom - top, right - left)
        elif stream.startswith(JPEG_SIGNATURE):
            header, _ = jpeg_frame(stream)
            size = (header.height, header.width)
        else:
            return
    except _UNREADABLE:
        raise InputError("DICOM: damaged pixel data; transfer or export the file again") from None
    if size != (rows, columns):
        raise InputError(
            "DICOM: the compressed pixels have another size than declared; export again"
        )


def _check_deflated(data: bytes) -> None:
    """Refuse a deflated file that would unpack to more than a file may have."""
    if data[128:132] != b"DICM":
        return
    head = data[132:2048]
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    if head[:4] != b"\x02\x00\x00\x00":
        raise InputError("DICOM: the file meta information is damaged; export the image again")
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacker.decompress(data[start:], MAX_FILE_BYTES)
    except zlib.error:
        raise InputError("DICOM: damaged deflated data; transfer or export it again") from None
    if unpacker.unconsumed_tail:
        raise InputError(
            f"DICOM: unpacks to more than {MAX_FILE_BYTES / 2**20:.0f} MiB; give a single image"
        )
