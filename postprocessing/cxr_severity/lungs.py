"""From the lung network's mask to a clean one and the box of the crop (spec cxr §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.cxr_severity import LUNG_SIZE, MIN_CONTOUR_AREA, PARITY
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, to_host

from .components import count_components

_ELLIPSE = np.array(
    [[0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], np.uint8
)
"""OpenCV's 5 × 5 "ellipse", spelt out because its shape differs between versions of OpenCV."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A cleaned lung mask.

    Attributes
    ----------
    lung
        uint8 [H, W], 0 or 1.
    box
        int32 [4]: left, top, right, bottom of the crop around all components; right and bottom
        excluded.
    components
        Number of 8-connected components.
    """

    lung: NDArray[np.uint8]
    box: NDArray[np.int32]
    components: int


def clean(mask: Array, *, mode: Mode = "parity") -> Cleaned:
    """Remove small parts of a lung mask, smooth it, and find its box; runs on the host.

    Parameters
    ----------
    mask
        uint8 [H, W], 0 or 1 (H = W = 512 in the published program).
    mode
        ``"parity"`` repeats the published program: contours of a polygon area below 6000 are
        painted black, hole contours among them, so a small hole stays and loses its rim; without
        any lung the box misses the last row and column (spec cxr §6). ``"corrected"`` fills holes
        first, scales the limit with the size of the mask, and falls back to the whole image
        (spec cxr §15, rows 12 to 14).
    """
    raw = np.ascontiguousarray(to_host(mask), np.uint8)
    kept = _drop_small_contours(raw) if mode == "parity" else _fill_large_outlines(raw)
    kept = cv2.morphologyEx(kept, cv2.MORPH_OPEN, _ELLIPSE, iterations=2)
    kept = cv2.morphologyEx(kept, cv2.MORPH_CLOSE, _ELLIPSE)
    left, top, width, height = cv2.boundingRect(kept)
    if width == 0:
        lost = 1 if mode == "parity" else 0
        width, height = raw.shape[1] - lost, raw.shape[0] - lost
    box = np.array([left, top, left + width, top + height], np.int32)
    return Cleaned(kept.astype(np.uint8, copy=False), box, count_components(kept))


def clean_step(*, raw: Array, mode: Array) -> dict[str, NDArray[Any]]:
    """Run `clean` as the step ``cxr_clean`` of the catalog.

    Parameters
    ----------
    raw
        uint8 [L, L], 0 or 1.
    mode
        uint8 [1], 0 parity, 1 corrected.
    """
    cleaned = clean(raw, mode=mode_name(mode))
    return {
        "lung": cleaned.lung,
        "box": cleaned.box,
        "lung_components": np.array([cleaned.components], np.int32),
    }


def mode_name(mode: Array) -> Mode:
    """Translate the input `mode` of a step, uint8 [1], into the name used in Python."""
    return "parity" if int(mode[0]) == PARITY else "corrected"


def _drop_small_contours(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paint every contour below the limit black, outer and hole contours alike."""
    contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    kept = mask.copy()
    for contour in contours:
        if cv2.contourArea(contour) < MIN_CONTOUR_AREA:
            cv2.fillPoly(kept, [contour], (0,))
    return kept


def _fill_large_outlines(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the outer contours that reach the limit, with everything inside them."""
    limit = MIN_CONTOUR_AREA * mask.size / LUNG_SIZE**2
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    kept = np.zeros_like(mask)
    for contour in contours:
        if cv2.contourArea(contour) >= limit:
            cv2.fillPoly(kept, [contour], (1,))
    return kept
