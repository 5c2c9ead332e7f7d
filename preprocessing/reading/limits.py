"""What a file may claim before anything of it is decoded.

No message names the file: a file name may hold a patient's. Who calls knows which file it was.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from hilum.catalog.errors import BadSize, Damaged, Unreadable

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that is read."""

MAX_PIXELS = 2**27
"""Largest number of pixels that a header may declare (a large detector has 2.6 · 10⁷)."""

MAX_SLICES, MAX_VOXELS = 3000, 2**31
"""Slices that a series may have, and voxels that it may declare."""

MAX_FILES = 20_000
"""Files that a folder may hold."""

MAX_MULTIFRAME_BYTES = 2**31
"""Largest file of several frames that is read."""

MAX_SCANS = 64
"""Scans of a JPEG; encoders write up to 14."""

MAX_EXTENSION_BYTES = 2**20
"""Largest header extension of a NIfTI file."""

MAX_UNPACKED_BYTES = 2**31
"""Voxels of a NIfTI file in bytes, and what a compressed one may unpack to: 512 × 512 × 1000 in 64
bits."""

MAX_RATIO, RATIO_FROM = 100, 2**29
"""A volume of more than the second number of bytes is compressed less than so much."""

_PIECE = 2**16
"""Bytes that are unpacked at once."""


def read_bytes(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file after a look at its kind and size.

    Raises
    ------
    InputError
        When it does not exist, is no regular file, is empty, is larger than `limit` bytes, or
        cannot be read.
    """
    try:
        if not path.exists():
            raise Unreadable("no such file; check the path")
        if not path.is_file():
            raise Unreadable("not a file; give the image file itself")
        check_file_size(path.stat().st_size, limit=limit)
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"the file cannot be read ({error.strerror}); check its rights") from None


def inflate(packed: bytes, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Unpack a raw deflate stream, no further than to `limit` bytes.

    Raises
    ------
    InputError
        When it is damaged or truncated, or would unpack to more.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    target = io.BytesIO()
    for at in range(0, len(packed), _PIECE):
        rest = packed[at : at + _PIECE]
        while rest and not unpacker.eof:
            try:
                target.write(unpacker.decompress(rest, limit + 1 - target.tell()))
            except zlib.error:
                raise Damaged("damaged deflated data; transfer or export the file again") from None
            if target.tell() > limit:
                raise BadSize(f"unpacks to more than {limit / 2**20:.0f} MiB; give a single image")
            rest = unpacker.unconsumed_tail
        if unpacker.eof:
            return target.getvalue()
    raise Damaged("truncated deflated data; transfer or export the file again")


def inflated_start(packed: bytes, length: int) -> bytes:
    """The first `length` bytes of what a raw deflate stream holds, or as far as it is sound."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[:length], length)
    except zlib.error:
        return b""


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file; FIFOs, sockets and devices must not even be opened."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_file_size(size: int, *, limit: int = MAX_FILE_BYTES) -> None:
    """Refuse an empty file and one of more than `limit` bytes.

    Raises
    ------
    InputError
        Saying which.
    """
    if size == 0:
        raise Damaged("the file is empty; transfer it again")
    if size > limit:
        raise BadSize(
            f"the file has {size / 2**20:.0f} MiB, more than the limit of {limit / 2**20:.0f} MiB; "
            "give a single image"
        )


def check_crammed(declared: int, size: int) -> None:
    """Refuse a compressed file of `size` bytes that declares far more than volumes ever have.

    Raises
    ------
    InputError
        When more than `RATIO_FROM` bytes are declared, and `MAX_RATIO` times as many as there are.
    """
    if declared > RATIO_FROM and declared > MAX_RATIO * size:
        raise BadSize(
            f"{size / 2**20:.0f} MiB would unpack to {declared / 2**20:.0f} MiB, more than is "
            "unpacked; give a smaller volume or the file uncompressed"
        )


def check_declared_size(kind: str, width: int, height: int) -> None:
    """Refuse a picture by the size in its header, before memory is set aside for it.

    Parameters
    ----------
    kind
        What declares it ("PNG", "DICOM"), for the message.

    Raises
    ------
    InputError
        When a side is not positive or there are more than `MAX_PIXELS` pixels.
    """
    if min(width, height) < 1:
        raise Damaged(
            f"{kind} header: {width} × {height} pixels; the file is damaged, export it again"
        )
    if width * height > MAX_PIXELS:
        raise BadSize(
            f"{kind} header: {width} × {height} pixels, more than the limit of "
            f"{MAX_PIXELS / 1e6:.0f} million; give an image of a usual size"
        )
