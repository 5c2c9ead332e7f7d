"""What compressed DICOM pixels would unpack to, before they are decoded."""

from __future__ import annotations

import re
import struct

from hilum.catalog.errors import BadFormat, Damaged

_CODESTREAM = re.compile(rb"\xff\x4f\xff\x51")
"""Start of a JPEG 2000 codestream and its size marker; inside of one it cannot occur."""

_DAMAGED = "DICOM: damaged pixel data; transfer or export the file again"

_PADDED = 64
"""Bytes that an RLE segment may unpack to beyond its pixels."""


def codestream_sizes(stream: bytes) -> set[tuple[int, int]]:
    """Heights and widths of every JPEG 2000 codestream in a frame, behind boxes of JP2 or not.

    Raises
    ------
    InputError
        When there is none, or one is not of a single component.
    """
    sizes: set[tuple[int, int]] = set()
    for match in _CODESTREAM.finditer(stream):
        at = match.start() + 8
        if at + 34 > len(stream):
            raise Damaged(_DAMAGED)
        right, bottom, left, top = struct.unpack_from(">IIII", stream, at)
        (components,) = struct.unpack_from(">H", stream, at + 32)
        if components != 1:
            raise BadFormat("DICOM: compressed pixels of several components; export it in grey")
        sizes.add((bottom - top, right - left))
    if not sizes:
        raise Damaged(_DAMAGED)
    return sizes


def check_rle(stream: bytes, length: int) -> None:
    """Refuse an RLE frame that unpacks to more than `length` bytes.

    Raises
    ------
    InputError
        When it does, or is damaged.
    """
    if len(stream) < 64:
        raise Damaged(_DAMAGED)
    count, *offsets = struct.unpack_from("<16I", stream)
    starts = offsets[: min(count, 15)]
    unpacked = 0
    for start, end in zip(starts, [*starts[1:], len(stream)], strict=True):
        unpacked += _segment(stream, start, min(end, len(stream)))
        if unpacked > length + _PADDED * len(starts):
            raise Damaged("DICOM: RLE pixels unpack to more than declared; export it again")


def _segment(stream: bytes, at: int, end: int) -> int:
    """Bytes that a PackBits segment unpacks to."""
    unpacked = 0
    while at < end:
        count = stream[at]
        if count < 128:
            at, unpacked = at + count + 2, unpacked + count + 1
        elif count > 128:
            at, unpacked = at + 2, unpacked + 257 - count
        else:
            at += 1
    return unpacked
