"""Steps between the slices of a CT: how far, how even, and how turned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.terms import GAP_FACTOR

from .ct_frames import Frame
from .notes import UNEVEN_SLICES, Note
from .volume import Geometry

_TILT_DEGREES = 0.05
"""A tilt below this is the rounding of positions in the header."""


def uneven(along: NDArray[Any]) -> Note:
    """What is to be known about slices that do not lie in equal steps."""
    steps = np.diff(along)
    median = float(np.median(steps))
    even = np.linspace(along[0], along[-1], len(along))
    gaps = int((steps > GAP_FACTOR * median).sum())
    what = f"uneven slices: {steps.min():.2f} to {steps.max():.2f} mm apart"
    if gaps:
        what += f", with {gaps} gap(s) above {GAP_FACTOR:g} times the median of {median:.2f} mm"
    return Note(
        f"{what}; volumes and lengths go by each slice's own step, files of voxels by the mean of "
        f"{steps.mean():.2f} mm, up to {np.abs(along - even).max():.1f} mm off within",
        UNEVEN_SLICES,
    )


def slice_step(
    first: Frame,
    along: NDArray[Any],
    places: NDArray[Any],
    normal: NDArray[Any],
    notes: list[Note],
) -> NDArray[Any]:
    """Vector from a slice to the next one: of the mean length, along the line through all."""
    if len(along) == 1:
        if not first.thickness or first.thickness < 0:
            notes.append(Note("one slice without a thickness; it is taken as 1 mm"))
            return normal
        return normal * first.thickness
    line = (places[-1] - places[0]) / (along[-1] - along[0])
    off = places - places[0] - (along - along[0])[:, None] * line
    if np.linalg.norm(off, axis=1).max() > 1:
        notes.append(Note("slices are shifted against each other by more than 1 mm"))
    tilt = np.degrees(np.arccos(np.clip(1 / np.linalg.norm(line), -1, 1)))
    mean = (along[-1] - along[0]) / (len(along) - 1)
    return mean * (normal if tilt < _TILT_DEGREES else line)


def on_angles(geometry: Geometry) -> list[Note]:
    """What is to be known about a tilted gantry and turned slices."""
    notes = []
    if geometry.tilt > _TILT_DEGREES:
        notes.append(Note(f"the gantry was tilted by {geometry.tilt:.1f}°: the volume is sheared"))
    turn = float(np.degrees(np.arccos(min(1.0, np.abs(geometry.normal).max()))))
    if turn > 5:
        notes.append(Note(f"the slices are turned by {turn:.0f}° against the patient's axes"))
    return notes
