"""Slices by InstanceNumber: how programs stack a series that look at nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum.catalog.errors import BadOrder

from .ct_frames import Frame
from .volume import Triple

_CORRECTED = "choose mode corrected, which goes by the positions"
_REMEDY = f"give the whole series, or {_CORRECTED}"


@dataclass(frozen=True, slots=True)
class Numbering:
    """The slices by InstanceNumber alone; nothing is turned or flipped.

    Attributes
    ----------
    order
        Which slice of the file's own order is at each z = largest number − InstanceNumber.
    spacing
        Distance of rows, distance of columns, and slice thickness in mm, of the first file.
    """

    order: tuple[int, ...]
    spacing: Triple


def by_number(frames: Sequence[Frame], left_out: Sequence[int | None]) -> Numbering:
    """Stack slices by their InstanceNumbers (spec dlpe §2.1).

    Parameters
    ----------
    frames
        In the file's own order.
    left_out
        InstanceNumbers of slices that are not among them because another lies at their place.

    Raises
    ------
    InputError
        For numbers that are missing, that occur twice or leave gaps, and for a missing thickness.
    """
    if any(f.frames > 1 for f in frames):
        raise BadOrder(
            "a file of several slices, of which the published program reads the first; "
            f"{_CORRECTED}"
        )
    numbers = [f.number for f in frames]
    if None in numbers:
        raise BadOrder(
            f"{numbers.count(None)} of {len(numbers)} slices have no InstanceNumber (0020,0013), "
            f"by which the published program orders them; {_CORRECTED}"
        )
    known = [n for n in numbers if n is not None]
    extra = sorted({n for n in left_out if n is not None} - set(known))
    if extra:
        raise BadOrder(
            f"{len(extra)} slice(s) with InstanceNumbers of their own lie at the place of another "
            f"one (number {_shown(extra)}); {_REMEDY}"
        )
    if len(set(known)) < len(known):
        twice = sorted(n for n, times in Counter(known).items() if times > 1)
        raise BadOrder(
            f"InstanceNumber {_shown(twice)} occurs more than once, so the published program "
            f"cannot order the slices; {_REMEDY}"
        )
    absent = sorted(_between(known))
    if absent:
        raise BadOrder(
            f"the InstanceNumbers are not consecutive ({_shown(absent)} missing), so the published "
            f"program cannot order the slices; {_REMEDY}"
        )
    first = min(frames, key=lambda f: f.file)
    if first.spacing is None or not first.thickness or first.thickness < 0:
        raise BadOrder(
            "no SliceThickness (0018,0050), which the published program takes for the distance of "
            f"slices; {_CORRECTED}"
        )
    return Numbering(tuple(np.argsort(known)[::-1].tolist()), (*first.spacing, first.thickness))


def _between(numbers: Sequence[int]) -> set[int]:
    """Numbers that are missing in the range; a few of them when it is absurdly long."""
    low, high = min(numbers), max(numbers)
    return set(range(low, min(high, low + 2 * len(numbers)) + 1)) - set(numbers)


def _shown(numbers: Sequence[int]) -> str:
    return ", ".join(str(n) for n in numbers[:5]) + (" …" if len(numbers) > 5 else "")
