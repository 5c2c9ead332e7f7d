"""Readers of published checkpoints; a system's recipe names its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint that was found, not yet read.

    Attributes
    ----------
    network
        Name of the network in the catalog.
    source
        Name of the folder that it came in.
    layout
        Name of the published layout.
    read
        Reads and checks it: tensors by their names in the network that `export.networks` builds.
        Raises WeightsError naming the first tensor that is missing, extra or misshapen.
    """

    network: str
    source: str
    layout: str
    path: Path
    read: Callable[[], Mapping[str, Tensor]]
