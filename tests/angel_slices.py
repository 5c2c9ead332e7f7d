"""Slices for the tests of CT-Angel, and what the stand-in networks make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from hilum.catalog import ct_angel as ct
from hilum.postprocessing.ct_angel.boxes import (
    BoxRules,
    SliceFinding,
    assess_slice,
    scale_rectangle,
)
from hilum.preprocessing.ct_angel.square import fit_square
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.systems.ct_angel.result import SliceResult

SIDE = 256
"""Of the stand-ins' input; the lesion network that is served alone has the published 512."""

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def standin(grey: np.ndarray, *, valid: bool = False) -> np.ndarray:
    """What `standins.write_ct_angel` computes, in NumPy: float32 probability."""
    centre, reach = (0.36, 0.12) if valid else (0.7, 0.25)
    bright = grey.astype(np.float32) / np.float32(255)
    near = np.abs(bright - np.float32(centre)) * np.float32(-1 / reach) + np.float32(1)
    low = ndimage.minimum_filter(near, 5, mode="nearest")
    if valid:
        low = np.broadcast_to(low.max(axis=1, keepdims=True), low.shape)
    return np.clip(low, 0, 1)


def expected(
    grey: np.ndarray,
    rules: BoxRules | None = None,
    side: int = SIDE,
    *,
    alone: bool = False,
    threshold: float = ct.THRESHOLD,
) -> SliceFinding:
    """What one windowed slice shows, without server and client."""
    image = fit_square(grey, side)
    probability, valid = standin(image), None
    if not alone:
        valid = (standin(image, valid=True) >= np.float32(ct.THRESHOLD)).astype(np.uint8)
    mask = (probability >= np.float32(threshold)).astype(np.uint8)
    return assess_slice(mask, probability.astype(np.float16), valid, rules)


def assert_same(found: SliceResult, want: SliceFinding, side: int = SIDE) -> None:
    assert [b.box for b in found.boxes] == [x.box for x in want.lesions]
    assert [b.area for b in found.boxes] == [x.area for x in want.lesions]
    assert [b.quadrants for b in found.boxes] == [x.quadrants for x in want.lesions]
    assert [b.mean_probability for b in found.boxes] == [x.mean_probability for x in want.lesions]
    assert [b.box_original for b in found.boxes] == [
        scale_rectangle(x.box, side, found.shape) for x in want.lesions
    ]
    assert (found.valid, found.dropped) == (want.valid, want.dropped)
    assert found.valid_missing == want.valid_missing


BLOBS = {0: (70, 60), 1: (70, 170), 2: (150, 60), 3: (150, 170)}
"""Upper left corners (row, column) of what the stand-in takes for lesions, by quadrant."""


def constructed(flags: Sequence[set[int]], spacing: float = 1.0) -> Volume:
    """Slices of lung with a blob in each flagged quadrant, and a rim of bone and air."""
    voxels = np.full((len(flags), SIDE, SIDE), -850, np.int16)
    voxels[:, :3], voxels[:, -3:] = 400, -1000
    for k, flagged in enumerate(flags):
        for quadrant in flagged:
            row, column = BLOBS[quadrant]
            voxels[k, row : row + 30, column : column + 24] = -530
    geometry = Geometry(voxels.shape, (0.0, 0.0, 0.0), (spacing, 0.7, 0.7), AXES)
    return Volume(voxels, geometry)
