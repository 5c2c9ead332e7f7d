"""Six lung zones, their diseased shares, and the severity score (spec cxr §8).

Everything happens in the crop frame: the crop around both lungs, stretched to 512 × 512. Each lung
is cut along rows into three zones of equal area, counted from the bottom; left and right are those
of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.cxr_severity import FRAME, LOW_LUNG_AREA, MASK_THRESHOLD, NO_SCORE, Flag
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, to_host
from hilum.preprocessing.resize import resize_bilinear, resize_bilinear_u8

from .components import Components, components
from .lung_pair import LungRegion, find_pair
from .lungs import mode_name
from .metrics import severity_score

_NO_AREA = 1e-14
"""Divisor for an empty zone in parity mode."""


def zones_step(
    *,
    lung: Array,
    box: Array,
    disease: Array,
    ungated: Array,
    probability: Array,
    zone_threshold: Array,
    mode: Array,
) -> dict[str, NDArray[Any]]:
    """Cut, measure and score one image: the step ``cxr_zones`` of the catalog.

    Parameters
    ----------
    lung
        uint8 [L, L], cleaned lung mask, 0 or 1.
    box
        int32 [4], the crop in `lung`: left, top, right, bottom; right and bottom excluded.
    disease, ungated
        uint8 [512, 512], disease mask in the crop frame after and before the gate.
    probability
        float32 [1], image-level probability of disease.
    zone_threshold
        float64 [1].
    mode
        uint8 [1], 0 parity, 1 corrected.

    Returns
    -------
    ``score`` int32 [1], ``fractions`` and ``fractions_ungated`` float64 [6], ``lung512`` uint8
    [512, 512], ``gated`` bool [1], ``flags`` uint8 [1], ``lung_area`` int32 [1]. Without lungs
    the score is 0 in parity mode and −1 (none) in corrected mode; the flag NO_LUNG is set.
    """
    chosen, lung, box = mode_name(mode), to_host(lung), to_host(box)
    lung512 = crop_lung(lung, box, mode=chosen)
    found = components(lung512)
    pair = find_pair(found, mode=chosen, box=box, side=lung.shape[1])
    fractions = zone_fractions(pair, to_host(disease), mode=chosen)
    area = int(np.count_nonzero(lung))
    score = severity_score(fractions, float(zone_threshold[0]))
    if chosen == "corrected" and len(found) == 0:
        score = NO_SCORE
    return {
        "score": np.array([score], np.int32),
        "fractions": fractions,
        "fractions_ungated": zone_fractions(pair, to_host(ungated), mode=chosen),
        "lung512": lung512,
        # Half to even, as upstream: exactly 0.5 closes the gate.
        "gated": np.array([np.rint(probability[0]) == 0]),
        "flags": np.array([_flags(lung, area, found)], np.uint8),
        "lung_area": np.array([area], np.int32),
    }


def crop_lung(lung: NDArray[Any], box: NDArray[Any], *, mode: Mode = "parity") -> NDArray[np.uint8]:
    """Crop a lung mask and stretch it to the crop frame.

    Parameters
    ----------
    lung
        uint8 [L, L], 0 or 1.
    box
        [4]: left, top, right, bottom; right and bottom excluded.
    mode
        ``"parity"`` resizes 0 and 1 as 8-bit grey values, which truncates at the edges
        (spec cxr §5.1); ``"corrected"`` takes bilinear values of at least 0.5 (§15, row 11).

    Returns
    -------
    uint8 [512, 512], 0 or 1.
    """
    left, top, right, bottom = (int(v) for v in box)
    crop = np.ascontiguousarray(lung[top:bottom, left:right])
    if mode == "parity":
        return resize_bilinear_u8(crop, (FRAME, FRAME))
    return (resize_bilinear(crop, (FRAME, FRAME)) >= MASK_THRESHOLD).astype(np.uint8)


def zone_fractions(
    pair: tuple[LungRegion | None, LungRegion | None],
    disease: NDArray[Any],
    *,
    mode: Mode = "parity",
) -> NDArray[np.float64]:
    """Diseased share of each zone, in the order of `catalog.cxr_severity.ZONES`.

    Parameters
    ----------
    pair
        Image-left and image-right lung, of `lung_pair.find_pair`.
    disease
        uint8 [512, 512], 0 or 1.

    Returns
    -------
    float64 [6]. An empty zone has 0 in parity mode and NaN in corrected mode.
    """
    fractions = np.full(6, np.nan)
    for side, region in enumerate(pair):
        if region is None:
            continue
        areas, diseased = region.zone_areas(), region.zone_counts(disease)
        with np.errstate(invalid="ignore"):
            divisor = np.maximum(areas, _NO_AREA) if mode == "parity" else areas
            fractions[3 * side : 3 * side + 3] = diseased / divisor
    return fractions


def zone_lines(
    lung512: Array,
    *,
    mode: Mode = "parity",
    box: Array = (0, 0, FRAME, FRAME),
    side: int = FRAME,
) -> tuple[LungRegion | None, LungRegion | None]:
    """Where the zones lie, for a picture.

    Parameters
    ----------
    lung512
        uint8 [512, 512], lung mask in the crop frame.
    box, side
        The crop in the stage I frame and that frame's side; they show on which side a single lung
        lies (corrected mode).

    Returns
    -------
    Image-left and image-right lung, each with its ``box`` and its ``cuts``: the first row of the
    middle and of the lower zone, in rows of the image. None: no such lung.
    """
    return find_pair(components(lung512), mode=mode, box=box, side=side)


def _flags(lung: NDArray[Any], area: int, found: Components) -> int:
    """Tell what is unusual: bits of `catalog.cxr_severity.Flag`."""
    flags = Flag(0)
    if len(found) == 0:
        flags |= Flag.NO_LUNG
    if area < LOW_LUNG_AREA * lung.size:
        flags |= Flag.LOW_LUNG_AREA
    if len(found) == 1:
        flags |= Flag.ONE_COMPONENT
    if len(found) > 2:
        flags |= Flag.EXTRA_COMPONENTS
    if lung[0].any() or lung[-1].any() or lung[:, 0].any() or lung[:, -1].any():
        flags |= Flag.LUNG_TOUCHES_BORDER
    return int(flags)
