"""The lungs of a scan by thresholds, connected components and active contours.

Spec covid_mtl §4.2 and §4.3. Volumes are [z, y, x] in voxels of 1 mm, stored values S = HU + 1024.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import AIR, LUNG_LITRES, SECOND_LUNG, VOXEL_MM
from hilum.catalog.errors import InputError, NoLungs
from hilum.catalog.terms import Mode

from ..regions import label_regions
from ..workers import Watch, cores, run_each
from .outline import refine_slices

Stored = NDArray[np.uint16 | np.int16]
Mask = NDArray[np.uint8]

LearnedMask = Callable[[], Mask]
"""Gives a lung mask uint8 [z, y, x] from elsewhere, say a network."""

_BATCH = 8
"""Slices that a process refines at a time."""

_INITIAL_SHARE = 0.15
"""Share of the work that the initial mask is."""


@dataclass(frozen=True, slots=True)
class LungMask:
    """The lungs.

    Attributes
    ----------
    mask
        uint8 [z, y, x], 0 or 1.
    litres
        Their volume.
    one_lung
        A second component as large as a lung lay on the other side of the body and was dropped, as
        the published program does when no airway joins the lungs.
    implausible
        The volume is outside `LUNG_LITRES`.
    learned
        The mask came from elsewhere.
    notes
        For people to read.
    """

    mask: Mask
    litres: float
    one_lung: bool = False
    implausible: bool = False
    learned: bool = False
    notes: tuple[str, ...] = ()


def segment_lungs(
    stored: Stored,
    mode: Mode = "parity",
    *,
    learned: LearnedMask | None = None,
    pool: Executor | None = None,
    watch: Watch | None = None,
) -> LungMask:
    """Find the lungs.

    Parameters
    ----------
    stored
        uint16 [z, y, x]; int16 where the published program had negative values.
    mode
        ``"parity"``: as published; ``"corrected"``: keeps both lungs when no airway joins them, and
        refuses an implausible volume.
    learned
        Mode ``corrected``: what to ask when the lungs are not found or implausible. Its mask is
        not refined.
    pool
        Processes that share the slices (`workers.open_pool`); None: threads, one for each core.
    watch
        Who follows.

    Raises
    ------
    InputError
        When there is no lung, and in mode ``corrected`` for an implausible volume; with `learned`,
        when that is no better.
    concurrent.futures.CancelledError
        When the watch wants an end.
    """
    watch = watch or Watch()
    watch.check()
    initial, one_lung, notes = initial_mask(stored, mode)
    watch.done(_INITIAL_SHARE)
    refined = refine(stored, initial, pool=pool, watch=watch.part(_INITIAL_SHARE, 1))
    found = judged(refined, one_lung=one_lung, notes=notes)
    if mode == "corrected" and found.implausible and learned is not None:
        why = f"the thresholds found {found.litres:.2f} l of lung; the mask is a learned one"
        found = judged(_checked(learned(), stored.shape), learned=True, notes=(why,))
    low, high = LUNG_LITRES
    if not found.litres:
        wanted = "in Hounsfield units"
        if mode == "parity":
            wanted = "whose numbers are HU + 1024, or choose mode corrected, which converts them"
        raise NoLungs(f"no lung found: no air inside the body; give a CT of the chest {wanted}")
    if mode == "corrected" and found.implausible:
        raise NoLungs(
            f"{found.litres:.2f} l of lung found, plausible are {low:g} to {high:g} l; give a CT "
            "of a whole chest in Hounsfield units, or a learned mask (serve lungmask, too)"
        )
    return found


def refine(
    stored: Stored, lung: Mask, *, pool: Executor | None = None, watch: Watch | None = None
) -> Mask:
    """Refine the lungs slice by slice (spec covid_mtl §4.3).

    Parameters
    ----------
    stored, lung
        [z, y, x]; the mask uint8, 0 or 1.
    pool, watch
        As `segment_lungs` takes them.
    """
    watch = watch or Watch()
    there = np.flatnonzero(lung.any(axis=(1, 2)))
    out = np.zeros_like(lung)
    if not len(there):
        return out
    firsts = range(int(there[0]), int(there[-1]) + 1, _BATCH)
    batches = [slice(k, min(k + _BATCH, firsts.stop)) for k in firsts]
    tasks = [(stored[batch], lung[batch]) for batch in batches]
    # About half of the time is spent in libraries that let other threads run.
    with (
        ThreadPoolExecutor(cores(), thread_name_prefix="hilum-lungs") as threads,
        closing(run_each(refine_slices, tasks, pool or threads, watch)) as finished,
    ):
        for ready, (number, refined) in enumerate(finished, 1):
            out[batches[number]] = refined
            watch.done(ready / len(batches))
    return out


def judged(
    mask: Mask, *, one_lung: bool = False, learned: bool = False, notes: tuple[str, ...] = ()
) -> LungMask:
    """Measure the lungs and judge their volume; `mask` is uint8 [z, y, x], 0 or 1."""
    litres = int(np.count_nonzero(mask)) * VOXEL_MM**3 / 1e6
    low, high = LUNG_LITRES
    implausible = not low <= litres <= high
    if implausible:
        notes += (f"{litres:.2f} l of lung; plausible are {low:g} to {high:g} l",)
    return LungMask(mask, litres, one_lung, implausible, learned, notes)


def check_shape(mask: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse a mask that does not lie voxel for voxel on a scan of this shape."""
    if mask.shape != shape:
        raise InputError(
            f"a lung mask {list(mask.shape)} for a scan of {list(shape)} voxels of 1 mm; "
            "give it in the same voxels"
        )


def _checked(mask: Mask, shape: tuple[int, ...]) -> Mask:
    check_shape(mask, shape)
    return (mask > 0).astype(np.uint8)


def initial_mask(stored: Stored, mode: Mode = "parity") -> tuple[Mask, bool, tuple[str, ...]]:
    """The lungs before refinement (spec covid_mtl §4.2).

    Parameters
    ----------
    stored
        [z, y, x].
    mode
        ``"corrected"`` keeps a second component that is the other lung.

    Returns
    -------
    uint8 [z, y, x], 0 or 1, all 0 when there is no air inside the body; whether a lung was dropped;
    notes on it.
    """
    inner = _inner_air(stored)
    box = _box(inner, grown=1)
    if box is None:
        return inner, False, ()
    enclosed = np.zeros_like(inner)
    enclosed[box] = _enclosed(inner[box])
    lung = np.zeros_like(inner)
    for k in range(box[0].start, box[0].stop):
        _fill(inner[k], enclosed[k], lung[k])
    box = _box(lung)
    if box is None:
        return lung, False, ()
    labels, _ = label_regions(lung[box])
    sizes = np.bincount(labels.ravel())[1:]
    largest = int(sizes.argmax()) + 1
    other = _other_lung(labels, sizes, _midline(stored[box[0]]) - box[2].start)
    kept = labels == largest
    notes: tuple[str, ...] = ()
    if other and mode == "corrected":
        kept |= labels == other
    elif other:
        notes = (
            "no airway joins the lungs, so the published program drops one of them; mode corrected "
            "keeps both",
        )
    lung[box] = kept
    return lung, bool(other) and mode == "parity", notes


def _inner_air(stored: Stored) -> Mask:
    """Air that does not touch the edge of its slice."""
    inner = np.zeros(stored.shape, np.uint8)
    for plane, out in zip(stored, inner, strict=True):
        air = (plane < AIR).astype(np.uint8)
        count, labels = cv2.connectedComponents(air, connectivity=8)
        keep = np.ones(count, np.uint8)
        keep[0] = 0
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            keep[edge] = 0
        out[:] = keep[labels]
    return inner


def _enclosed(inner: Mask) -> NDArray[np.bool_]:
    """What is neither inner air nor joined to the outside.

    Inner air never touches the edge of a slice, so with a margin of one voxel the first voxel of
    its box is joined to both corners of the volume, whose regions the published program removes.
    """
    labels, _ = label_regions(inner == 0)
    return (labels != labels[0, 0, 0]) & (inner == 0)


def _fill(inner: Mask, enclosed: Mask, out: Mask) -> None:
    """Write 1 where a slice is not its largest region of one class."""
    outside = (inner | enclosed) ^ 1
    if outside.all():
        return
    largest: list[NDArray[np.bool_]] = []
    most = 0
    for kind in (outside, inner, enclosed):
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(kind, connectivity=8)
        areas = statistics[1:, cv2.CC_STAT_AREA]
        if len(areas) and areas.max() >= most:
            regions = [labels == i + 1 for i in np.flatnonzero(areas == areas.max())]
            largest = regions if areas.max() > most else [*largest, *regions]
            most = areas.max()
    first = min(largest, key=lambda region: int(region.argmax())) if largest[1:] else largest[0]
    out[:] = ~first


def _other_lung(labels: NDArray[np.int32], sizes: NDArray[np.int64], midline: float) -> int:
    """Label of the second largest component if it is the other lung, else 0."""
    if len(sizes) < 2:
        return 0
    second, first = (int(i) + 1 for i in np.argsort(sizes, kind="stable")[-2:])
    if sizes[second - 1] <= SECOND_LUNG * sizes[first - 1]:
        return 0
    columns = np.arange(labels.shape[2])
    sides = [(labels == i).sum(axis=(0, 1)) @ columns / sizes[i - 1] for i in (first, second)]
    return second if (sides[0] - midline) * (sides[1] - midline) < 0 else 0


def _midline(stored: Stored) -> float:
    """Column in the middle of the body."""
    tissue = (stored >= AIR).sum(axis=(0, 1))
    return float(tissue @ np.arange(len(tissue)) / max(1, tissue.sum()))


def _box(mask: Mask, grown: int = 0) -> tuple[slice, slice, slice] | None:
    """The smallest box around a mask, larger by some voxels where the array has them."""
    rows = mask.any(axis=2)
    spans = []
    for side, length in zip(
        (rows.any(axis=1), rows.any(axis=0), mask.any(axis=(0, 1))), mask.shape, strict=True
    ):
        there = np.flatnonzero(side)
        if not len(there):
            return None
        first, last = int(there[0]) - grown, int(there[-1]) + 1 + grown
        spans.append(slice(max(0, first), min(length, last)))
    return spans[0], spans[1], spans[2]
