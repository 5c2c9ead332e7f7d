"""What a NIfTI file declares and really holds, before nibabel opens it."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

from hilum.catalog.errors import BadFormat, BadSize, Damaged, Unreadable, WrongStudy

from .limits import MAX_EXTENSION_BYTES, MAX_RATIO, MAX_UNPACKED_BYTES, RATIO_FROM

_HEADS = {348: ("h", 2, 40, 72, "f", 108), 540: ("q", 8, 16, 14, "q", 168)}
"""By the header's size: type, size and place of the dimensions, place of the bits of a voxel, type
and place of the offset of the voxels."""

GZIP = b"\x1f\x8b"

_CIFTI = 32
_DAMAGED = "NIfTI: the file is damaged; export it again"


def check_nifti(path: Path) -> None:
    """Refuse a file by what it declares and by its real size; only its header is read.

    Raises
    ------
    InputError
        For a damaged header, voxels that are not all there, a long header extension, extensions
        of CIFTI, and a compressed file that would unpack to gigabytes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(2 * MAX_EXTENSION_BYTES)
    except OSError as error:
        raise Unreadable(f"the file cannot be read ({error.strerror}); check its rights") from None
    packed = start.startswith(GZIP)  # whatever the name says
    head = _unpacked(start) if packed else start
    if len(head) < 352:
        raise Damaged(_DAMAGED)
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", head)[0] in _HEADS), None)
    if order is None:
        raise Damaged(_DAMAGED)
    length = struct.unpack_from(f"{order}i", head)[0]
    kind, _, dims_at, bits_at, offset_kind, offset_at = _HEADS[length]
    if len(head) < length + 4:
        raise Damaged(_DAMAGED)
    count, *dims = struct.unpack_from(f"{order}8{kind}", head, dims_at)
    (bits,) = struct.unpack_from(f"{order}h", head, bits_at)
    (offset,) = struct.unpack_from(f"{order}{offset_kind}", head, offset_at)
    if not 1 <= count <= 7 or not 0 < bits <= 256 or min(dims[:count]) < 1:
        raise Damaged(_DAMAGED)
    if not math.isfinite(offset) or offset < 0:
        raise Damaged(_DAMAGED)
    if offset > length + 4 + MAX_EXTENSION_BYTES:
        raise BadFormat("NIfTI: a header extension above 1 MiB; write the file without it")
    _check_extensions(head, order, length, int(offset))
    declared = int(offset) + math.prod(dims[:count]) * bits // 8
    if not packed and declared > size:
        raise Damaged("NIfTI: fewer voxels than declared: truncated or damaged; transfer it again")
    crammed = declared > RATIO_FROM and declared > MAX_RATIO * size
    if packed and (declared > MAX_UNPACKED_BYTES or crammed):
        raise BadSize(
            f"NIfTI: {size / 2**20:.0f} MiB would unpack to {declared / 2**20:.0f} MiB, more than "
            "is unpacked; give a smaller volume or the file uncompressed"
        )


def _unpacked(start: bytes) -> bytes:
    """The begin of a compressed file, enough for the header and its extensions."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, 2 * MAX_EXTENSION_BYTES)
    except zlib.error:
        raise Damaged(_DAMAGED) from None


def _check_extensions(head: bytes, order: str, length: int, offset: int) -> None:
    at = length + 4
    if not head[length] or offset <= at:
        return
    while at + 8 <= min(offset, len(head)):
        size, code = struct.unpack_from(f"{order}ii", head, at)
        if code == _CIFTI:
            raise WrongStudy("NIfTI: a CIFTI file of surfaces; give a CT volume")
        if size < 8 or at + size > offset:
            raise Damaged(_DAMAGED)
        at += size
