"""Terms of the field that several systems share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["parity", "corrected"]
"""parity: the published program, faults included; corrected: its known faults are mended."""

AIR_HU = -1024
"""What stands for air and for padding, in HU: the lowest value of 12-bit CT."""

GAP_FACTOR = 1.5
"""Slices are missing where a step is longer than this multiple of the series' median step."""


@dataclass(frozen=True, slots=True)
class Window:
    """A grey window in HU: what the grey values of a picture cover."""

    width: float
    level: float
