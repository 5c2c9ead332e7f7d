"""What the server says about the slices of a study, before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]

LungSource = Literal["series", "slice"]
"""Lungs found in the whole series, or in each slice on its own."""

MAP_TOLERANCE = 1e-3
"""By how much a logit and its map may disagree, relative to 1 + |logit|."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the server says about one slice.

    Attributes
    ----------
    cam
        float32 [8, 8], signed.
    hu_range
        Lowest and highest value of the slice; (0, 0) where it is a picture.
    """

    probability: float
    logit: float
    cam: NDArray[np.float32]
    transport: str
    hu_range: tuple[int, int] = (0, 0)

    def of(self, hu: NDArray[np.int16]) -> Score:
        """The same with the range of the slice."""
        return replace(self, hu_range=(int(hu.min()), int(hu.max())))


@dataclass(frozen=True, slots=True)
class Scores:
    """All slices of a study in order.

    Attributes
    ----------
    lung
        uint8 [z, y, x]: 0, 1 right lung, 2 left lung; None when it is not known.
    """

    scores: Sequence[Score]
    lung: Labels | None
    lung_source: LungSource | None
    notes: tuple[str, ...] = ()

    @property
    def maps_fit(self) -> bool:
        """Every logit is the mean of its map plus the head's bias (spec ct-classifier §7)."""
        logits = np.array([s.logit for s in self.scores])
        biases = logits - [float(s.cam.mean(dtype=np.float64)) for s in self.scores]
        return bool(np.ptp(biases) <= MAP_TOLERANCE * (1 + np.abs(logits).max()))
