"""X-rays to train on: a pool of synthetic chests, and every one of them seen differently each time.

A network that sees only the drawing learns the drawing. So each picture is turned, stretched and
warped, exposed like another detector's, and crossed by lines, tubes and letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog import cxr_severity as catalog
from hilum.preprocessing.phantoms.xray import chest_xray

from . import xray_artefacts

SIDE = catalog.FRAME
HEALTHY = 0.3
"""Share of synthetic X-rays without disease."""

LUNG, DISEASE, UNKNOWN = 1, 2, 4
"""Bits of the labels; where nobody drew a mask, all is unknown."""


@dataclass(frozen=True, slots=True)
class Xrays:
    """Square X-rays with their truth.

    Attributes
    ----------
    pixels
        Grey, uint8 [N, 512, 512].
    labels
        Bits LUNG, DISEASE and UNKNOWN, uint8 [N, 512, 512].
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)


def synthetic(seed: int, count: int, progress: Callable[[int, int], None] | None = None) -> Xrays:
    """Draw `count` chests of several formats, squeezed to squares as the pipeline does it."""
    pixels = np.empty((count, SIDE, SIDE), np.uint8)
    labels = np.empty_like(pixels)
    for k in range(count):
        rng = np.random.default_rng([seed, k, 1])
        severity = 0.0 if rng.random() < HEALTHY else float(rng.uniform(0.05, 1))
        width = int(rng.uniform(0.95, 1.25) * SIDE)
        made = chest_xray(int(rng.integers(2**62)), height=SIDE, width=width, severity=severity)
        pixels[k] = cv2.resize(made.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        truth = made.lung * LUNG + made.disease * DISEASE
        labels[k] = cv2.resize(truth, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        if progress is not None:
            progress(k + 1, count)
    return Xrays(pixels, labels)


def varied(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    side: int = SIDE,
    strength: float = 1.0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One X-ray and its labels [512, 512] seen another way, both uint8 [side, side].

    Parameters
    ----------
    strength
        Of turns, stretches and warps: 0 leaves the geometry alone.
    """
    columns, rows = _warp(rng, strength, side, pixels.shape[0])
    picture = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderValue=(0,))
    truth = np.asarray(
        cv2.remap(labels, columns, rows, cv2.INTER_NEAREST, borderValue=(0,)), np.uint8
    )
    grey = picture.astype(np.float32) / 255
    grey = xray_artefacts.film(grey, rng)
    if rng.random() < 0.5:
        xray_artefacts.devices(grey, rng)
    if rng.random() < 0.4:
        xray_artefacts.letters(grey, rng)
    if rng.random() < 0.3:
        xray_artefacts.collimation(grey, rng)
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8), truth


def _warp(
    rng: np.random.Generator, strength: float, side: int, source: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where each pixel comes from: columns and rows, float32 [side, side]."""
    angle = np.deg2rad(rng.normal(0, 6 * strength))
    scale = np.exp(rng.normal(0, 0.09 * strength, 2))
    shear, shift = rng.normal(0, 0.04 * strength), rng.normal(0, 0.035 * strength, 2)
    mirror = -1 if strength and rng.random() < 0.5 else 1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[scale[0] * mirror, shear], [0, scale[1]]])
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = (x + 0.5) / side - 0.5, (y + 0.5) / side - 0.5
    columns = matrix[0, 0] * x + matrix[0, 1] * y + shift[0]
    rows = matrix[1, 0] * x + matrix[1, 1] * y + shift[1]
    for plane in (columns, rows):
        coarse = rng.normal(0, 0.012 * strength, (5, 5)).astype(np.float32)
        plane += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    columns, rows = ((p + 0.5) * source - 0.5 for p in (columns, rows))
    return columns.astype(np.float32), rows.astype(np.float32)
