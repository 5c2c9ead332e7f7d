"""Chest X-rays from PNG, JPEG, BMP and DICOM files, and from arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.cxr_severity import MIN_SIDE
from hilum.catalog.errors import BadFormat, BadSize, Damaged, WrongStudy
from hilum.catalog.terms import Mode

from .ct_headers import made_of_images
from .dicom import is_dicom
from .dicom_xray import read_dicom_xray
from .image_headers import Header, read_header
from .levels import percentile_range, stretch, to_u8
from .limits import check_declared_size, check_file_size, is_regular, read_bytes
from .wholeness import jpeg_is_whole

Decoded = tuple[NDArray[np.uint8], tuple[str, ...]]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".dcm", ".dicom"})
"""Endings of the files in a folder that are X-rays; others are only when they are DICOM."""

_DICOM_HEAD = 1024
"""Bytes that show whether a file is DICOM."""


@dataclass(frozen=True, slots=True)
class XRay:
    """A chest X-ray of 8 bits.

    Attributes
    ----------
    pixels
        uint8 [H, W, 3]. Parity: blue, green, red. Corrected: one grey plane three times. Grey
        pictures are a read-only view of one plane in both.
    decode
        What was done to the file, human-readable.
    """

    pixels: NDArray[np.uint8]
    decode: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_xray(source: Path | str | bytes | NDArray[Any], *, mode: Mode = "parity") -> XRay:
    """Read a frontal chest X-ray.

    Parameters
    ----------
    source
        A PNG, JPEG, BMP or DICOM file, its content, or an array: uint8 or uint16, [H, W], or
        [H, W, 3] in the order blue, green, red. The kind of a file is found by its content.
    mode
        ``"parity"`` decodes as the published program does: of 16 bits the high byte, channels blue,
        green, red. ``"corrected"`` stretches the real range of 16-bit pictures and replicates
        one luminance plane. DICOM is decoded alike in both (spec cxr §4).

    Raises
    ------
    InputError
        For a file that is missing, too large, damaged, truncated, or no chest X-ray; for a picture
        that is constant or whose shorter side is below `MIN_SIDE` pixels. No message names the
        file or quotes its content.
    """
    if isinstance(source, np.ndarray):
        pixels, steps = decode_array(source, mode)
    else:
        data = source if isinstance(source, bytes) else read_bytes(Path(source))
        pixels, steps = decode(data, mode)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise BadSize(
            f"{width} × {height} pixels: too small for a chest X-ray; give one whose shorter side "
            f"has {MIN_SIDE} pixels or more"
        )
    if pixels.min() == pixels.max():
        raise WrongStudy("all pixels have the same value; there is no X-ray in the picture")
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (height, width, 3))
    return XRay(pixels, steps)


def is_xray_file(path: Path, below: Path) -> bool:
    """Whether a file found in a folder is to be read: by its name, or as DICOM by its content.

    Reports, segmentations and DICOM results of Hilum's own are none. As published, folders called
    ``mask`` are passed over (spec cxr §4). Hidden files and DICOMDIR are, too.

    Parameters
    ----------
    path, below
        The file, relative to the folder `below`.
    """
    if any(part.startswith(".") or part.lower() == "mask" for part in path.parts):
        return False
    file = below / path
    if path.name.upper() == "DICOMDIR" or not is_regular(file):
        return False
    try:
        with file.open("rb") as content:
            dicom = is_dicom(content.read(_DICOM_HEAD))
    except OSError:
        dicom = False  # one that is to be read by its name fails later, and someone hears of it
    if dicom:
        return not made_of_images(file)
    return path.suffix.lower() in SUFFIXES


def decode(data: bytes, mode: Mode) -> Decoded:
    """Decode the content of a file.

    Returns
    -------
    uint8 [H, W] for a grey picture, else uint8 [H, W, 3] in the order blue, green, red; and what
    was done.

    Raises
    ------
    InputError
        For a file that is empty, too large, of another kind, damaged or truncated.
    """
    check_file_size(len(data))
    header = read_header(data)
    if header is None:
        if is_dicom(data):
            return read_dicom_xray(data)
        raise BadFormat("neither PNG, JPEG, BMP nor DICOM; give the X-ray in one of these formats")
    if mode == "parity":
        return _decode_parity(data, header)
    return _decode_corrected(data, header)


def decode_array(array: NDArray[Any], mode: Mode) -> Decoded:
    """Bring an array to 8 bits; see `read_xray` for its layout and `decode` for the result.

    Raises
    ------
    InputError
        For another element type or shape.
    """
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype not in (np.uint8, np.uint16) or not (array.ndim == 2 or colour):
        raise BadFormat(
            f"array {array.dtype} {list(array.shape)}; give uint8 or uint16, [H, W] or [H, W, 3]"
        )
    check_declared_size("array", array.shape[1], array.shape[0])
    bits = array.dtype.itemsize * 8
    first = f"array, {bits}-bit {'colour' if colour else 'grey'}"
    if mode == "corrected":
        return _to_plane(array, (first,), full_range=False)
    if bits == 16:
        return (array >> 8).astype(np.uint8), (f"{first}, high byte",)
    return array, (first,)


def _decode_parity(data: bytes, header: Header) -> Decoded:
    """Decode as OpenCV's default colour read does: 8 bits, blue, green, red, no alpha."""
    # A grey file gives three equal channels; one is enough, and three times faster.
    flag = cv2.IMREAD_GRAYSCALE if header.colours == "grey" else cv2.IMREAD_COLOR
    steps = [_name(header), *(["high byte"] if header.bits == 16 else [])]
    return _imdecode(data, header, flag), (", ".join(steps),)


def _decode_corrected(data: bytes, header: Header) -> Decoded:
    flag = cv2.IMREAD_GRAYSCALE if header.colours == "grey" else cv2.IMREAD_COLOR
    image = _imdecode(data, header, flag | cv2.IMREAD_ANYDEPTH)
    return _to_plane(image, (_name(header),), full_range=header.full_range)


def _to_plane(image: NDArray[Any], steps: tuple[str, ...], *, full_range: bool) -> Decoded:
    """One luminance plane of 8 bits."""
    if image.ndim == 3:
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
        steps = (*steps, "luminance")
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False), steps
    counts = np.bincount(image.ravel(), minlength=2**16)
    levels = np.arange(2**16)
    if full_range:
        low, high = 0.0, 65535.0
        steps = (*steps, "full 16-bit range, as declared")
    else:
        low, high = percentile_range(levels, counts)
        steps = (*steps, f"0.5th to 99.5th percentile, {low:g} to {high:g}")
    return to_u8(stretch(levels, low, high))[image], steps


def _imdecode(data: bytes, header: Header, flag: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise Damaged(f"{header.kind}: damaged, it cannot be decoded; export the picture again")
    if sorted(image.shape[:2]) != sorted((header.height, header.width)):
        raise Damaged(f"{header.kind}: decoded to another size than declared; export it again")
    if header.kind == "JPEG" and not jpeg_is_whole(data, image, flag):
        raise Damaged("JPEG: the file is truncated; transfer or export it again")
    return image


def _name(header: Header) -> str:
    return f"{header.kind}, {header.bits}-bit {header.colours}"
