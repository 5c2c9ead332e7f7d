"""Slabs of the user's own chest CTs: what INT8 networks are calibrated and judged on.

The series go through the same code as in `hilum run dlpe`. One is held in memory at a time; the
chosen slabs lie on disk, each in a file of its own, until the export ends. Of the volumes that
networks find for others to see, slabs of the same slices are cut, when a `Finder` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import DIRECTIONS, TASKS, Direction
from hilum.catalog.errors import InputError
from hilum.preprocessing.dlpe.slabs import Slab, cut, slices_first
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.reading.series import Series, open_series

Volumes = Mapping[str, NDArray]
"""[x, y, z] of one normalised space by name."""

Finder = Callable[[Series, int], Volumes]
"""Finds in a series, on a grid of so many voxels along each side, what networks find for others:
masks in uint8 and, named ``enhanced``, the enhanced volume in float32; or raises `InputError`."""

OpenFinder = Callable[[], AbstractContextManager[Finder]]
"""Gives a finder while series are cut; the server behind it ends with that."""

Part = Literal["calibration", "held-out"]
"""What a slab is for: to find the ranges of tensors, or to judge the network that they make."""

MARGIN = max(task.margin for task in TASKS.values())
"""Slices on both sides of a slab's own one: enough for every network."""

APART = 2 * MARGIN + 1
"""Between the middles of slabs of one direction, so that no two share a slice."""

_MARGINS = {
    "ct": MARGIN,
    "enhanced": max(task.margin for task in TASKS.values() if task.volume == "enhanced"),
}
"""Slices on both sides of a slab's own one, by volume; of masks networks see that one only."""

HELD_OUT = 4
"""One slab of so many is held out, at least one of each series and direction."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Slabs of one slice, with its neighbours where networks see them, on disk.

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
    volumes
        What slabs are cut from: ``ct``, and what was found in all series.
    """

    folder: Path
    series: int
    grid: int
    seed: int
    counts: Mapping[tuple[Part, Direction], int]
    volumes: frozenset[str] = frozenset({"ct"})

    def slabs(self, part: Part, direction: Direction, volume: str = "ct") -> Iterator[NDArray]:
        """One slab after the other, read when it is asked for; slices as of the other volumes.

        Those of the CT are float32 [2·`MARGIN` + 1, H, W]; of the enhanced volume float32
        [3, H, W]; of masks uint8 [1, H, W].
        """
        for number in range(self.counts[part, direction]):
            yield np.load(_file(self.folder, part, direction, number, volume))

    def described(self, direction: Direction) -> dict[str, int]:
        """What a certificate states: no paths, no identifiers."""
        return {
            "series": self.series,
            "grid": self.grid,
            "seed": self.seed,
            "calibration_slices": self.counts["calibration", direction],
            "held_out_slices": self.counts["held-out", direction],
        }


def cut_slabs(
    studies: Sequence[Path],
    folder: Path,
    *,
    slices: int,
    grid: int,
    seed: int,
    find: Finder | None = None,
) -> Calibration:
    """Cut slabs out of series: slices at random, in each direction, no two slabs overlapping.

    Parameters
    ----------
    studies
        DICOM folders or files, and NIfTI files: one series each.
    folder
        Where the slabs are put; 11 · `grid`² · 4 bytes each, 19 · `grid`² more with a finder.
    slices
        Slabs of each direction from all series together, of which a quarter is held out.
    grid
        Side of normalised space in voxels, a multiple of 16.
    find
        Called once for each series; None: slabs of the CTs only.

    Raises
    ------
    InputError
        When a series cannot be read, the finder refuses it, or it shows too little for two slabs of
        every direction.
    """
    rng = np.random.default_rng(seed)
    counts: dict[tuple[Part, Direction], int] = {
        (part, d): 0 for part in ("calibration", "held-out") for d in DIRECTIONS
    }
    share = -(-slices // len(studies))
    names: list[frozenset[str]] = []
    for number, study in enumerate(studies, 1):
        which = f"calibration series {number} of {len(studies)}"
        try:
            volumes = _volumes(open_series(study), grid, find)
        except InputError as error:
            raise InputError(f"{which} cannot be used: {error}") from error
        names.append(frozenset(volumes))
        for direction in DIRECTIONS:
            middles = _choose(slices_first(volumes["ct"], direction), share, rng)
            if len(middles) < 2:
                raise InputError(
                    f"{which}: too few slices along {direction.upper()} show anything; give one "
                    "that covers the chest"
                )
            held = max(1, len(middles) // HELD_OUT)
            for k, middle in enumerate(middles):
                part: Part = "held-out" if k < held else "calibration"
                slab = Slab(direction, middle, middle + 1)
                for name, volume in volumes.items():
                    file = _file(folder, part, direction, counts[part, direction], name)
                    np.save(file, cut(volume, slab, _MARGINS.get(name, 0)))
                counts[part, direction] += 1
    return Calibration(folder, len(studies), grid, seed, counts, frozenset.intersection(*names))


def _volumes(series: Series, grid: int, find: Finder | None) -> Volumes:
    """What slabs of a series are cut from. The finder goes first: it needs much memory itself."""
    found = {} if find is None else find(series, grid)
    return {"ct": normalise(series, "parity", grid).voxels, **found}


def _choose(slices: NDArray[np.float32], most: int, rng: np.random.Generator) -> list[int]:
    """Middles of slabs in random order; what lies around the scan is left out."""
    shown = [i for i in range(len(slices)) if slices[i].min() < slices[i].max()]
    if not shown:
        return []
    start = shown[0] + int(rng.integers(min(APART, len(shown))))
    middles = range(start, shown[-1] + 1, APART)
    return rng.permutation(middles)[: max(most, 2)].tolist()


def _file(folder: Path, part: Part, direction: Direction, number: int, volume: str) -> Path:
    return folder / f"{volume}-{part}-{direction}-{number}.npy"
