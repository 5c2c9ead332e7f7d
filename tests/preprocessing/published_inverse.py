"""The published program's way from normalised space back to a scan (spec dlpe §3.3).

Only a reference: the product's `to_source` inverts the map exactly.
"""

from __future__ import annotations

import math

import numpy as np

from hilum.catalog.dlpe import FIELD_MM
from hilum.preprocessing.dlpe.grid import shortened
from hilum.preprocessing.dlpe.resample import linear_row, published_taps
from hilum.preprocessing.reading.volume import Triple


def published_inverse(
    array: np.ndarray,
    shape: tuple[int, int, int],
    spacing: Triple,
    *,
    field_mm: Triple = FIELD_MM,
) -> np.ndarray:
    """Map a volume back linearly, masks too, a voxel off at times.

    Parameters
    ----------
    array
        [x, y, z] in normalised space.
    shape, spacing
        Rows, columns and slices of the scan, as many rows as columns, and their distance in mm.
    field_mm
        What `array` covers.

    Returns
    -------
    float32 [row, column, slice] in the order of the published program; masks are fractional.
    """
    taps = []
    used = shortened(shape[2], spacing)
    for length, step, size, field in zip(shape, used, array.shape, field_mm, strict=True):
        span = max(1, math.trunc(step * length / (field / size)))
        taps.append(published_taps(size, size // 2 - span // 2, span, length))
    rows, columns, planes = taps
    on_host = rows, columns.on(np), planes.on(np)
    return np.stack([linear_row(array, on_host, row, 0.0) for row in range(shape[0])])
