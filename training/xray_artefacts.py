"""What X-rays of real wards show besides the chest: lines, tubes, electrodes, letters, collimation.

Everything is drawn onto grey pictures in place; masks stay as they are.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.phantoms.xray_drawing import spline

Picture = NDArray[Any]
"""Grey values, float32 [H, W], 0…1, bone bright."""


def devices(picture: Picture, rng: np.random.Generator) -> None:
    """Draw up to six lines, tubes, electrodes and a pacemaker, brighter than what is under them."""
    side = picture.shape[0]
    layer = np.zeros(picture.shape, np.uint8)
    for _ in range(rng.integers(0, 4)):
        points = np.cumsum(rng.normal(0, 0.13, (5, 2)), 0) + rng.uniform(0.2, 0.8, 2)
        curve = np.rint(spline(points, closed=False) * side * 16).astype(np.int32)
        cv2.polylines(layer, [curve], False, (255,), int(rng.integers(1, 5)), cv2.LINE_AA, 4)
    for _ in range(rng.integers(0, 4)):
        centre = tuple(int(v) for v in rng.uniform(0.1, 0.9, 2) * side)
        cv2.circle(layer, centre, int(rng.integers(3, 9)), (255,), -1, cv2.LINE_AA)
    if rng.random() < 0.15:
        (x, y), (w, h) = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0.06, 0.12, 2) * side
        corners = cv2.boxPoints(((x, y), (w, h), float(rng.uniform(0, 180))))
        cv2.fillPoly(layer, [np.rint(corners).astype(np.int32)], (255,), cv2.LINE_AA)
    picture += layer.astype(np.float32) * np.float32(rng.uniform(0.1, 0.6) / 255)


def letters(picture: Picture, rng: np.random.Generator) -> None:
    """Write a side marker or a time into a corner."""
    side = picture.shape[0]
    text = str(rng.choice(["L", "R", "AP", "PORTABLE", "L 12:40", "R LIEGEND", "PA"]))
    where = rng.choice([0.04, 0.75]) * side, rng.choice([0.08, 0.95]) * side
    place = (int(where[0] + rng.normal(0, 6)), int(where[1] + rng.normal(0, 6)))
    size = float(rng.uniform(0.4, 1.2)) * side / 512
    layer = np.zeros(picture.shape, np.uint8)
    cv2.putText(layer, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255,), 2, cv2.LINE_AA)
    np.maximum(picture, layer.astype(np.float32) / 255, out=picture)


def collimation(picture: Picture, rng: np.random.Generator) -> None:
    """Black out strips at the edges, as shutters do."""
    side = picture.shape[0]
    for edge in range(4):
        depth = int(max(0.0, rng.normal(0, 0.035)) * side)
        if depth:
            strip = np.rot90(picture, edge)[:depth]
            strip[:] = np.float32(rng.uniform(0, 0.08))


def film(picture: Picture, rng: np.random.Generator) -> Picture:
    """Exposure, contrast, shading, grain and sharpness of another detector: float32 [H, W]."""
    low, high = rng.uniform(-0.12, 0.12), rng.uniform(0.8, 1.2)
    picture = np.clip(low + picture * (high - low), 0, 1) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.3:
        limit = cv2.createCLAHE(float(rng.uniform(1, 3)), (8, 8))
        picture = limit.apply((picture * 255).astype(np.uint8)).astype(np.float32) / 255
    if rng.random() < 0.5:
        coarse = rng.normal(0, 0.09, (4, 4)).astype(np.float32)
        picture = picture + cv2.resize(coarse, picture.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        smooth = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 2.0)))
        picture = picture + np.float32(rng.uniform(-1, 1.2)) * (picture - smooth)
    grain = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0, 0.04))
    return np.clip(picture + grain, 0, 1).astype(np.float32)
