"""From class activation maps to heat maps, sides and a summary (spec ct-classifier §6 to §8).

Sides are those of the patient: the lung labels are 1 right, 2 left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.ct_classifier import BILATERAL_SHARE, OVERLAY_ALPHA, SIZE, THRESHOLD
from hilum.catalog.lungmask import LEFT, RIGHT
from hilum.preprocessing.arrays import Array, namespace, to_host
from hilum.preprocessing.resize import resize_bilinear

from ..ct_angel.patient_rule import find_runs

Dominance = Literal["right", "left", "bilateral", "free"]

SHELLS = ("outer", "medial outer", "medial inner", "inner")
"""Quarters of a lung's area, from its rim inwards."""


@dataclass(frozen=True, slots=True)
class Laterality:
    """How a heat map is spread over the lungs.

    Attributes
    ----------
    right, left
        Sums of the heat map (maximum 1, on the network's grid) over each lung.
    shells_right, shells_left
        The same over each lung's quarters, see `SHELLS`.
    """

    right: float
    left: float
    shells_right: tuple[float, ...] = ()
    shells_left: tuple[float, ...] = ()

    @property
    def share_right(self) -> float | None:
        """Share of the right lung, 0 to 1; None when both sums are 0."""
        total = self.right + self.left
        return self.right / total if total > 0 else None

    @property
    def dominance(self) -> Dominance:
        """Which lung prevails; ``"bilateral"`` within 5 %, ``"free"`` when both sums are 0."""
        total = self.right + self.left
        if total <= 0:
            return "free"
        if abs(self.left - self.right) < BILATERAL_SHARE * total:
            return "bilateral"
        return "right" if self.right > self.left else "left"


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """Probabilities of a series in a few numbers; no verdict about the patient.

    Attributes
    ----------
    maximum, maximum_at
        Highest probability and its slice.
    longest_run
        First and last slice of the longest run of positive slices, or None.
    """

    slices: int
    positive: int
    maximum: float
    maximum_at: int
    longest_run: tuple[int, int] | None

    @property
    def fraction(self) -> float:
        """Share of positive slices."""
        return self.positive / self.slices

    @property
    def longest_run_slices(self) -> int:
        """How many slices the longest run has."""
        return 0 if self.longest_run is None else self.longest_run[1] - self.longest_run[0] + 1


def grad_cam(cam: Array) -> Array:
    """Grad-CAM of the logit from the class activation map: ``relu(cam) / (H · W)``.

    Parameters
    ----------
    cam
        [..., H, W], signed; NumPy or CuPy.

    Returns
    -------
    float32, of the same shape.
    """
    xp = namespace(cam)
    return xp.astype(xp.maximum(cam, 0) / (cam.shape[-1] * cam.shape[-2]), xp.float32)


def normalised(cam: Array) -> tuple[Array, bool]:
    """Positive part of a map [h, w] over its maximum; and whether it is empty (then all 0)."""
    xp = namespace(cam)
    positive = xp.astype(xp.maximum(cam, 0), xp.float32)
    highest = xp.max(positive)
    # The smallest normal number: below it the quotient is noise, and 0 has none.
    if not float(highest) > np.finfo(np.float32).tiny:
        return xp.zeros_like(positive), True
    return positive / highest, False


def heat_map(cam: Array, shape: tuple[int, int] = (SIZE, SIZE)) -> Array:
    """Enlarge a class activation map to a slice.

    Parameters
    ----------
    cam
        [8, 8] (or another small size), signed; NumPy or CuPy.
    shape
        Height and width of the result.

    Returns
    -------
    float32 [h, w], 0…1, in which 1 is the map's maximum: bilinear with half-pixel centres, to the
    network's grid of 256 × 256 first.
    """
    heat = resize_bilinear(normalised(cam)[0], (SIZE, SIZE))
    if shape != (SIZE, SIZE):
        heat = resize_bilinear(heat, shape)
    return namespace(heat).clip(heat, 0, 1)


def overlay(grey: Array, heat: Array, alpha: float = OVERLAY_ALPHA) -> Any:
    """Lay a heat map over a slice in the colours blue – green – red ("jet"); runs on the host.

    Parameters
    ----------
    grey
        uint8 [H, W].
    heat
        [H, W], 0…1.

    Returns
    -------
    uint8 [H, W, 3], red, green, blue.
    """
    grey, heat = to_host(grey), to_host(heat)
    levels = np.rint(heat * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[:, :, ::-1]
    return cv2.addWeighted(
        np.ascontiguousarray(colours), alpha, np.repeat(grey[:, :, None], 3, axis=2), 1 - alpha, 0
    )


def laterality(heat: Array, lung: Array) -> Laterality:
    """Sum a heat map over each lung and its quarters; runs on the host.

    Parameters
    ----------
    heat
        [H, W], maximum 1; on the network's grid of 256 × 256 for comparable sums.
    lung
        uint8 [H, W]: 0, 1 right lung, 2 left lung.
    """
    sums, heat, lung = {}, to_host(heat), to_host(lung)
    for side in (RIGHT, LEFT):
        shells = lung_shells(lung == side)
        sums[side] = tuple(
            float(heat[shells == k].sum(dtype=np.float64)) for k in range(1, len(SHELLS) + 1)
        )
    return Laterality(sum(sums[RIGHT]), sum(sums[LEFT]), sums[RIGHT], sums[LEFT])


def lung_shells(lung: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Split a lung into four shells of about equal area.

    Parameters
    ----------
    lung
        bool [H, W].

    Returns
    -------
    uint8 [H, W]: 0 outside, then 1 to 4 as in `SHELLS`. Erosion with a 3 × 3 square stops as soon
    as 75, 50 and 25 % of the area or less are left.
    """
    # Pixels that survive k erosions lie more than k from the outside in chessboard distance.
    padded = np.pad(lung, 1).astype(np.uint8)
    depth = np.rint(cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]).astype(np.int64)
    left = np.cumsum(np.bincount(depth[lung], minlength=1)[::-1])[::-1]  # of depth k or more
    left = np.append(left[1:], 0)  # after k erosions
    total = int(lung.sum())
    shells = lung.astype(np.uint8)
    for quarters in (3, 2, 1):
        erosions = int(np.argmax(4 * left <= quarters * total))
        shells += (lung & (depth > erosions)).astype(np.uint8)
    return shells


def summarise(
    probabilities: Sequence[float],
    *,
    threshold: float = THRESHOLD,
    breaks: Collection[int] = (),
) -> SeriesSummary:
    """Summarise the probabilities of a series, slice by slice in order.

    Parameters
    ----------
    breaks
        Slices after which a gap follows; no run crosses them.
    """
    values = np.asarray(probabilities, np.float64)
    positive = values >= threshold
    runs = find_runs(positive.tolist(), breaks)
    longest = max(runs, key=lambda run: run[1] - run[0], default=None)
    top = int(values.argmax())
    return SeriesSummary(len(values), int(positive.sum()), float(values[top]), top, longest)
