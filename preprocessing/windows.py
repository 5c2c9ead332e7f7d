"""From Hounsfield units to the 8 bits of a picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.ct_angel import JPEG_QUALITY
from hilum.catalog.errors import BadOption, InputError
from hilum.catalog.terms import AIR_HU, Window

from .arrays import Array, namespace

LUNG_WINDOW = Window(1500, -600)
"""The usual window to show lungs in."""


def ct_angel_window(hu: Array, window: Window) -> Array:
    """Window as CT-Angel does: truncate towards zero, then clip (spec ct-angel §3.1).

    Parameters
    ----------
    hu
        Integers of any shape, NumPy or CuPy.

    Returns
    -------
    uint8, of the same shape.

    Raises
    ------
    InputError
        For a window whose width is not positive.
    """
    xp = namespace(hu)
    _check(window)
    low = (2 * window.level - window.width) / 2 + 0.5
    high = (2 * window.level + window.width) / 2 + 0.5
    # One lookup instead of float64 arithmetic for each pixel.
    levels = np.trunc((np.arange(-(2**15), 2**15) - low) * (255 / (high - low)))
    table = xp.asarray(np.clip(levels, 0, 255).astype(np.uint8))
    return table[xp.astype(hu, xp.int32) + 2**15]


def display_window(hu: Array, window: Window = LUNG_WINDOW) -> Array:
    """Window for the eye: from black at level − width/2 to white at level + width/2, rounded.

    Parameters
    ----------
    hu
        Of any real type and shape, NumPy or CuPy.

    Returns
    -------
    uint8, of the same shape.

    Raises
    ------
    InputError
        For a window whose width is not positive.
    """
    xp = namespace(hu)
    _check(window)
    low = window.level - window.width / 2
    scaled = (xp.astype(hu, xp.float32) - low) * (255 / window.width)
    return xp.astype(xp.clip(xp.round(scaled), 0, 255), xp.uint8)


def jpeg_roundtrip(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write a grey picture as JPEG and read it back, as the published recipe does.

    Parameters
    ----------
    image
        uint8 [H, W].

    Returns
    -------
    uint8 [H, W].
    """
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded: Any = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if encoded else None
    if decoded is None:
        raise InputError(f"picture {list(image.shape)} cannot be written as JPEG; leave JPEG out")
    return decoded


def padding_to_air(hu: Array) -> Array:
    """Raise everything below −1024 HU to it: what lies outside the scanner's field of view."""
    return namespace(hu).maximum(hu, AIR_HU)


def doubts_about_hu(low: int, high: int) -> str | None:
    """Say why values in `low`…`high` can hardly be a chest CT in HU; None when they can.

    Spec ct-classifier §10 no. 4.
    """
    if low > -500 or high < 100:
        return (
            f"values from {low} to {high} are hardly Hounsfield units of a chest CT; "
            "the results mean nothing if the input was made from a picture"
        )
    return None


def _check(window: Window) -> None:
    if not (np.isfinite([window.width, window.level]).all() and window.width > 0):
        raise BadOption(
            f"window width {window.width}, level {window.level}: give numbers in HU, the width "
            "above 0"
        )
