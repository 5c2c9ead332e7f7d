"""Several acquisitions, phases or reconstructions in one series: kept apart, never mixed.

Two passes over one chest may come as one series, with a breath between them; so may the phases of
a heart beat, and the slices that watch a contrast agent arrive.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import NoSeries

from . import ct_words
from .ct_frames import Frame, Pass
from .notes import ACQUISITION_CHOSEN, Note
from .volume import ROUNDING_MM, is_even

SAME_PLACE_MM = 0.01
"""Slices closer than this lie at the same place."""

_MOST_PASSES = 3
"""More stretches that follow each other are the steps of one scan, not passes of their own."""

_SHOWN = 8

_APART = ("acquisition", "temporal", "phase", "echo", "energy", "kernel")
"""What parts slices wherever they lie among each other."""

_IN_DOUBT = ("trigger", "stack", "kind")
"""What parts slices only where several lie at one place: within one scan it may change as well."""

_NUMBERS = Pass._fields.index("kernel")
"""So many attributes of an acquisition come first and are numbers that grow with its time."""

_AMONG = ("agent", "thickness", "filter")
"""What parts slices only where they lie among each other: one after the other it may change."""

_ANOTHER_PLANE = 0.1
"""Directions that differ so much are those of another plane, not of a header that rounds."""

_JUMP = 3
"""A distance of so many usual ones to the slices before is a way back, or a gap."""

_LEAST = 3
"""Fewer slices are no acquisition that only its time, or an attribute of `_AMONG`, tells apart."""

Frames = tuple[Frame, ...]


def choose(frames: Frames, wanted: int | None) -> tuple[Frames, list[Note]]:
    """Take one acquisition of a series.

    The one with the most voxels in regular steps is taken; of equal ones the last acquired.

    Parameters
    ----------
    wanted
        Number of another one, from 1, in the order of acquisition.

    Raises
    ------
    InputError
        When there is none of that number. The message lists what there is.
    """
    parts: list[Frames] = []
    for plane in _planes(frames):
        along = _along(plane)
        parts += [plane] if along is None else _parts(plane, along)
    if wanted is not None and not 1 <= wanted <= len(parts):
        raise NoSeries(f"no acquisition {wanted} in the series; there are: {_listed(parts)}")
    if len(parts) == 1:
        return frames, []
    sizes = [_regular_voxels(part) for part in parts]
    best = max(range(len(parts)), key=lambda i: (sizes[i], i))
    taken = best if wanted is None else wanted - 1
    why = "the one with the most slices in regular steps" if wanted is None else "as asked for"
    text = (
        f"{len(parts)} acquisitions in one series; no. {taken + 1} was taken "
        f"({describe(parts[taken])}), {why}; --acquisition N chooses another: {_listed(parts)}"
    )
    return parts[taken], [Note(text, ACQUISITION_CHOSEN)]


def describe(frames: Frames) -> str:
    """What distinguishes an acquisition from others, in numbers."""
    taken = frames[0].taken
    places = _places(frames)
    parts = [f"{len(frames)} slices"]
    if len(places) > 1:
        parts[0] += f" {np.ptp(places) / (len(places) - 1):.3g} mm apart"
    for value, form in (
        (taken.acquisition, "AcquisitionNumber {:g}"),
        (taken.temporal, "temporal position {:g}"),
        (taken.phase, "phase {:g} %"),
        (taken.echo, "echo {:g}"),
        (taken.energy, "{:g} kV"),
        (taken.trigger, "trigger {:g} ms"),
    ):
        if value is not None and abs(value) < 1e6:
            parts.append(form.format(value))
    numbers = [f.number for f in frames if f.number is not None]
    if numbers and max(map(abs, numbers)) < 1e6:
        parts.append(f"InstanceNumber {min(numbers)} to {max(numbers)}")
    if taken.thickness:
        parts.append(f"{taken.thickness:g} mm thick")
    kernel = ct_words.kernel(taken.kernel)
    parts += [f"{kernel} kernel"] if kernel else []
    return ", ".join([*parts, "with contrast agent"] if ct_words.contrast(taken.agent) else parts)


def rounding_of(frames: Sequence[Frame]) -> float:
    """By how much places along the normal may be off because their header has one decimal."""
    places = np.array([f.position for f in frames if f.position is not None]) / ROUNDING_MM
    if not len(places) or np.abs(places - np.rint(places)).max() > 1e-6:
        return 0.0
    return ROUNDING_MM * float(np.abs(_normal(frames)).sum())


def _listed(parts: Sequence[Frames]) -> str:
    shown = [f"{i}: {describe(part)}" for i, part in enumerate(parts[:_SHOWN], start=1)]
    return "; ".join(shown) + ("; …" if len(parts) > _SHOWN else "")


def _along(frames: Frames) -> NDArray[np.float64] | None:
    """Places along the normal; None where a header lacks what is needed (refused later)."""
    if any(f.position is None or f.orientation is None for f in frames):
        return None
    return np.array([f.position for f in frames]) @ _normal(frames)


def _normal(frames: Sequence[Frame]) -> NDArray[np.float64]:
    orientation = frames[0].orientation
    if orientation is None:
        return np.array([0.0, 0.0, 1.0])
    normal = np.cross(orientation[0], orientation[1])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)


def _places(frames: Frames) -> NDArray[np.float64]:
    """Different places along the normal, ascending."""
    along = _along(frames)
    if along is None:
        return np.zeros(0)
    along = np.sort(along)
    return along[np.append(True, np.diff(along) > SAME_PLACE_MM)]


def _planes(frames: Frames) -> list[Frames]:
    """Slices by their orientation: an overview that is not called one lies across the others.

    They stay together, to be refused, where the others are no scan in even steps without it.
    """
    planes: list[list[Frame]] = []
    for frame in frames:
        for plane in planes:
            if _turned(frame, plane[0]) < _ANOTHER_PLANE:
                plane.append(frame)
                break
        else:
            planes.append([frame])
    places = _places(tuple(max(planes, key=len)))
    if not is_even(places.tolist(), rounding_of(frames)):
        return [frames]
    return [tuple(plane) for plane in planes]


def _turned(one: Frame, other: Frame) -> float:
    """By how much the directions of two slices differ; nothing where one is not known."""
    if one.orientation is None or other.orientation is None:
        return 0.0
    return float(np.abs(np.array(one.orientation) - np.array(other.orientation)).max())


def _parts(frames: Frames, along: NDArray[np.float64]) -> list[Frames]:
    """The acquisitions of a series in their order."""
    rounding = rounding_of(frames)
    parts: list[list[int]] = [list(range(len(frames)))]
    for attribute in (*_APART, *_IN_DOUBT):
        split: list[list[int]] = []
        for part in parts:
            groups: dict[object, list[int]] = {}
            for i in part:
                groups.setdefault(getattr(frames[i].taken, attribute), []).append(i)
            several = list(groups.values())
            whole = len(several) == 1 or (
                attribute in _IN_DOUBT and not _crowded(along[part])
            ) or _one_scan([along[g] for g in several], rounding)  # fmt: skip
            split += [part] if whole else several
        parts = split
    for attribute in _AMONG:
        parts = [one for part in parts for one in _apart(frames, along, part, attribute)]
    parts = [one for part in parts for one in _sweeps(frames, along, part)]
    parts.sort(
        key=lambda part: (
            _order(frames[part[0]].taken[:_NUMBERS]),
            frames[part[0]].taken.time or 0.0,
            min(frames[i].number or 0 for i in part),
            _order(frames[part[0]].taken[_NUMBERS:]),
            float(along[part].min()),
        )
    )
    return [tuple(frames[i] for i in part) for part in parts]


def _apart(
    frames: Frames, along: NDArray[np.float64], part: list[int], attribute: str
) -> list[list[int]]:
    """Slices by the values of an attribute, if those of different values lie among each other."""
    groups: dict[object, list[int]] = {}
    for i in part:
        groups.setdefault(getattr(frames[i].taken, attribute), []).append(i)
    several = sorted(groups.values(), key=lambda group: float(along[group].min()))
    among = any(
        along[upper].min() <= along[lower].max() + SAME_PLACE_MM
        for lower, upper in itertools.pairwise(several)
    )
    return several if among and min(map(len, several)) >= _LEAST else [part]


def _sweeps(frames: Frames, along: NDArray[np.float64], part: list[int]) -> list[list[int]]:
    """Slices by when they were taken: each time the table comes by again, a new stretch begins.

    In the order of their times, else of their InstanceNumbers. Where stretches come out as bits,
    the order means nothing, and the slices stay together.
    """
    orders: tuple[dict[int, float | None], ...] = (
        {i: frames[i].taken.time for i in part},
        {i: frames[i].number for i in part},
    )
    for order in orders:
        moments: dict[float, list[int]] = {}
        for i, moment in order.items():
            if moment is not None:
                moments.setdefault(moment, []).append(i)
        if sum(map(len, moments.values())) < len(part):
            continue
        groups = [group for _, group in sorted(moments.items())]
        jumps = [-_common(along[a], along[b]) for a, b in itertools.pairwise(groups)]
        longest = _JUMP * max(0.0, float(np.median(jumps or [0.0])))
        stretches = _joined(along, groups, [jump > longest > 0 for jump in jumps])
        sweeps = _joined(along, stretches, [False] * (len(stretches) - 1))
        common = [_common(along[a], along[b]) for a, b in itertools.pairwise(sweeps)]
        if common and max(common) > SAME_PLACE_MM and min(map(len, sweeps)) >= _LEAST:
            return sweeps
    return [part]


def _joined(
    along: NDArray[np.float64], groups: list[list[int]], apart: list[bool]
) -> list[list[int]]:
    """Groups in their order, each joined to those before it unless it comes by them again."""
    found: list[list[int]] = []
    for group, parted in zip(groups, [False, *apart], strict=True):
        if not found or parted or _common(along[found[-1]], along[group]) > -SAME_PLACE_MM:
            found.append([])
        found[-1] += group
    return found


def _common(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Length in mm that two groups of slices have in common; below 0 their distance."""
    return float(min(one.max(), other.max()) - max(one.min(), other.min()))


def _order(taken: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(-1.0 if value is None else value for value in taken)


def _crowded(along: NDArray[np.float64]) -> bool:
    """Several slices lie at one place."""
    return bool((np.diff(np.sort(along)) <= SAME_PLACE_MM).any())


def _one_scan(groups: Sequence[NDArray[np.float64]], rounding: float) -> bool:
    """Whether groups of slices are stretches that follow each other, as of a scan in steps."""
    ordered = sorted(groups, key=lambda g: float(g.min()))
    for lower, upper in itertools.pairwise(ordered):
        if upper.min() <= lower.max() + SAME_PLACE_MM:
            return False
    return len(groups) > _MOST_PASSES or is_even(np.sort(np.concatenate(groups)).tolist(), rounding)


def _regular_voxels(frames: Frames) -> int:
    """Voxels of the longest stretch of slices in regular steps."""
    steps = np.diff(_places(frames))
    allowed = np.maximum(0.05 * steps, np.minimum(2 * ROUNDING_MM, 0.4 * steps))
    longest = run = min(len(steps), 1)
    for k in range(1, len(steps)):
        run = run + 1 if abs(steps[k] - steps[k - 1]) <= allowed[k] else 1
        longest = max(longest, run)
    return (longest + 1) * frames[0].rows * frames[0].columns
