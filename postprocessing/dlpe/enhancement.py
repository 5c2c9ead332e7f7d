"""Parenchyma enhancement: baseline, window and enhanced volume of one scan (spec dlpe §7).

Airways and vessels are taken out of the lungs; the tissue around them shows the density of healthy
parenchyma in this scan. What remains is shown relative to that baseline in a narrow window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hilum.catalog.dlpe import (
    ENHANCED_RANGE,
    HU_OFFSET,
    HU_SCALE,
    RING_CAPS,
    RING_LEAST,
    RING_RATIOS,
    SIDE,
    WIDTH_FACTOR,
)
from hilum.catalog.errors import NoLungs
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, as_bool, namespace

from .extent import blocks, extent, same_shape
from .ranks import count
from .tubes import Growth, extend_each

Variant = Literal["general", "upper-frontal"]
"""Where parenchyma is sampled: around all structures, or in the upper frontal lung only."""

_UPPER = 0.32988803223955687
"""Share of the lungs' height that is upper lung."""

_FRONTAL_HIGHEST = -0.1
"""A baseline above this (−760 HU) is suspicious in the upper frontal lung."""


@dataclass(frozen=True, slots=True)
class Enhancement:
    """The enhanced volume of a scan and how it came about.

    Attributes
    ----------
    volume
        float32 [x, y, z]: normalised values relative to the baseline, clipped to −0.05…0.25
        (−80…+400 HU); 0 outside the lungs and in airways and vessels.
    baseline
        Of healthy parenchyma, normalised.
    std
        Standard deviation of the middle 80 % of the samples, normalised.
    window_level, window_width
        The scan-optimal window in HU.
    ring_voxels
        Voxels in `ring`.
    ring
        uint8 [x, y, z]: parenchyma around airways and vessels from which samples are taken.
    outside_lung
        Voxels of `ring` outside the lungs; they count as −600 HU (mode ``"parity"`` only).
    fallback
        The ring was too small: baseline and window come from all of the lungs without structures.
    notes
        What is unusual, human-readable.
    """

    volume: Array
    baseline: float
    std: float
    window_level: float
    window_width: float
    ring_voxels: int
    ring: Array
    outside_lung: int
    fallback: bool
    notes: tuple[str, ...] = ()


def enhance(
    ct: Array,
    lung: Array,
    airway: Array,
    vessel: Array,
    mode: Mode = "parity",
    variant: Variant = "general",
    without: Array | None = None,
) -> Enhancement:
    """Enhance the parenchyma of a scan in normalised space.

    Parameters
    ----------
    ct
        float32 [x, y, z], normalised ((HU + 600) / 1600); NumPy or CuPy. It is not changed.
    lung, airway, vessel
        uint8 [x, y, z], 0 or 1.
    mode
        ``"parity"`` (spec dlpe §7.1): as published, with samples outside the lungs, a median one
        rank high for odd counts, and samples rounded to multiples of 2⁻²⁰. ``"corrected"`` (§7.5):
        samples in the lungs only and a true median; the lungs without structures serve as the ring
        when it has less than 10 000 voxels (at 512³).
    variant
        ``"upper-frontal"`` samples only the upper frontal lung (§7.6), where disease is rare.
    without
        uint8 [x, y, z], 0 or 1: what is taken out before, as the published script for the follow-up
        set does with visible lesions (spec dlpe_quantification §7). Mode ``"parity"``: set to
        −600 HU, so that it becomes a bright plateau; ``"corrected"``: not sampled, and 0.

    Raises
    ------
    InputError
        For volumes that do not fit, a scan without lung, or lungs that are nothing but structures.

    Notes
    -----
    A ring of one voxel or none stops the published program; here both modes fall back.
    """
    shape = same_shape(ct=ct, lung=lung, airway=airway, vessel=vessel)
    if count(lung) == 0:
        raise NoLungs("no lung was found in this scan; check that it is a chest CT in HU")
    structures = (airway | vessel) & lung
    ring = sampling_ring(lung, structures, mode, variant)
    healthy = lung & ~structures
    if without is not None and mode == "parity":
        ct = ct * (1 - without)
    elif without is not None:
        ring &= ~without & 1
        healthy &= ~without & 1
    ring_voxels, notes = count(ring), list[str]()
    outside_lung = ring_voxels - count(ring & lung)
    least = 2 if mode == "parity" else max(2, round(RING_LEAST * ct.size / SIDE**3))
    fallback = ring_voxels < least
    if fallback:
        samples = _samples(ct, lung, healthy)
        notes.append(_fallback_note(ring_voxels, least, samples.shape[0]))
        baseline, std = corrected_statistics(samples)
    else:
        samples = _samples(ct, lung, ring)
        baseline, std = (
            published_statistics(samples) if mode == "parity" else corrected_statistics(samples)
        )
        if outside_lung:
            notes.append(
                f"{outside_lung} of {ring_voxels} samples of parenchyma lie outside the lungs and "
                "count as −600 HU, as in the published program; mode corrected leaves them out"
            )
    if variant == "upper-frontal":
        notes += _frontal_notes(ring_voxels, baseline)
    volume = _relative(ct, lung, structures, baseline, shape)
    if without is not None and mode == "corrected":
        volume *= 1 - without
    return Enhancement(
        volume, baseline, std, HU_OFFSET + HU_SCALE * baseline, WIDTH_FACTOR * HU_SCALE * std,
        ring_voxels, ring, outside_lung, fallback, tuple(notes),
    )  # fmt: skip


def sampling_ring(
    lung: Array, structures: Array, mode: Mode = "parity", variant: Variant = "general"
) -> Array:
    """Parenchyma between the outlines of structures enlarged by 10 and by 20 %.

    Parameters
    ----------
    lung, structures
        uint8 [x, y, z], 0 or 1; structures are airways and vessels inside the lungs.
    mode, variant
        As for `enhance`; outside the lungs only in mode ``"parity"`` with ``"general"``.

    Returns
    -------
    uint8 [x, y, z].
    """
    growths = [Growth(ratio, cap) for ratio, cap in zip(RING_RATIOS, RING_CAPS, strict=True)]
    inner, ring = extend_each(structures, growths, mode)
    inner ^= 1
    ring &= inner
    if mode == "corrected" or variant == "upper-frontal":
        ring &= lung
    if variant == "upper-frontal":
        box = upper_frontal_box(lung)
        part = namespace(ring).asarray(ring[box], copy=True)
        ring[...] = 0
        ring[box] = part
    return ring


def upper_frontal_box(lung: Array) -> tuple[slice, slice, slice]:
    """Box of the upper frontal lung (spec dlpe §7.6).

    Parameters
    ----------
    lung
        uint8 [x, y, z], 0 or 1, not empty.

    Returns
    -------
    Half-open ranges: the frontal half of the lungs' section at two thirds of their height, from
    there up to their last plane, which is excluded. Empty when there is no lung at that height.
    """
    whole = extent(lung)
    if whole is None:
        raise NoLungs("no lung was found in this scan; check that it is a chest CT in HU")
    low, high = whole[2].start, whole[2].stop - 1
    lowest = int(high - (high - low) * _UPPER)
    section = extent(lung[:, :, lowest : lowest + 1])
    front = back = 0
    if section is not None:
        front, back = section[0].start, section[0].stop - 1
    return (
        slice(front, back - int((back - front) / 2)),
        slice(0, lung.shape[1]),
        slice(lowest, high),
    )


def published_statistics(samples: Array) -> tuple[float, float]:
    """Baseline and spread of parenchyma as published (spec dlpe §7.1).

    Parameters
    ----------
    samples
        float32 [N], normalised, N above 1; NumPy or CuPy.

    Returns
    -------
    The median, one rank high for odd N, and the standard deviation of the middle 80 %, both of the
    samples rounded by adding 10. The deviation is published to the bit on the host alone: a GPU
    adds in another order.
    """
    # Sorted, not selected: the float32 sums of the deviation depend on the order.
    xp = namespace(samples)
    ordered = xp.sort(samples + 10.0, stable=False)
    n = ordered.shape[0]
    middle = ordered[n - int(n * 0.9) : n - int(n * 0.1)]
    return float(ordered[n - int(n * 0.5)]) - 10, float(xp.std(middle))


def corrected_statistics(samples: Array) -> tuple[float, float]:
    """Baseline and spread of parenchyma (spec dlpe §7.5).

    Parameters
    ----------
    samples
        float32 [N], normalised; NumPy or CuPy.

    Returns
    -------
    The median, and the standard deviation of the middle 80 %, in float64.

    Raises
    ------
    InputError
        Without samples.
    """
    xp, n = namespace(samples), samples.shape[0]
    if n == 0:
        raise NoLungs(
            "the lungs of this scan are all airways and vessels, so nothing shows the density of "
            "parenchyma; check the masks"
        )
    low, high = min(n - 9 * n // 10, n - 1), n - n // 10
    ranks = sorted({low, high - 1, (n - 1) // 2, n // 2})
    ordered = xp.partition(samples, ranks)
    median = (float(ordered[(n - 1) // 2]) + float(ordered[n // 2])) / 2
    return median, float(ordered[low:high].std(dtype=xp.float64))


def _samples(ct: Array, lung: Array, where: Array) -> Array:
    """Values of the CT at the voxels of a mask, float32 [n], 0 outside the lungs."""
    xp, box = namespace(ct), extent(where)
    if box is None:
        return xp.zeros(0, dtype=xp.float32)
    chosen = as_bool(where[box])
    nothing = xp.asarray(0, dtype=xp.float32)
    return xp.where(lung[box][chosen] != 0, ct[box][chosen], nothing)


def _relative(
    ct: Array, lung: Array, structures: Array, baseline: float, shape: tuple[int, int, int]
) -> Array:
    """Lung relative to the baseline, clipped; 0 outside and in structures."""
    xp = namespace(ct)
    volume = xp.zeros(shape, dtype=xp.float32)
    box = extent(lung)
    if box is None:
        return volume
    low, high = ENHANCED_RANGE
    nothing = xp.asarray(0, dtype=xp.float32)
    for block in blocks(box):
        relative = ct[block] - baseline
        relative = xp.minimum(xp.maximum(relative, low), high)
        parenchyma = lung[block] > structures[block]
        volume[block] = xp.where(parenchyma, relative, nothing)
    return volume


def _fallback_note(ring_voxels: int, least: int, samples: int) -> str:
    return (
        f"only {ring_voxels} voxels of parenchyma lie around airways and vessels (at least {least} "
        f"are needed); the baseline is the median of all {samples} voxels of the lungs outside them"
    )


def _frontal_notes(ring_voxels: int, baseline: float) -> list[str]:
    """What the published program warns of in the upper frontal lung."""
    notes = []
    if ring_voxels < RING_LEAST:
        notes.append(f"only {ring_voxels} samples in the upper frontal lung")
    if baseline > _FRONTAL_HIGHEST:
        level = HU_OFFSET + HU_SCALE * baseline
        notes.append(f"the baseline of the upper frontal lung is high: {level:.0f} HU")
    return notes
