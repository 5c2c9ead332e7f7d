"""Synthetic chest CT slices, to fit random weights to and to compare exports on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import lungmask

AIR, LUNG, TISSUE, BONE, LESION = -1000, -850, 40, 400, -350
"""HU of what a slice is made of."""


@dataclass(frozen=True, slots=True)
class Slice:
    """An axial slice, row 0 anterior, column 0 patient right.

    Attributes
    ----------
    hu
        int16 [S, S].
    lung
        uint8 [S, S], labels of `catalog.lungmask`.
    lesion
        bool [S, S].
    """

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    lesion: NDArray[np.bool_]


def synthetic_slice(seed: int, side: int, *, lesions: int) -> Slice:
    """A body with two lungs, a spine, vessels and `lesions` blurred opacities, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side

    def ellipse(cy: float, cx: float, ry: float, rx: float) -> NDArray[np.float64]:
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2

    body = ellipse(0.5, 0.5, 0.34 + 0.04 * rng.random(), 0.44 + 0.03 * rng.random()) < 1
    height = 0.20 + 0.05 * rng.random()
    lung = np.zeros((side, side), np.uint8)
    for label, centre in ((lungmask.RIGHT, 0.29), (lungmask.LEFT, 0.71)):
        outline = ellipse(0.49 + 0.02 * rng.random(), centre, height, 0.13 + 0.02 * rng.random())
        lung[outline < 1] = label
    hu = np.where(body, float(TISSUE), float(AIR))
    hu[ellipse(0.74, 0.5, 0.05, 0.05) < 1] = BONE
    hu[lung > 0] = LUNG + 80 * (y[lung > 0] - 0.5)
    inside = np.argwhere(lung > 0) / side
    for cy, cx in inside[rng.integers(len(inside), size=60)]:
        hu[(ellipse(cy, cx, 0.006, 0.006) < 1) & (lung > 0)] = TISSUE
    lesion = np.zeros((side, side), bool)
    for cy, cx in inside[rng.integers(len(inside), size=lesions)]:
        radius = ellipse(cy, cx, 0.03 + 0.04 * rng.random(), 0.03 + 0.04 * rng.random())
        strength = np.clip(1.6 - radius, 0, 1) * (lung > 0)
        hu += strength * np.maximum(LESION - hu, 0)
        lesion |= strength > 0.5
    noise = rng.normal(0, 25, hu.shape)
    return Slice(np.clip(hu + noise, -1024, 3071).round().astype(np.int16), lung, lesion)
