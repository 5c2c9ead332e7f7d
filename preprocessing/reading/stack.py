"""What a series is made of: slices as their file has them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .nifti import Forms
from .notes import Note
from .volume import Geometry


class Stack(Protocol):
    """Slices in the order and orientation of their file."""

    @property
    def kind(self) -> str:
        """Format of the file."""
        ...

    geometry: Geometry
    positions: tuple[float, ...]
    numbers: tuple[int | None, ...]
    notes: tuple[Note, ...]

    @property
    def even(self) -> bool:
        """Whether slices lie in equal steps, but for what a header rounds."""
        ...

    @property
    def forms(self) -> Forms | None:
        """What a NIfTI header says about the geometry."""
        ...

    @property
    def thickness(self) -> float | None:
        """Slice thickness in mm."""
        ...

    def read(self, index: int) -> NDArray[np.int16]:
        """Decode a slice [rows, columns] in HU."""
        ...
