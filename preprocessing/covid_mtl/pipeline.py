"""From a chest CT to what COVID-MTL's networks take (spec covid_mtl §3 to §6).

Scan → stored values → voxels of 1 mm → lungs → common box → window. Each step is a function of its
own; `prepare` does them all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import (
    CLIP,
    CROP,
    MEAN,
    MIN_SLICES,
    STD,
    VOXEL_MM,
    WINDOW,
    WINDOW_START,
)
from hilum.catalog.errors import InputError, NoLungs
from hilum.catalog.terms import Mode

from ..arrays import Array, namespace, to_host
from ..dlpe.source import Scan
from ..reading.volume import Geometry, Triple
from ..workers import Watch
from .intake import take_in
from .lungs import LearnedMask, LungMask, check_shape, judged, segment_lungs
from .resample import resampled_geometry, to_millimetres

TRUNCATED = 0.95
"""The window is flagged when it shows less than this share of the lungs."""

CUT_BY_BOX, TRUNCATED_WINDOW = "cut_by_box", "truncated_window"
"""Flags that hold for most patients: parts of the lungs lie outside the box, or the window."""

SHARES = {"read": 0.1, "resample": 0.3, "lungs": 1.0}
"""Share of the work of `prepare` that is done after each step."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scan that is ready for the networks.

    Attributes
    ----------
    crop
        uint16 [340, 390, 390]: stored values of the common box, 0 where no lung is.
    stored
        uint16 or int16 [z, y, x]: the whole scan in voxels of 1 mm; for pictures.
    lungs
        Of the whole scan.
    geometry
        Where the voxels of `stored` lie; None when that is unknown.
    spacing
        What the voxels of the scan were taken to measure before resampling, [z, y, x] in mm.
    box_share, window_share
        Shares of the lungs inside the common box, and of those inside the networks' window.
    flags
        What casts doubt on a result: those of `Intake`, ``one_lung``, ``implausible_volume``,
        ``learned_mask``, `CUT_BY_BOX`, `TRUNCATED_WINDOW`.
    seconds
        By step: ``read``, ``resample``, ``lungs``, ``box``.
    notes
        For people to read.
    """

    crop: NDArray[np.uint16]
    stored: NDArray[np.uint16 | np.int16]
    lungs: LungMask
    geometry: Geometry | None
    spacing: Triple
    box_share: float
    window_share: float
    flags: tuple[str, ...]
    seconds: dict[str, float]
    notes: tuple[str, ...]


def prepare(
    scan: Scan,
    mode: Mode = "parity",
    *,
    learned: LearnedMask | None = None,
    pool: Executor | None = None,
    watch: Watch | None = None,
) -> Prepared:
    """Prepare a scan.

    Parameters
    ----------
    scan
        A series, or a volume in HU whose voxels may lie on a GPU.
    mode
        ``"parity"`` or ``"corrected"``; see the single steps.
    learned, pool, watch
        As `segment_lungs` takes them.

    Raises
    ------
    InputError
        For a scan that cannot be read, has fewer than 3 slices or voxels of unusual size, or shows
        no lung.
    concurrent.futures.CancelledError
        When the watch wants an end.
    """
    watch, seconds = watch or Watch(), {}
    with _timed(seconds, "read"):
        taken = take_in(scan, mode)
    watch.done(SHARES["read"])
    with _timed(seconds, "resample"):
        part = watch.part(SHARES["read"], SHARES["resample"])
        stored = to_host(to_millimetres(taken.stored, taken.spacing, watch=part))
    with _timed(seconds, "lungs"):
        part = watch.part(SHARES["resample"], SHARES["lungs"])
        lungs = segment_lungs(stored, mode, learned=learned, pool=pool, watch=part)
    with _timed(seconds, "box"):
        crop = common_box(_masked(stored, lungs.mask))
        shares = _share(lungs.mask), window_share(crop)
    notes = (*taken.notes, *lungs.notes)
    if mode == "parity" and not published_box(stored.shape):
        notes += ("the published program has no box for a scan of this size and leaves it out",)
    return Prepared(
        crop,
        stored,
        lungs,
        resampled_geometry(taken.geometry, stored.shape),
        taken.spacing,
        *shares,
        (*taken.flags, *_flags(lungs, *shares)),
        seconds,
        notes,
    )


def prepare_lungs(
    volume: NDArray[np.uint16], mask: NDArray[Any] | None = None, notes: tuple[str, ...] = ()
) -> Prepared:
    """Prepare lungs that were segmented before: what the published containers hold (spec §5.2).

    Parameters
    ----------
    volume
        uint16 [z, y, x]: stored values in voxels of 1 mm, 0 where no lung is; the whole scan or
        its common box.
    mask
        Of any type, 0 where no lung is; None: the voxels above 0.
    notes
        For people to read.

    Raises
    ------
    InputError
        For fewer than 3 slices, a mask of another size, and without any lung.
    """
    if len(volume) < MIN_SLICES:
        raise NoLungs(f"{len(volume)} slice(s) of lung; give a volume of {MIN_SLICES} at least")
    if mask is not None:
        check_shape(mask, volume.shape)
    found = judged(((volume if mask is None else mask) > 0).astype(np.uint8))
    if not found.litres or not volume.any():
        raise NoLungs("no lung in the volume (no voxel above 0); segment the scan again")
    seconds: dict[str, float] = {}
    with _timed(seconds, "box"):
        crop = common_box(volume if mask is None else _masked(volume, found.mask))
        shares = _share(found.mask), window_share(crop)
    flags = _flags(found, *shares)
    spacing = (VOXEL_MM, VOXEL_MM, VOXEL_MM)
    return Prepared(
        crop, volume, found, None, spacing, *shares, flags, seconds, (*notes, *found.notes)
    )


def box_offsets(shape: tuple[int, ...], target: Shape = CROP) -> tuple[Shape, Shape]:
    """First voxel of a volume that the common box shows, and where in the box it goes."""
    pairs = list(zip(shape, target, strict=True))
    z, y, x = (max(0, (n - t) // 2) for n, t in pairs)
    to_z, to_y, to_x = (max(0, (t - n) // 2) for n, t in pairs)
    return (z, y, x), (to_z, to_y, to_x)


def common_box(volume: Array, target: Shape = CROP) -> Array:
    """Cut the common box out of the middle of a volume, with zeros where it is larger.

    Parameters
    ----------
    volume
        [z, y, x] of any type, NumPy or CuPy.
    target
        Size of the box.

    Notes
    -----
    The published program leaves the surroundings uninitialised, and knows some mixtures of larger
    and smaller axes only (`published_box`); where it works this is equal to it (spec §5.1).
    """
    xp = namespace(volume)
    box = xp.zeros(target, dtype=volume.dtype)
    starts, places = box_offsets(volume.shape, target)
    counts = [min(n, t) for n, t in zip(volume.shape, target, strict=True)]
    part = tuple(slice(s, s + c) for s, c in zip(starts, counts, strict=True))
    box[tuple(slice(p, p + c) for p, c in zip(places, counts, strict=True))] = volume[part]
    return box


def published_box(shape: tuple[int, ...], target: Shape = CROP) -> bool:
    """Tell whether the published program has a box for volumes of this shape (spec §5.1)."""
    z, y, x = (n - t for n, t in zip(shape, target, strict=True))
    larger = z >= 0 and y >= 0 and x >= 0
    smaller = z < 0 and y < 0 and x < 0
    return larger or smaller or (z >= 0 and y <= 0 and x <= 0) or (z < 0 and y >= 0 and x >= 0)


def network_window(crop: Array) -> Array:
    """Cut the networks' window out of the common box, as it travels to the server.

    Parameters
    ----------
    crop
        uint16 [340, 390, 390], NumPy or CuPy.

    Returns
    -------
    float16 [200, 250, 250]: whole numbers 0…2000, exact in this type; normalised in the graph.

    Raises
    ------
    InputError
        For a volume of another size.
    """
    _check_box(crop)
    xp = namespace(crop)
    return xp.minimum(crop[_WINDOW], crop.dtype.type(CLIP)).astype(xp.float16)


def window_step(crop: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Cut the window out of the common box: the Python step ``covid_mtl_window``.

    Parameters
    ----------
    crop
        uint16 [340, 390, 390].

    Returns
    -------
    ``volume`` float16 [200, 250, 250].

    Raises
    ------
    InputError
        For a volume of another size.
    """
    return {"volume": network_window(crop)}


def normalise(volume: Array) -> Array:
    """Normalise stored values as the published program does: in float64, then float16 (spec §6).

    The served graphs hold this step, in single precision; this is for comparison with the published
    program.
    """
    xp = namespace(volume)
    limited = xp.minimum(volume.astype(xp.float64), CLIP)
    return ((limited - MEAN) / STD).astype(xp.float16)


def window_share(crop: Array) -> float:
    """Share of a common box's lung voxels that the networks' window shows; 0 without any."""
    _check_box(crop)
    count = namespace(crop).count_nonzero
    return int(count(crop[_WINDOW] > 0)) / max(1, int(count(crop > 0)))


_WINDOW = tuple(slice(s, s + n) for s, n in zip(WINDOW_START, WINDOW, strict=True))


def _check_box(crop: Array) -> None:
    if tuple(crop.shape) != CROP:
        raise InputError(f"a volume {list(crop.shape)}; give the common box {list(CROP)}")


def _masked(stored: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Stored values, 0 where the mask is; both types of them have no negative values here."""
    return stored.astype(np.uint16) * mask


def _share(mask: NDArray[np.uint8]) -> float:
    inside = common_box(mask)
    return int(np.count_nonzero(inside)) / max(1, int(np.count_nonzero(mask)))


def _flags(lungs: LungMask, box_share: float, window: float) -> tuple[str, ...]:
    found = {
        "one_lung": lungs.one_lung,
        "implausible_volume": lungs.implausible,
        "learned_mask": lungs.learned,
        CUT_BY_BOX: box_share < 1,
        TRUNCATED_WINDOW: window < TRUNCATED,
    }
    return tuple(flag for flag, there in found.items() if there)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = time.perf_counter() - start
