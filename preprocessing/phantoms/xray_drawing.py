"""Drawing smooth shapes in body coordinates: what the synthetic X-rays are made with."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""float32 [H, W]."""
Points = NDArray[Any]
"""Body coordinates x, y: float64 [n, 2]."""


class Canvas:
    """Drawing in body coordinates: x from −1 (image left) to 1, y from 0 (top) to 1."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.height, self.width = height, width
        self.unit = float(min(height, width))
        """Pixels per unit of blur and line width."""
        self.tilt = rng.normal(0, 0.012)
        self.shift = rng.normal(0, 0.025)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        self.y = (y + 0.5) / height
        self.zoom = rng.normal(1.17, 0.045)
        self.x = ((x + 0.5) * 2 / width - 1 - self.shift) / self.zoom - self.tilt * (self.y - 0.5)

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Body coordinates [n, 2] as fixed-point pixels (4 fractional bits) for OpenCV."""
        x = (points[:, 0] + self.tilt * (points[:, 1] - 0.5)) * self.zoom + self.shift
        columns = (x + 1) * self.width / 2 - 0.5
        rows = points[:, 1] * self.height - 0.5
        return np.rint(np.stack([columns, rows], 1) * 16).astype(np.int32)

    def blank(self) -> Floats:
        """Make a picture of zeros, float32 [H, W]."""
        return np.zeros((self.height, self.width), np.float32)

    def area(self, outline: Points) -> Floats:
        """Fill a closed curve [n, 2] with 1."""
        image = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(image, [self.pixels(outline)], (255,), cv2.LINE_AA, 4)
        return image.astype(np.float32) / 255

    def line(self, points: Points, width: float) -> Floats:
        """Draw an open curve [n, 2] with 1; `width` in shorter sides of the picture."""
        image = np.zeros((self.height, self.width), np.uint8)
        thickness = max(1, round(width * self.unit))
        cv2.polylines(image, [self.pixels(points)], False, (255,), thickness, cv2.LINE_AA, 4)
        return image.astype(np.float32) / 255

    def blur(self, image: Floats, sigma: float) -> Floats:
        """Smooth with a Gaussian; `sigma` in shorter sides of the picture."""
        return cv2.GaussianBlur(image, (0, 0), max(0.3, sigma * self.unit))

    def depth(self, area: Floats, reach: float) -> Floats:
        """0 at the rim of `area`, towards 1 inside, over a length of `reach`."""
        distance = cv2.distanceTransform((area > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        inside = np.clip(distance / (reach * self.unit), 0, 1)
        return np.sqrt(1 - (1 - inside) ** 2).astype(np.float32)

    def clouds(self, rng: np.random.Generator, coarse: int, octaves: int) -> Floats:
        """Smooth noise of mean 0 and variance about 1, the same at every picture size."""
        field = self.blank()
        for octave in range(octaves):
            cells = coarse * 2**octave
            grid = rng.normal(0, 0.6**octave, (cells + 3, cells + 3)).astype(np.float32)
            field += cv2.resize(grid, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return (field - field.mean()) / (field.std() + 1e-6)


def spline(points: Points, *, closed: bool, steps: int = 12) -> Points:
    """Catmull–Rom curve through `points` [n, 2]."""
    padded = (
        np.concatenate([points[-1:], points, points[:2]])
        if closed
        else np.concatenate([points[:1], points, points[-1:]])
    )
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
    curve = (curve + (3 * b - a - 3 * c + d) * t**3) / 2
    return curve.reshape(-1, 2)


def fade(x: Floats, scale: float) -> Floats:
    """From 0 to 1 over a few times `scale` around x = 0."""
    return (0.5 + 0.5 * np.tanh(x / (2 * scale))).astype(np.float32)


def ellipse(canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
    """Projected thickness of an ellipsoid, 1 at its centre."""
    inside = 1 - ((canvas.x - centre[0]) / radii[0]) ** 2 - ((canvas.y - centre[1]) / radii[1]) ** 2
    return np.sqrt(np.clip(inside, 0, None)).astype(np.float32)
