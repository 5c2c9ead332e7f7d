"""DICOM files at a low level: recognise, parse within limits, pixels as the modality meant them.

What kind of image is wanted is not decided here. Only the attributes that were asked for are
parsed: names and other identifiers of patients are never read.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from hilum.catalog.errors import BadFormat, Damaged, InputError

from .codestreams import check_rle, codestream_sizes
from .dicom_decoders import decoded, name_syntax
from .image_headers import JPEG_SIGNATURE, check_scans, jpeg_frame
from .limits import MAX_FILE_BYTES, check_declared_size, inflate, inflated_start
from .parsing import parsing
from .stored_words import Layout, values_of

_DAMAGED_FILE = "DICOM: the file is damaged or truncated; transfer or export it again"
_DAMAGED_PIXELS = "DICOM: damaged pixel data; transfer or export the file again"
_NO_PIXELS = "DICOM without pixel data (7FE0,0010): a report or a truncated file; give an image"

_PIXEL_ATTRIBUTES = (
    "SOPClassUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PlanarConfiguration", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "ModalityLUTSequence", "LUTDescriptor", "LUTData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip

_HEADER_BYTES = 4 * 2**20
"""Bytes of a deflated file besides its pixels."""

_FIRST_BYTES = 2**16
"""Bytes of a deflated file that describe its pixels."""

_END_MARK = b"\xff\xd9"
"""End of a JPEG-LS stream."""

_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that entries of look-up tables have."""


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
    tags: list[Any] = [Tag(keyword) for keyword in (*_PIXEL_ATTRIBUTES, *attributes)]
    tags += [Tag(group, element) for group in _OVERLAY_GROUPS for element in (0x0100, 0x0102)]
    with parsing(_DAMAGED_FILE):
        dataset = _read(io.BytesIO(data), tags)
        directory = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if directory:
        raise BadFormat("DICOMDIR: an index without pixels; give the image files it lists")
    with parsing(_DAMAGED_FILE):
        _decode_values(dataset)
    if not isinstance(dataset.get("PixelData"), bytes) or not dataset.PixelData:
        raise BadFormat(_NO_PIXELS)
    name_syntax(dataset)
    return dataset


def header(path: Path, attributes: Iterable[str]) -> Dataset:
    """Parse `attributes` of a DICOM file without its pixels.

    Raises
    ------
    InputError
        For a damaged file, or a deflated one that unpacks to too much.
    """
    tags: list[Any] = [Tag(keyword) for keyword in attributes]
    with parsing(_DAMAGED_FILE), path.open("rb") as stream:
        dataset = _read(stream, tags, pixels=False)
        _decode_values(dataset)
    return dataset


def _read(stream: BinaryIO, tags: list[Any], *, pixels: bool = True) -> Dataset:
    """Parse a file as pydicom does, but never let it unpack anything without a limit."""
    read_preamble(stream, force=True)
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return dcmread(stream, force=True, specific_tags=tags, stop_before_pixels=not pixels)
    packed = stream.read(MAX_FILE_BYTES)
    try:
        plain = io.BytesIO(inflate(packed, limit=_unpacked_limit(packed)))
    except InputError as refused:
        raise Damaged(f"DICOM: {refused}") from None
    dataset = FileDataset(
        plain, read_dataset(plain, False, True, specific_tags=tags), file_meta=meta,
        is_implicit_VR=False, is_little_endian=True,
    )  # fmt: skip
    if not pixels:
        dataset.pop("PixelData", None)
    return dataset


def _unpacked_limit(packed: bytes) -> int:
    """Bytes that a deflated file may unpack to: its declared pixels and what else it may hold."""
    start = io.BytesIO(inflated_start(packed, _FIRST_BYTES))
    names = ("SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated")
    tags: list[Any] = [Tag(name) for name in names]
    pixels = 0
    with suppress(InputError), parsing(_DAMAGED_FILE):
        found = read_dataset(
            start, False, True, stop_when=lambda tag, *_: tag > max(tags), specific_tags=tags
        )
        samples, frames = (integer(found, name, 1) for name in names[:2])
        rows, columns, bits = (integer(found, name) for name in names[2:])
        check_declared_size("DICOM", columns, rows)
        pixels = samples * frames * rows * columns * bits // 8
    return max(0, min(MAX_FILE_BYTES, pixels + _HEADER_BYTES))


def _decode_values(dataset: Dataset) -> None:
    """Decode all values, as pydicom else does when they are looked at first.

    Raises
    ------
    InputError
        When what the standard calls a sequence holds something else.
    """
    for element in dataset.iterall():
        known = dictionary_has_tag(element.tag) and dictionary_VR(element.tag) == "SQ"
        if known and not isinstance(element.value, Sequence):
            raise Damaged(_DAMAGED_FILE)


def stored_values(dataset: Dataset) -> NDArray[np.int32]:
    """Decode the pixels of a single-frame monochrome image.

    Returns
    -------
    int32 [H, W]: stored values with sign (PixelRepresentation). What lies outside of BitsStored
    is read as `stored_words.values_of` says; padding keeps the value of its whole word.

    Raises
    ------
    InputError
        For several frames, colour, a bit depth beyond 16, a transfer syntax that cannot be decoded,
        values of unknown depth, or damaged pixel data.
    """
    rows, columns, bits, shift = _layout(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_codestream(dataset, rows, columns)
    elif len(dataset.PixelData) < rows * columns * dataset.BitsAllocated // 8:
        raise Damaged("DICOM: fewer pixels than declared, the file is truncated; transfer again")
    values = _words(dataset, rows, columns)
    if values.shape != (rows, columns):
        raise Damaged(f"DICOM: pixels {list(values.shape)} instead of {[rows, columns]}")
    signed = dataset.PixelRepresentation == 1
    return values_of(values, Layout(bits, shift, signed, padding_of(dataset), _overlays(dataset)))


def padding_of(dataset: Dataset) -> tuple[int, int] | None:
    """Range of words that stand for no measurement."""
    low = dataset.get("PixelPaddingValue")
    high = dataset.get("PixelPaddingRangeLimit", low)
    if not isinstance(low, int) or not isinstance(high, int):
        return None
    return min(low, high), max(low, high)


def _overlays(dataset: Dataset) -> int:
    """Bits of the words that are declared as overlays (retired, PS3.3 C.9.2)."""
    found = 0
    for group in _OVERLAY_GROUPS:
        allocated, bit = dataset.get((group, 0x0100)), dataset.get((group, 0x0102))
        if bit is None or (allocated is not None and allocated.value == 1):
            continue  # an overlay of one bit has data of its own
        if isinstance(bit.value, int) and 0 <= bit.value < 16:
            found |= 1 << bit.value
    return found


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
        raise Damaged("DICOM: RescaleSlope (0028,1053) is 0; export the image again")
    return (stored * slope + intercept).astype(np.float32)


def look_up(item: Dataset, values: NDArray[Any], name: str) -> tuple[NDArray[np.float32], int]:
    """Apply a table of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1).

    Returns
    -------
    float32, of the shape of `values`; and the largest value that entries of their depth can have.
    The depth is that of the entries themselves, one of `_DEPTHS`: many devices declare the size of
    the word that an entry lies in (16) for entries of 12 bits.

    Raises
    ------
    InputError
        For a table whose length is not the declared one.
    """
    damaged = f"DICOM: the {name} is damaged; export the image again"
    with parsing(damaged):
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        raw = item.LUTData
        entries = entries or 2**16
        if isinstance(raw, bytes):
            raw = np.frombuffer(raw, np.uint8 if len(raw) < 2 * entries else np.dtype("<u2"))
        table = np.atleast_1d(np.asarray(raw)).astype(np.int64)[:entries]
    if len(table) != entries or not 1 <= bits <= 16:
        raise Damaged(damaged)
    # The first mapped value is signed exactly when what goes in is.
    if first > 0x7FFF and values.min() < 0:
        first -= 0x10000
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)
    reach = int(table.max()).bit_length()
    depth = next((d for d in _DEPTHS if d >= reach), 16)
    return table[places].astype(np.float32), 2**depth - 1


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
        raise Damaged(f"DICOM: {keyword} is not a number; export the image again")
    return result


def _layout(dataset: Dataset) -> tuple[int, int, int, int]:
    """Rows, columns, bits stored, and how far the words must be shifted to the right."""
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    allocated, bits = integer(dataset, "BitsAllocated"), integer(dataset, "BitsStored")
    frames, samples = integer(dataset, "NumberOfFrames", 1), integer(dataset, "SamplesPerPixel")
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    high = integer(dataset, "HighBit", bits - 1)
    representation = integer(dataset, "PixelRepresentation", 0)
    check_declared_size("DICOM", columns, rows)
    if frames != 1:
        raise BadFormat(f"DICOM with {frames} frames; give a single-frame image")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadFormat("DICOM in colour; give an image with grey values (MONOCHROME1 or 2)")
    if allocated not in (8, 16) or not 1 <= bits <= allocated:
        raise BadFormat(f"DICOM: {bits} of {allocated} bits; give an image of 8 to 16 bits")
    if not bits - 1 <= high < allocated or representation not in (0, 1):
        raise Damaged("DICOM: the pixels are described wrongly; export the image again")
    dataset.add_new("HighBit", "US", high)  # whatever the file calls their kind
    dataset.add_new("PixelRepresentation", "US", representation)
    return rows, columns, bits, high + 1 - bits


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Read an attribute that is one whole number; `default` where there is none.

    Raises
    ------
    InputError
        When it is something else, or missing without a default. What it holds is not quoted.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        if default is None:
            raise Damaged(f"DICOM: the pixels are not described ({keyword}); export it again")
        return default
    if not isinstance(value, int):
        raise Damaged(f"DICOM: {keyword} is not a whole number; export the image again")
    return int(value)


def _words(dataset: Dataset, rows: int, columns: int) -> NDArray[Any]:
    """Decode the pixels as the file's words, [H, W], unsigned or already with their sign."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated and (syntax.is_little_endian or dataset.BitsAllocated == 16):
        # pydicom would mask the words as if their high bit were always BitsStored − 1.
        kind = np.dtype("u1" if dataset.BitsAllocated == 8 else "u2").newbyteorder(
            "<" if syntax.is_little_endian else ">"
        )
        words = np.frombuffer(dataset.PixelData, kind, rows * columns).reshape(rows, columns)
        return words if syntax.is_little_endian else words.astype("<u2")
    with parsing(_DAMAGED_PIXELS):
        try:
            return decoded(dataset)
        except NotImplementedError:
            raise BadFormat(
                f"DICOM: transfer syntax {syntax.name} cannot be decoded; export the image as "
                "Explicit VR Little Endian"
            ) from None


def _check_codestream(dataset: Dataset, rows: int, columns: int) -> None:
    """Refuse compressed pixels whose own header declares another size than the DICOM one."""
    with parsing(_DAMAGED_PIXELS):
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax in JPEG2000TransferSyntaxes:
            sizes = codestream_sizes(stream)
        elif stream.startswith(JPEG_SIGNATURE):
            described, _ = jpeg_frame(stream)
            check_scans(stream)
            if syntax in JPEGLSTransferSyntaxes and not stream.rstrip(b"\0").endswith(_END_MARK):
                raise Damaged(_DAMAGED_PIXELS)  # the decoder would search it for seconds
            sizes = {(described.height, described.width)}
        elif syntax == RLELossless:
            check_rle(stream, rows * columns * dataset.BitsAllocated // 8)
            return
        else:
            raise Damaged(_DAMAGED_PIXELS)
    if sizes != {(rows, columns)}:
        raise Damaged("DICOM: the compressed pixels have another size than declared; export again")
