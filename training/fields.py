"""What a CT shows of a patient: size in the field, thick slices, and the part that was scanned."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PADDING_HU, AIR_HU = 0.0, -1024.0
"""What lies outside a scan: as the pipeline fills it, and as scanners do."""

ZOOM, STRETCH, SHIFT = (0.75, 1.12), 0.06, 0.06
"""Size of the patient, its spread by axis, and how far from the middle, as a share of the side."""

THICK = 4.0
"""Thickest slices, as voxels of the grid."""

WITHOUT_LUNG = 0.3
"""How deep what was not scanned reaches into a slice without lung, as a share of its side."""

INTO_LUNG = 0.03
"""How deep it reaches into the lungs at most."""

Planes = NDArray[np.float32]


def seen(
    hu: Planes, lung: NDArray[np.bool_], axis: int, rng: np.random.Generator
) -> tuple[Planes, NDArray[np.bool_]]:
    """Show slices as one CT does.

    Parameters
    ----------
    hu
        Neighbouring slices [N, H, W] across `axis` of a volume [x, y, z], in HU.
    lung
        Of the middle one, [H, W].

    Returns
    -------
    The slices, and where the lungs are; lungs that were not scanned are none.
    """
    fill = float(rng.choice([PADDING_HU, AIR_HU]))
    planes, lung = _placed(hu, lung, fill, rng)
    if axis != 2:  # the last axis is z
        planes = thick(planes, rng)
    for along in (0, 1):
        high = axis != 2 and along == 1
        for flip in (False, True):
            if rng.random() < (0.7 if high else 0.25):
                depth = int(rng.uniform() * _room(lung, along, flip))
                whole = np.moveaxis(planes, along + 1, 0)
                (whole[::-1] if flip else whole)[:depth] = fill
                mask = np.moveaxis(lung, along, 0)
                (mask[::-1] if flip else mask)[:depth] = False
    return planes, lung


def _placed(
    hu: Planes, lung: NDArray[np.bool_], fill: float, rng: np.random.Generator
) -> tuple[Planes, NDArray[np.bool_]]:
    """Make the patient smaller or larger, and move it."""
    size = np.array(lung.shape[::-1])
    zoom = rng.uniform(*ZOOM) * rng.uniform(1 - STRETCH, 1 + STRETCH, 2)
    shift = size * ((1 - zoom) / 2 + rng.uniform(-SHIFT, SHIFT, 2))
    matrix = np.array([[zoom[0], 0, shift[0]], [0, zoom[1], shift[1]]])
    shape = (int(size[0]), int(size[1]))
    planes = [cv2.warpAffine(p, matrix, shape, borderValue=(fill,)) for p in hu]
    mask = cv2.warpAffine(lung.astype(np.float32), matrix, shape)
    return np.stack(planes).astype(np.float32), np.asarray(mask > 0.5)


def thick(planes: Planes, rng: np.random.Generator) -> Planes:
    """Average slices [N, H, W] along the last axis as thick slices do, and resample them."""
    voxels = float(rng.uniform(1, THICK))
    high, wide = planes.shape[1:]
    count = max(8, round(wide / voxels))
    return np.stack(
        [
            cv2.resize(cv2.resize(p, (count, high), interpolation=cv2.INTER_AREA), (wide, high))
            for p in planes
        ]
    )


def _room(lung: NDArray[Any], along: int, flip: bool) -> int:
    """How deep what was not scanned can reach from one edge."""
    rows = np.flatnonzero(lung.any(axis=1 - along))
    length = lung.shape[along]
    if not len(rows):
        return int(WITHOUT_LUNG * length)
    before = length - 1 - int(rows[-1]) if flip else int(rows[0])
    return before + int(INTO_LUNG * length)
