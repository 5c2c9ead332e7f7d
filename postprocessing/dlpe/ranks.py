"""Thresholds by rank: as many voxels as a share of the lungs or of the heart (spec dlpe §6).

How many voxels of a tree are found is fixed beforehand: airways are 2 % of the lung volume, vessels
10 %, whatever the patient. The threshold is the value of a given rank among all scores near the
lungs. It is found by counting bit patterns, exactly and without sorting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import ARTERY_RATIO, POSITIVE, RANK_HIGH, RANK_LOW, VEIN_RATIO, Tree
from hilum.catalog.errors import BadOption, InputError, NoLungs
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, as_uint8, namespace, to_host

from .extent import Box, blocks, extent, same_shape

Limits = tuple[int, int]
"""First index of the ranking box and the index after its last, at most, along every axis."""

LIMITS: Limits = (RANK_LOW, RANK_HIGH)

_HALF = 1 << 16
"""Values of the upper, and of the lower, half of the bits of a float32."""

_DESCENDING = np.concatenate([np.arange(_HALF // 2)[::-1], np.arange(_HALF // 2, _HALF)])
"""Upper halves from those of the largest numbers to those of the smallest: the sign comes first."""


def lung_box(lung: Array, limits: Limits = LIMITS) -> Box:
    """Box in which scores are ranked (spec dlpe §6.1).

    Parameters
    ----------
    lung
        uint8 [x, y, z], lung where not 0.
    limits
        No index of the box is below the first or reaches the second.

    Returns
    -------
    Half-open ranges. The last plane of the lungs along each axis is not in the box, as published.

    Raises
    ------
    InputError
        For a mask without lung, or lungs of which nothing lies within the limits.
    """
    found = extent(lung)
    if found is None:
        raise NoLungs("no lung was found in this scan; check that it is a chest CT in HU")
    first, second, third = (
        slice(max(s.start, limits[0]), min(s.stop - 1, limits[1])) for s in found
    )
    box = first, second, third
    if any(s.start >= s.stop for s in box):
        raise NoLungs(
            f"the lungs span {_told(found)}: too little of them lies within indices {limits[0]} to "
            f"{limits[1]} to rank voxels in; check the lung mask and the field of view"
        )
    return box


def rank_threshold(
    lung: Array, score: Array, ratio: float, limits: Limits = LIMITS, mode: Mode = "parity"
) -> float:
    """Score that a share of the lung volume exceeds; see `rank_thresholds`."""
    return rank_thresholds(lung, score, (ratio,), limits, mode)[0]


def rank_thresholds(
    lung: Array,
    score: Array,
    ratios: Sequence[float],
    limits: Limits = LIMITS,
    mode: Mode = "parity",
) -> tuple[float, ...]:
    """Scores that shares of the lung volume exceed, for several shares at once.

    Parameters
    ----------
    lung
        uint8 [x, y, z], 0 or 1; NumPy or CuPy.
    score
        float32 [x, y, z], for instance the sum of three probabilities.
    ratios
        Voxels above the threshold as shares of the lung voxels.
    limits
        Of the ranking box, see `lung_box`.
    mode
        ``"parity"`` rounds the number of lung voxels to float32, which matters above 2²⁴;
        ``"corrected"`` does not.

    Returns
    -------
    For each ratio the value of rank ⌊N·r⌋ (from 0, descending) in the box; it is a float32 number.

    Raises
    ------
    InputError
        For a lung mask that is empty or does not fit, a ratio that is negative or asks for more
        voxels than the box has, or scores that are not numbers.

    Notes
    -----
    Spec dlpe §6.1. Voxels strictly above the threshold pass: exactly ⌊N·r⌋ of the box when the
    scores differ, and those elsewhere in the volume that happen to exceed it.
    """
    same_shape(lung=lung, score=score)
    box, voxels = lung_box(lung, limits), count(lung)
    return _thresholds(box, voxels, ratios, mode, lambda block: score[block])


def channels(
    lung: Array, score: Array, tree: Tree, limits: Limits = LIMITS, mode: Mode = "parity"
) -> tuple[Array, Array]:
    """Masks of stage one that a tree's stage two sees beside the CT (spec dlpe §6.2).

    Parameters
    ----------
    lung, score, limits, mode
        As for `rank_thresholds`.
    tree
        Its `high_recall` and `high_precision` are the shares.

    Returns
    -------
    The mask of high recall and that of high precision, each uint8 [x, y, z].
    """
    shares = (tree.high_recall, tree.high_precision)
    recall, precision = rank_thresholds(lung, score, shares, limits, mode)
    return above(score, recall), above(score, precision)


def tree_mask(
    lung: Array,
    score: Array,
    ratio: float | None,
    limits: Limits = LIMITS,
    mode: Mode = "parity",
) -> Array:
    """Final mask of a tree (spec dlpe §6.3); it is not restricted to the lungs.

    Parameters
    ----------
    lung, score, limits, mode
        As for `rank_thresholds`.
    ratio
        Voxels as a share of the lung volume; None: all whose sum of probabilities exceeds 2.

    Returns
    -------
    uint8 [x, y, z].
    """
    if ratio is None:
        return above(score, POSITIVE)
    return above(score, rank_threshold(lung, score, ratio, limits, mode))


def root_masks(
    lung: Array,
    heart: Array,
    artery: Array,
    vein: Array,
    ratios: tuple[float, float] = (ARTERY_RATIO, VEIN_RATIO),
    limits: Limits = LIMITS,
    mode: Mode = "parity",
) -> tuple[Array, Array]:
    """Roots of the arteries and veins: shares of the heart volume outside the lungs.

    Parameters
    ----------
    lung, heart
        uint8 [x, y, z], 0 or 1.
    artery, vein
        float32 [x, y, z], sums of three probabilities.
    ratios
        Voxels of artery and vein as shares of the heart voxels.
    limits, mode
        As for `rank_thresholds`.

    Returns
    -------
    Masks of artery and vein, each uint8 [x, y, z]; a voxel that is in both belongs to neither.

    Raises
    ------
    InputError
        As for `rank_thresholds`, and for a mask without heart.

    Notes
    -----
    Spec dlpe §4.4. Ranked in the box of the lungs, as published.
    """
    same_shape(lung=lung, heart=heart, artery=artery, vein=vein)
    voxels = count(heart)
    if voxels == 0:
        raise NoLungs(
            "no heart was found, and the roots of arteries and veins are measured by its volume; "
            "check that the scan shows the heart, or run without the roots"
        )
    xp, box = namespace(lung), lung_box(lung, limits)
    found = []
    for score, ratio in zip((artery, vein), ratios, strict=True):

        def outside(block: Box, score: Array = score) -> Array:
            return xp.where(lung[block] != 0, xp.asarray(0, dtype=score.dtype), score[block])

        (threshold,) = _thresholds(box, voxels, (ratio,), mode, outside)
        mask = above(score, threshold)
        mask &= lung == 0
        found.append(mask)
    overlap = found[0] & found[1]
    for mask in found:
        mask ^= overlap
    return found[0], found[1]


def above(score: Array, threshold: float) -> Array:
    """Voxels strictly above a threshold, uint8 of the shape of `score` (float32)."""
    return as_uint8(score > float(np.float32(threshold)))


def count(mask: Array) -> int:
    """Count the voxels of a mask that are not 0; exact for any size."""
    return int(namespace(mask).count_nonzero(mask))


def _thresholds(
    box: Box,
    voxels: int,
    ratios: Sequence[float],
    mode: Mode,
    values: Callable[[Box], Array],
) -> tuple[float, ...]:
    """Turn shares of `voxels` into ranks, and find the values of those ranks in the box."""
    size = 1
    for s in box:
        size *= s.stop - s.start
    number = float(np.float32(voxels)) if mode == "parity" else float(voxels)
    ranks = [int(number * ratio) for ratio in ratios]
    for ratio, rank in zip(ratios, ranks, strict=True):
        if ratio < 0 or rank >= size:
            raise BadOption(
                f"a share of {ratio} of {voxels} voxels cannot be ranked among the {size} voxels "
                f"of the box {_told(box)}; give a share above 0, or check the masks"
            )
    return tuple(select(lambda: (values(b) for b in blocks(box)), ranks))


def select(parts: Callable[[], Iterator[Array]], ranks: Sequence[int]) -> list[float]:
    """Find the values of given ranks among float32 numbers that come in parts.

    Parameters
    ----------
    parts
        Gives all parts, of any shape; called twice.
    ranks
        From 0, in descending order of the numbers.

    Returns
    -------
    The values. Exact: the numbers are counted by the upper and then by the lower 16 bits of their
    patterns, whose order is that of the numbers; nothing is sorted.

    Raises
    ------
    InputError
        For numbers that are NaN.
    """
    counted: Array = None
    for part in parts():
        counted = _counted(counted, _halves(part)[..., 1])
    upper = to_host(counted)
    if upper[0x7F81:0x8000].sum() + upper[0xFF81:].sum():
        raise InputError(
            "the scores of some voxels are not numbers; a network overflowed: check its input for "
            "values far outside HU, or export it with --precision fp32"
        )
    places = [_place(upper[_DESCENDING], rank) for rank in ranks]
    buckets = [(int(_DESCENDING[place]), rest) for place, rest in places]
    lower: dict[int, Array] = {bucket: None for bucket, _ in buckets}
    for part in parts():
        halves = _halves(part)
        for bucket, known in lower.items():
            lower[bucket] = _counted(known, halves[halves[..., 1] == bucket][..., 0])
    histograms = {bucket: to_host(known) for bucket, known in lower.items()}
    return [_value(bucket, histograms[bucket], rest) for bucket, rest in buckets]


def _halves(part: Array) -> Array:
    """Lower and upper halves of the bits of float32 numbers, uint16 [n, 2]."""
    xp = namespace(part)
    return xp.ascontiguousarray(part, dtype=xp.float32).view(xp.uint16).reshape(-1, 2)


def _counted(known: Array, halves: Array) -> Array:
    """Add how often each half occurs to what was `known` (None at first), where they lie."""
    if not halves.size:  # CuPy refuses to count in an empty array
        return known
    counts = namespace(halves).bincount(halves, minlength=_HALF)
    if known is None:
        return counts
    known += counts
    return known


def _place(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Entry that holds the element of this rank, and the element's rank inside the entry."""
    ends = np.cumsum(counts)
    place = int(np.searchsorted(ends, rank, side="right"))
    return place, rank - int(ends[place] - counts[place])


def _value(upper: int, lower: NDArray[np.int64], rank: int) -> float:
    """Value of this rank among those with equal upper halves; larger bits are larger numbers."""
    negative = upper >= _HALF // 2
    place, _ = _place(lower if negative else lower[::-1], rank)
    bits = upper << 16 | (place if negative else _HALF - 1 - place)
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _told(box: Box) -> str:
    return " × ".join(f"{s.start}…{s.stop - 1}" for s in box)
