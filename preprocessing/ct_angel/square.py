"""Bringing 8-bit slices of any size to the square that a network takes."""

from __future__ import annotations

from ..arrays import Array, namespace
from ..resize import resize_bilinear_u8


def fit_square(image: Array, side: int) -> Array:
    """Pad a slice to a square and resize it.

    Parameters
    ----------
    image
        uint8 [H, W], NumPy or CuPy.
    side
        Of the result.

    Returns
    -------
    uint8 [side, side]: the slice at the upper left with its aspect ratio kept, black beside it;
    bilinear without antialiasing, and untouched when it has the size already (spec ct-angel §3.3
    and §10 P8).
    """
    xp = namespace(image)
    height, width = image.shape
    full = max(height, width)
    if height != width:
        padded = xp.zeros((full, full), dtype=image.dtype)
        padded[:height, :width] = image
        image = padded
    return image if full == side else resize_bilinear_u8(image, (side, side))
