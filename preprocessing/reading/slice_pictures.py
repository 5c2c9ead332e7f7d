"""CT slices as 8-bit pictures, ready in a lung window: PNG and JPEG, for CT-Angel alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import BadFormat, BadSize, Damaged

from .image_headers import read_header
from .limits import read_bytes
from .wholeness import jpeg_is_whole

MIN_SIDE, MAX_SIDE = 64, 4096
"""Sides in pixels that a slice may have."""


@dataclass(frozen=True, slots=True)
class SlicePicture:
    """A windowed CT slice.

    Attributes
    ----------
    pixels
        uint8 [H, W].
    notes
        What was done to it, human-readable.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def is_slice_picture(path: Path) -> bool:
    """Tell whether a path is a file whose content begins as PNG, JPEG or BMP."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError:
        return False
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"))


def read_slice_picture(path: Path) -> SlicePicture:
    """Read a slice that is a grey picture of 8 bits.

    Raises
    ------
    InputError
        For a file that is missing, damaged, truncated, of more than 8 bits, or of an unusual size.
    """
    data = read_bytes(path)
    header = read_header(data)
    if header is None:
        raise BadFormat("neither PNG, JPEG nor BMP; give the slice in one of these formats")
    if header.bits > 8:
        raise BadFormat(
            f"{header.kind} of {header.bits} bits: the window is unknown; give the slice as DICOM "
            "or NIfTI, or as a picture of 8 bits in a lung window"
        )
    sides = sorted((header.width, header.height))
    if sides[0] < MIN_SIDE or sides[1] > MAX_SIDE:
        raise BadSize(
            f"{header.width} × {header.height} pixels: give a slice of {MIN_SIDE} to {MAX_SIDE}"
        )
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise Damaged(f"{header.kind}: damaged, it cannot be decoded; export the picture again")
    if header.kind == "JPEG" and not jpeg_is_whole(data, image, cv2.IMREAD_COLOR):
        raise Damaged("JPEG: the file is truncated; transfer or export it again")
    notes = [f"{header.kind}, {header.bits}-bit {header.colours}"]
    plane = np.ascontiguousarray(image[:, :, 0])
    if (image != plane[:, :, None]).any():
        plane = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        notes.append("coloured: reduced to luminance")
    if plane.shape[0] != plane.shape[1]:
        notes.append(f"not square ({plane.shape[1]} × {plane.shape[0]})")
    return SlicePicture(plane, tuple(notes))
