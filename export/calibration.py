"""Slabs of the user's own chest CTs: what INT8 networks are calibrated and judged on.

The series go through the same code as in `hilum run dlpe`. One is held in memory at a time; the
chosen slabs lie on disk, each in a file of its own, until the export ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.dlpe import DIRECTIONS, TASKS, Direction
from ..catalog.errors import InputError
from ..preprocessing.dlpe_space import normalise
from ..preprocessing.series import open_series
from ..preprocessing.slabs import Slab, cut, slices_first

Part = Literal["calibration", "held-out"]
"""What a slab is for: to find the ranges of tensors, or to judge the network that they make."""

MARGIN = max(task.margin for task in TASKS.values())
"""Slices on both sides of a slab's own one: enough for every network."""

APART = 2 * MARGIN + 1
"""Between the middles of slabs of one direction, so that no two share a slice."""

HELD_OUT = 4
"""One slab of so many is held out, at least one of each series and direction."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Slabs of one slice and its neighbours, on disk.

    Attributes
    ----------
    series
        Number of series that they are cut from.
    grid
        Side of normalised space in voxels.
    seed
        Of the choice of slices.
    counts
        Number of slabs of each part, the same for all directions up to the series' sizes.
    """

    folder: Path
    series: int
    grid: int
    seed: int
    counts: Mapping[tuple[Part, Direction], int]

    def slabs(self, part: Part, direction: Direction) -> Iterator[NDArray[np.float32]]:
        """One slab [2·`MARGIN` + 1, H, W] after the other, read when it is asked for."""
        for number in range(self.counts[part, direction]):
            yield np.load(_file(self.folder, part, direction, number))

    def described(self, direction: Direction) -> dict[str, int]:
        """What a certificate tells: no paths, no identifiers."""
        return {
            "series": self.series,
            "grid": self.grid,
            "seed": self.seed,
            "calibration_slices": self.counts["calibration", direction],
            "held_out_slices": self.counts["held-out", direction],
        }


def cut_slabs(
    studies: Sequence[Path], folder: Path, *, slices: int, grid: int, seed: int
) -> Calibration:
    """Cut slabs out of series: slices at random, in each direction, no two slabs overlapping.

    Parameters
    ----------
    studies
        DICOM folders or files, and NIfTI files: one series each.
    folder
        Where the slabs are put; 11 · `grid`² · 4 bytes each.
    slices
        Slabs of each direction from all series together, of which a quarter is held out.
    grid
        Side of normalised space in voxels, a multiple of 16.

    Raises
    ------
    InputError
        When a series cannot be read, or shows too little for two slabs of every direction.
    """
    rng = np.random.default_rng(seed)
    counts: dict[tuple[Part, Direction], int] = {
        (part, d): 0 for part in ("calibration", "held-out") for d in DIRECTIONS
    }
    share = -(-slices // len(studies))
    for number, study in enumerate(studies, 1):
        try:
            volume = normalise(open_series(study), "parity", grid).voxels
        except InputError as error:
            raise InputError(
                f"calibration series {number} of {len(studies)} cannot be used: {error}"
            ) from error
        for direction in DIRECTIONS:
            middles = _choose(slices_first(volume, direction), share, rng)
            if len(middles) < 2:
                raise InputError(
                    f"calibration series {number} of {len(studies)}: too few slices along "
                    f"{direction.upper()} show anything; give one that covers the chest"
                )
            held = max(1, len(middles) // HELD_OUT)
            for k, middle in enumerate(middles):
                part: Part = "held-out" if k < held else "calibration"
                slab = cut(volume, Slab(direction, middle, middle + 1), MARGIN)
                np.save(_file(folder, part, direction, counts[part, direction]), slab)
                counts[part, direction] += 1
    return Calibration(folder, len(studies), grid, seed, counts)


def _choose(slices: NDArray[np.float32], most: int, rng: np.random.Generator) -> list[int]:
    """Middles of slabs in random order; what lies around the scan is left out."""
    shown = [i for i in range(len(slices)) if slices[i].min() < slices[i].max()]
    if not shown:
        return []
    start = shown[0] + int(rng.integers(min(APART, len(shown))))
    middles = range(start, shown[-1] + 1, APART)
    return rng.permutation(middles)[: max(most, 2)].tolist()


def _file(folder: Path, part: Part, direction: Direction, number: int) -> Path:
    return folder / f"{part}-{direction}-{number}.npy"
