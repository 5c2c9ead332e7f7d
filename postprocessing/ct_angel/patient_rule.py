"""Lesions that persist over consecutive slices (spec ct-angel §7)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hilum.catalog.ct_angel import QUADRANTS, RUN_LENGTH, WIDE_SPACING_MM
from hilum.preprocessing.reading.volume import extent_mm, find_breaks


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive slices that flag the same quadrant.

    Attributes
    ----------
    quadrant
        Index in `catalog.ct_angel.QUADRANTS`.
    first, last
        Indices of its first and last slice.
    length_mm
        Extent along the slices' normal, one slice spacing for each slice; None without positions.
    """

    quadrant: int
    first: int
    last: int
    length_mm: float | None

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class PatientDecision:
    """Whether a series is positive, and by which runs.

    Attributes
    ----------
    runs
        All longest runs of at least the required length, by quadrant and position.
    wide_spacing
        The slices are further apart than the rule was made for.
    notes
        What limits the decision, human-readable.
    """

    runs: tuple[Run, ...]
    wide_spacing: bool = False
    notes: tuple[str, ...] = ()

    @property
    def positive(self) -> bool:
        """There is such a run."""
        return bool(self.runs)


def decide(
    flags: Sequence[Collection[int]],
    *,
    positions: Sequence[float] | None = None,
    breaks: Collection[int] | None = None,
    length: int = RUN_LENGTH,
) -> PatientDecision:
    """Apply the patient rule to the slices of one series.

    Parameters
    ----------
    flags
        Quadrants that each slice flags, in order along the slices' normal.
    positions
        Of the slices along their normal in mm, ascending.
    breaks
        Slices after which a gap follows; None: found from `positions`.
    length
        Slices that a run must have.
    """
    spacing = _median_step(positions)
    if breaks is None:
        breaks = find_breaks(positions) if positions is not None else ()
    runs = tuple(
        Run(quadrant, first, last, _extent(positions, first, last))
        for quadrant in range(len(QUADRANTS))
        for first, last in find_runs([quadrant in flag for flag in flags], breaks)
        if last - first + 1 >= length
    )
    notes = []
    wide = spacing is not None and spacing > WIDE_SPACING_MM
    if spacing is not None and wide:
        notes.append(
            f"slices are {spacing:.2f} mm apart: {length} of them span {length * spacing:.1f} mm, "
            "more than the rule was made for"
        )
    if len(flags) < length:
        notes.append(f"too short for the rule: {len(flags)} of the {length} slices that it needs")
    if breaks:
        notes.append(f"the series has {len(breaks)} gap(s); no run crosses them")
    return PatientDecision(runs, wide, tuple(notes))


def find_runs(flags: Sequence[bool], breaks: Collection[int] = ()) -> list[tuple[int, int]]:
    """Find all longest runs of true `flags` as first and last index.

    Parameters
    ----------
    breaks
        Indices after which a run ends in any case.
    """
    runs: list[tuple[int, int]] = []
    start: int | None = None
    for i, flag in enumerate(flags):
        if flag and start is None:
            start = i
        if start is None:
            continue
        if not flag:
            runs.append((start, i - 1))
            start = None
        elif i in breaks or i == len(flags) - 1:
            runs.append((start, i))
            start = None
    return runs


def _median_step(positions: Sequence[float] | None) -> float | None:
    if positions is None or len(positions) < 2:
        return None
    return float(np.median(np.diff(np.asarray(positions, np.float64))))


def _extent(positions: Sequence[float] | None, first: int, last: int) -> float | None:
    if positions is None or len(positions) < 2:
        return None
    return extent_mm(positions, first, last)
