"""COVID-MTL's own files: lung volumes ``.dtm``, masks ``.dmm`` and cropped volumes ``.dcm``.

They look like DICOM, but hold no size, contradict their transfer syntax, and each frame is a PNG
picture of 16 bits (spec covid_mtl §5.2). No general reader of DICOM shows them, so they are taken
apart here. Names, numbers and dates of patients are neither read nor written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import BadFormat, BadSize, Damaged, InputError, OutputError

from ..reading.image_headers import read_header
from ..reading.limits import MAX_SLICES, read_bytes
from .resample import MAX_VOXELS

SUFFIXES = (".dtm", ".dmm", ".dcm")

MAX_BYTES = 2**30
"""Largest file that is read."""

_MARK = b"\0" * 128 + b"DICM"
_PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)
_ITEM, _END = struct.pack("<HH", 0xFFFE, 0xE000), struct.pack("<HH", 0xFFFE, 0xE0DD)
_OPEN_LENGTH = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN"})
"""Value representations with a length of four bytes after two empty ones."""

_META = (
    (0x0002, "1.2.840.10008.1.2.4.51"),
    (0x0003, "1.2.3"),
    (0x0010, "1.2.840.10008.1.2.5"),
    (0x0012, "1.2.3.4"),
)
"""File meta information of the published files, by element."""

_EMPTY = ((0x0008, 0x0023), (0x0008, 0x0033), (0x0010, 0x0010), (0x0010, 0x0020))
"""Date, time, name and number, which the published files fill in."""

_DAMAGED = "the container is damaged or truncated; transfer it again"


def is_container(data: bytes) -> bool:
    """Tell these files from DICOM images: no Rows, and a PNG picture for the first frame."""
    try:
        return data.startswith(_MARK) and next(_frames(data)).startswith(b"\x89PNG")
    except (InputError, StopIteration):
        return False


def read_container(source: Path | str | bytes) -> NDArray[np.uint16]:
    """Read a container.

    Parameters
    ----------
    source
        A file, or its content.

    Returns
    -------
    uint16 [z, y, x]: stored values in voxels of 1 mm, or a mask.

    Raises
    ------
    InputError
        For anything else, a damaged file, and frames that are no pictures of 16 bits of one size.
    """
    data = source if isinstance(source, bytes) else read_bytes(Path(source), limit=MAX_BYTES)
    if not data.startswith(_MARK):
        raise BadFormat(
            f"no container of COVID-MTL ({', '.join(SUFFIXES)}): it does not begin like one"
        )
    frames = list(_frames(data))
    if not frames:
        raise Damaged("a container without frames; export it again")
    if len(frames) > MAX_SLICES:
        raise BadSize(f"a container of {len(frames)} frames, more than {MAX_SLICES}; split it")
    first = _decoded(frames[0], 1)
    if len(frames) * first.size > MAX_VOXELS:
        raise BadSize(
            f"a container of {len(frames)} frames of {list(first.shape)}: more than the limit of "
            f"{MAX_VOXELS / 1e6:.0f} million voxels; give a smaller volume"
        )
    volume = np.empty((len(frames), *first.shape), np.uint16)
    for number, frame in enumerate(frames):
        picture = _decoded(frame, number + 1)
        if picture.shape != first.shape:
            raise Damaged(
                f"frame {number + 1} of a container has {list(picture.shape)} pixels, the first "
                f"{list(first.shape)}; export it again"
            )
        volume[number] = picture
    return volume


def write_container(path: Path | str, volume: NDArray[Any]) -> None:
    """Write a container that the published program reads too.

    Parameters
    ----------
    path
        ``.dtm`` for lung volumes, ``.dmm`` for masks, ``.dcm`` for cropped volumes; all three have
        the same content.
    volume
        Whole numbers 0…65535 or bool, [z, y, x].

    Raises
    ------
    InputError
        For another shape or type.
    OutputError
        When it cannot be written.
    """
    content = container_bytes(volume)
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"the container cannot be written ({error.strerror}); check the folder"
        ) from None


def container_bytes(volume: NDArray[Any]) -> bytes:
    """The content of a container; see `write_container`."""
    fits = volume.ndim == 3 and min(volume.shape) > 0 and volume.dtype.kind in "biu"
    if not fits or int(volume.min()) < 0 or int(volume.max()) >= 2**16:
        raise InputError(
            f"a volume {list(volume.shape)} of {volume.dtype} does not go into a container; give "
            "[z, y, x] of whole numbers from 0 to 65535"
        )
    frames = [_encoded(plane.astype(np.uint16)) for plane in volume]
    # Where each frame's item begins, counted from the first one.
    sizes = [len(frame) + 8 for frame in frames]
    offsets = np.cumsum([0, *sizes[:-1]]).astype("<u4").tobytes()
    parts = [_MARK, *(_meta(*element) for element in _META)]
    parts += [struct.pack("<HHI", *tag, 0) for tag in _EMPTY]
    parts += [_PIXELS, struct.pack("<I", _OPEN_LENGTH)]
    for content in (offsets, *frames):
        parts += [_ITEM, struct.pack("<I", len(content)), content]
    return b"".join([*parts, _END, struct.pack("<I", 0)])


def _meta(element: int, uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", 0x0002, element, b"UI", len(value)) + value


def _encoded(plane: NDArray[np.uint16]) -> bytes:
    done, data = cv2.imencode(".png", plane)
    if not done:
        raise InputError(f"a slice {list(plane.shape)} cannot be written as PNG")
    content = data.tobytes()
    return content + b"\0" * (len(content) % 2)


def _decoded(frame: bytes, number: int) -> NDArray[np.uint16]:
    try:
        # A frame of odd length ends with a zero that is not part of the picture.
        header = read_header(frame)
    except InputError as error:
        raise type(error)(f"frame {number} of a container: {error}") from None
    if header is None or header.kind != "PNG" or (header.bits, header.colours) != (16, "grey"):
        raise Damaged(f"frame {number} of a container is no grey PNG of 16 bits; {_DAMAGED}")
    picture: Any = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape != (header.height, header.width):
        raise Damaged(f"frame {number} of a container cannot be decoded; {_DAMAGED}")
    return picture


def _frames(data: bytes) -> Iterator[bytes]:
    """The frames as they are stored: the items after the offset table."""
    at = _pixel_items(data)
    offsets = True
    while at < len(data) and data[at : at + 4] != _END:
        if data[at : at + 4] != _ITEM or at + 8 > len(data):
            raise Damaged(_DAMAGED)
        length = struct.unpack_from("<I", data, at + 4)[0]
        if at + 8 + length > len(data):
            raise Damaged(_DAMAGED)
        if not offsets:
            yield data[at + 8 : at + 8 + length]
        offsets = False
        at += 8 + length


def _pixel_items(data: bytes) -> int:
    """Where the items of the pixel data begin; elements may or may not name their types."""
    at = len(_MARK)
    while at + 8 <= len(data):
        tag, kind = data[at : at + 4], data[at + 4 : at + 6]
        if kind.isalpha() and kind.isupper():
            long = kind in _LONG
            size = 12 if long else 8
            if at + size > len(data):
                break
            length = struct.unpack_from(
                "<I" if long else "<H", data, at + size - (4 if long else 2)
            )[0]
        else:
            size, length = 8, struct.unpack_from("<I", data, at + 4)[0]
        if tag == _PIXELS:
            if length != _OPEN_LENGTH:
                raise BadFormat(
                    "the pixels are not split into frames, so this is a DICOM image and no "
                    "container of COVID-MTL; give its series"
                )
            return at + size
        at += size + length
    raise Damaged(f"no pixels in the container; {_DAMAGED}")
