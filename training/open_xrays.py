"""The 77 public X-rays with lung masks that the lung network learns from beside synthetic ones.

COVID-19 image repository of Hannover Medical School (CC-BY 3.0, doi 10.6084/m9.figshare.12275009)
with V7 Labs' lung masks (CC-BY 4.0). The images stay out of the project: their folder is given.

The masks are of a square of each X-ray: mostly the one in the middle, in a few one beside it. The
public collection has them stretched over the whole X-ray, where they lie beside the lungs by up to
a tenth of its width. Here they are put back where their edges fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import InputError

from .xrays import LUNG, SIDE, UNKNOWN, Xrays

HELD_OUT = (
    "0a7faa2a", "2168a917", "4fed5061", "527321ee", "5782ae15", "61bc50d1", "82a78c13", "87d50e40",
    "887db78f", "a2eba651", "a4318ac9", "b39f5cf9", "bb0e626a", "bd3ceeb6", "c0f74558", "c3829ecb",
    "f6d980a0",
)  # fmt: skip
"""Images of 11 patients, of whom no network sees any other image either; drawn by chance."""


def read(folder: Path, *, held_out: bool) -> Xrays:
    """The X-rays in `folder`: those held out, or all others; outside a mask's square UNKNOWN.

    Parameters
    ----------
    folder
        Has `images/NAME.png` and `lung_masks/NAME.png`, as the public collection gives them.

    Raises
    ------
    InputError
        When an image or its mask is missing or cannot be read.
    """
    paths = sorted((folder / "images").glob("*.png"))
    chosen = [p for p in paths if (p.stem in HELD_OUT) == held_out]
    if not chosen:
        raise InputError(f"{folder}/images holds none of the public X-rays (PNG)")
    pixels, labels = [], []
    for path in chosen:
        image, mask = _plane(path), _plane(folder / "lung_masks" / path.name)
        side = min(image.shape)
        square = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)) > 127
        top, left = _place(image, square)
        truth = np.full(image.shape, UNKNOWN, np.uint8)
        truth[top : top + side, left : left + side] = square * np.uint8(LUNG)
        pixels.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
        labels.append(cv2.resize(truth, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST))
    return Xrays(np.stack(pixels), np.stack(labels))


def _plane(file: Path) -> NDArray[Any]:
    """A grey picture, uint8 [H, W]."""
    plane = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if plane is None:
        raise InputError(f"{file} is missing or no picture")
    return plane


def _place(image: NDArray[np.uint8], square: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of a square mask in an X-ray: where it is darkest inside the sides of lungs.

    At the right place ribs and muscle, which are bright, lie beside them.
    """
    side = len(square)
    mask, edge = square.astype(np.uint8), np.ones((1, 2 * round(0.02 * side) + 1), np.uint8)
    outside = (np.asarray(cv2.dilate(mask, edge)) - mask) > 0
    inside = (mask - np.asarray(cv2.erode(mask, edge))) > 0
    soft = np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.004 * side))

    wanted = outside / np.count_nonzero(outside) - inside / np.count_nonzero(inside)
    found = cv2.matchTemplate(soft, wanted.astype(np.float32), cv2.TM_CCORR)
    row, column = np.unravel_index(int(np.argmax(found)), found.shape)
    return int(row), int(column)
