"""The published picture of a slice: masks added to grey values in pure colours (spec dlpe §10).

Pictures are float32 in [0, 1]: grey [H, W, …], coloured [H, W, …, 3]. Nothing is rounded before
`to_8_bits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]

Letter = Literal["R", "G", "B", "Y", "A", "P"]
"""Red, green, blue, yellow, azure, purple."""

SIGNS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "R": (1, -1, -1),
        "G": (-1, 1, -1),
        "B": (-1, -1, 1),
        "Y": (1, 1, -1),
        "A": (-1, 1, 1),
        "P": (1, -1, 1),
    }
)
"""For red, green and blue: whether a colour adds the mask to the channel or takes it away."""


def coloured(grey: Picture) -> Picture:
    """A grey picture [H, W, …] as [H, W, …, 3]."""
    return np.repeat(np.asarray(grey, np.float32)[..., None], 3, axis=-1)


def paint(
    picture: Picture, mask: NDArray[Any], colour: Letter, *, transparency: float = 0.0
) -> Picture:
    """Paint a mask over a picture.

    Parameters
    ----------
    picture
        [H, W, …, 3].
    mask
        [H, W, …]; 0 leaves the picture alone, 1 gives the pure colour.
    transparency
        The mask counts 1 − `transparency`.
    """
    strength = np.asarray(mask, np.float32)[..., None] * np.float32(1 - transparency)
    return np.clip(picture + strength * np.array(SIGNS[colour], np.float32), 0, 1)


def beside(
    grey: Picture, mask: NDArray[Any], colour: Letter, *, transparency: float = 0.0
) -> Picture:
    """Put a grey picture and its overlay side by side: [H, W, …] → [H, 2 W, …, 3]."""
    plain = coloured(grey)
    return np.concatenate([plain, paint(plain, mask, colour, transparency=transparency)], axis=1)


def further(
    pair: Picture, mask: NDArray[Any], colour: Letter, *, transparency: float = 0.0
) -> Picture:
    """Paint another mask [H, W, …] over the right half of what `beside` made.

    The later colour wins where masks overlap.
    """
    middle = pair.shape[1] // 2
    right = paint(pair[:, middle:], mask, colour, transparency=transparency)
    return np.concatenate([pair[:, :middle], right], axis=1)


def ct_grey(values: NDArray[np.float32]) -> Picture:
    """Grey of normalised CT values: −1400 HU is black, 200 HU white."""
    return np.clip(values + np.float32(0.5), 0, 1)


def enhanced_grey(values: NDArray[np.float32]) -> Picture:
    """Grey of enhanced values: 40 HU below the baseline is black, 280 HU above it white."""
    return np.float32(5) * np.clip(values + np.float32(0.025), 0, np.float32(0.2))


def panels(
    ct: NDArray[np.float32],
    vessel: NDArray[np.uint8],
    airway: NDArray[np.uint8],
    enhanced: NDArray[np.float32],
) -> Picture:
    """Put three panels of a slice side by side: [H, W] each → [H, 3 W, 3].

    On the left the CT, in the middle vessels in red and airways in blue over it, on the right the
    enhanced slice.
    """
    pair = further(beside(ct_grey(ct), vessel, "R"), airway, "B")
    return np.concatenate([pair, coloured(enhanced_grey(enhanced))], axis=1)


def to_8_bits(picture: Picture) -> NDArray[np.uint8]:
    """Round [0, 1] to 0…255."""
    return np.rint(picture * np.float32(255)).astype(np.uint8)
