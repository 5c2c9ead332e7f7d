"""Chest CTs to train on: synthetic ones on DLPE's grid, scanned by many scanners.

Patients differ in arms and table, fine and coarse trees; each slice is drawn again with another
noise, reconstruction kernel, calibration and extent of the scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hilum.catalog import dlpe as catalog
from hilum.preprocessing.phantoms.ct import Trees, chest_ct

LUNG, AIRWAY, VESSEL, LESION = 1, 2, 4, 8
CHANNELS = {"airway2": (16, 32), "vessel2": (64, 128)}
"""Bits of the labels; of the channels of stage two: high recall and high precision."""

AIR_HU, ARM_HU, BONE_HU = -1000, 40, 400


@dataclass(frozen=True, slots=True)
class Chest:
    """A CT on DLPE's grid; arrays [x, y, z].

    Attributes
    ----------
    hu
        int16, without noise.
    labels
        uint8, bits as above.
    healthy
        Median of the lungs without trees and lesions, in HU.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    healthy: float


def chest(seed: int, side: int) -> Chest:
    """Make a chest on a grid of `side`³ that covers DLPE's field."""
    rng = np.random.default_rng([seed, 20220722])
    field = catalog.FIELD_MM
    trees = Trees(
        float(rng.uniform(5.6, 7.6)), int(rng.integers(5, 7)), float(rng.uniform(1.05, 1.3))
    )
    made = chest_ct(
        int(rng.integers(2**62)),
        slices=side,
        size=side,
        spacing=(field[2] / side, field[0] / side, field[1] / side),
        lesions=int(rng.integers(3, 12)),
        noise=0,
        trees=trees,
    )
    voxels = made.volume.voxels
    _arms(voxels, rng)
    lung, airway, vessel, lesion = (
        _normal(m > 0) for m in (made.lung, made.airway, made.vessel, made.lesion)
    )
    hu = _normal(voxels)
    labels = lung * LUNG | airway * AIRWAY | vessel * VESSEL | lesion * LESION
    labels = labels.astype(np.uint8)
    for truth, task, tree in (
        (airway, "airway2", catalog.AIRWAY),
        (vessel, "vessel2", catalog.VESSEL),
    ):
        for mask, bit in zip(_stage_one(truth, lung, tree, rng), CHANNELS[task], strict=True):
            labels |= (mask * bit).astype(np.uint8)
    return Chest(hu, labels, float(np.median(hu[lung & ~airway & ~vessel & ~lesion])))


def chests(
    seed: int, count: int, side: int, progress: Callable[[int, int], None] | None = None
) -> list[Chest]:
    """Make `count` chests of as many patients."""
    made = []
    for k in range(count):
        made.append(chest(1_000 * seed + k, side))
        if progress is not None:
            progress(k + 1, count)
    return made


def scanned(
    hu: NDArray[Any], rng: np.random.Generator, *, strength: float = 1.0
) -> NDArray[np.float32]:
    """Slices [N, H, W] as a scanner gives them: noise and kernel; float32 HU.

    All slices share noise level, kernel and calibration; the noise itself is each one's own.
    """
    sigma = float(rng.uniform(4, 45)) * strength
    grain = float(rng.uniform(0.3, 1.0))
    sharpen = float(rng.choice([0.0, rng.uniform(0, 0.8)]))
    smooth = float(rng.choice([0.0, rng.uniform(0.3, 0.8)]))
    scale, offset = rng.normal(1, 0.006 * strength), rng.normal(0, 8 * strength)
    out = np.empty(hu.shape, np.float32)
    for plane, target in zip(hu, out, strict=True):
        image = plane.astype(np.float32) * np.float32(scale) + np.float32(offset)
        if smooth:
            image = cv2.GaussianBlur(image, (0, 0), smooth)
        if sharpen:
            image += np.float32(sharpen) * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
        noise = cv2.GaussianBlur(rng.standard_normal(plane.shape, np.float32), (0, 0), grain)
        target[:] = image + noise * np.float32(sigma / (noise.std() + 1e-6))
    return np.clip(out, -1024, 3071)


def _stage_one(
    truth: NDArray[np.bool_], lung: NDArray[np.bool_], tree: catalog.Tree, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """About what stage one gives: scores around the truth, cut at the published ranks."""
    score = ndimage.gaussian_filter(truth.astype(np.float32), float(rng.uniform(0.6, 1.4)))
    coarse = rng.random([s // 4 for s in truth.shape], np.float32)
    unsure = np.asarray(ndimage.zoom(coarse, 4, order=1), np.float32)
    score += unsure * np.float32(rng.uniform(0.1, 0.4))
    # In the lungs' box only, as the ranks are; the trachea above passes with it.
    kept = score[tuple(slice(v.min(), v.max()) for v in np.nonzero(lung))]
    count = lung.sum()
    ranks = [min(int(count * r), kept.size - 1) for r in (tree.high_recall, tree.high_precision)]
    flat = np.partition(kept, [kept.size - 1 - r for r in ranks], axis=None)
    recall, precision = (score > flat[kept.size - 1 - r] for r in ranks)
    return recall, precision


def _arms(voxels: NDArray[np.int16], rng: np.random.Generator) -> None:
    """Lay arms beside the body in some patients, where there is air: voxels [z, y, x]."""
    if rng.random() < 0.5:
        return
    rows, columns = voxels.shape[1:]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    for side in (0, 1):
        cx, cy = (side + (0.5 - side) * 0.1) * columns, rng.uniform(0.35, 0.7) * rows
        distance = np.hypot(x - cx, y - cy) / columns
        voxels[(voxels < -400) & (distance < 0.09) & (distance >= 0.03)] = ARM_HU
        voxels[(voxels < -400) & (distance < 0.03)] = BONE_HU


def _normal(array: NDArray[Any]) -> NDArray[Any]:
    """[z, y, x] in LPS order → [x, y, z] of normalised space."""
    return np.ascontiguousarray(array.transpose(1, 2, 0))
