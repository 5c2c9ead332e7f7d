"""What a file may claim before anything of it is decoded.

No message names the file: a file name may hold a patient's. Who calls knows which file it was.
"""

from __future__ import annotations

from pathlib import Path

from ..catalog.errors import InputError

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that is read."""

MAX_PIXELS = 2**27
"""Largest number of pixels that a header may declare (a large detector has 2.6 · 10⁷)."""


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
            raise InputError("no such file; check the path")
        if not path.is_file():
            raise InputError("not a file; give the image file itself")
        check_file_size(path.stat().st_size, limit=limit)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror}); check its rights") from None


def check_file_size(size: int, *, limit: int = MAX_FILE_BYTES) -> None:
    """Refuse an empty file and one of more than `limit` bytes.

    Raises
    ------
    InputError
        Saying which.
    """
    if size == 0:
        raise InputError("the file is empty; transfer it again")
    if size > limit:
        raise InputError(
            f"the file has {size / 2**20:.0f} MiB, more than the limit of {limit / 2**20:.0f} MiB; "
            "give a single image"
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
        raise InputError(
            f"{kind} header: {width} × {height} pixels; the file is damaged, export it again"
        )
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{kind} header: {width} × {height} pixels, more than the limit of "
            f"{MAX_PIXELS / 1e6:.0f} million; give an image of a usual size"
        )
