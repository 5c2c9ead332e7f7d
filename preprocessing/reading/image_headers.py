"""PNG, JPEG and BMP files before decoding: what they declare and whether they are whole.

OpenCV decodes a truncated picture without a word and leaves the rest grey, and sets memory aside
for whatever a header claims; so both are checked here first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from hilum.catalog.errors import Damaged

from .limits import MAX_SCANS, check_declared_size
from .wholeness import png_is_whole

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
BMP_SIGNATURE = b"BM"

_PNG_COLOURS = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Start-of-frame markers: baseline to lossless, and JPEG-LS."""

_TRUNCATED = "the file is truncated; transfer or export it again"


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file declares.

    Attributes
    ----------
    bits
        Bits of one sample.
    colours
        ``"grey"``, ``"colour"``, ``"palette"``, ``"grey with alpha"`` or ``"colour with alpha"``.
    full_range
        The file says that its samples use all their bits (the ``sBIT`` chunk of PNG).
    """

    kind: str
    width: int
    height: int
    bits: int
    colours: str
    full_range: bool = False


def read_header(data: bytes) -> Header | None:
    """Read the header of a PNG, JPEG or BMP file and check that the file is whole.

    Returns
    -------
    None for any other kind of file.

    Raises
    ------
    InputError
        For a damaged or truncated file, or one that declares too many pixels.
    """
    for kind, signature, read in (
        ("PNG", PNG_SIGNATURE, _png),
        ("JPEG", JPEG_SIGNATURE, _jpeg),
        ("BMP", BMP_SIGNATURE, _bmp),
    ):
        if data.startswith(signature):
            try:
                return read(data)
            except (struct.error, IndexError):
                raise Damaged(f"{kind}: {_TRUNCATED}") from None
    return None


def _png(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colour not in _PNG_COLOURS:
        raise Damaged("PNG header: damaged; export the picture again")
    check_declared_size("PNG", width, height)
    names: set[bytes] = set()
    parts: list[memoryview] = []
    for name, content in _png_chunks(data):
        names.add(name)
        if name == b"IDAT":
            parts.append(content)
    if b"IDAT" not in names or b"IEND" not in names:
        raise Damaged(f"PNG: {_TRUNCATED}")
    if not png_is_whole(parts, width, height, bits, colour, data[28] == 1):
        raise Damaged(f"PNG: {_TRUNCATED}")
    return Header("PNG", width, height, bits, _PNG_COLOURS[colour], b"sBIT" in names)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Walk over the chunks up to the end mark; the checksums of critical ones must fit."""
    position = len(PNG_SIGNATURE)
    view = memoryview(data)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise Damaged(f"PNG: {_TRUNCATED}")
        name = data[position + 4 : position + 8]
        critical = not name[0] & 0x20
        if (
            critical
            and zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]
        ):
            raise Damaged("PNG: a checksum does not fit; transfer or export the file again")
        yield name, view[position + 8 : end]
        if name == b"IEND":
            return
        position = end + 4


def _jpeg(data: bytes) -> Header:
    header, scan = jpeg_frame(data)
    check_declared_size("JPEG", header.width, header.height)
    check_scans(data)
    # Inside a scan the byte FF is followed by 00 or a restart mark, so a truncated one has no end.
    if data.rfind(b"\xff\xd9") < scan:
        raise Damaged(f"JPEG: {_TRUNCATED}")
    return header


def jpeg_frame(data: bytes) -> tuple[Header, int]:
    """Read the frame header of a JPEG or JPEG-LS stream.

    Returns
    -------
    The header, and where the first scan begins.

    Raises
    ------
    InputError
        When the stream has none.
    """
    header, position = None, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        if marker in _JPEG_FRAMES:
            bits, height, width, parts = struct.unpack_from(">BHHB", data, position + 4)
            colours = "grey" if parts == 1 else "colour"
            header = Header("JPEG", width, height, bits, colours)
        if marker == 0xDA and header is not None:
            return header, position
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    raise Damaged(f"JPEG: {_TRUNCATED}")


def check_scans(data: bytes) -> None:
    """Refuse a JPEG stream of so many scans that decoding takes minutes.

    Raises
    ------
    InputError
        For more than `MAX_SCANS` scans.
    """
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise Damaged(f"JPEG: more than {MAX_SCANS} scans; export the picture again")


def _bmp(data: bytes) -> Header:
    start, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    check_declared_size("BMP", width, height)
    row = (width * bits + 31) // 32 * 4
    if compression in (0, 3) and len(data) < start + row * height:
        raise Damaged(f"BMP: {_TRUNCATED}")
    colours = "palette" if bits <= 8 else "colour"
    return Header("BMP", width, height, 8, colours)
