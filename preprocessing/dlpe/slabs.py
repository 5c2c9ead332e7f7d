"""Slabs: stacks of consecutive slices of a volume along one axis, as 2.5-D networks take them.

Volumes are [x, y, z] in normalised space. A slab of S slices along direction d is
[S + 2·margin, H, W] with the image axes of `catalog.dlpe.IMAGE_AXES`; slices outside the volume are
0 (spec dlpe §5.1). Slices are independent of each other, so slices with the same input need only be
computed once (spec dlpe §11.4 item 1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import DIRECTIONS, IMAGE_AXES, Direction

from ..arrays import Array, namespace, to_host

_OUTSIDE = 0.0
"""Value of the slices outside a volume (normalised units, that is −600 HU)."""

_SPARSE = 37
"""Every so many voxels of a slice are looked at before all of them are."""

_BLOCK = 16
"""Slices that are compared at once."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Slices `start` to `stop` (exclusive) of a volume along one direction.

    Attributes
    ----------
    copies
        Slices that have the same input as one of the slab, and so the same output: by the slab's
        slice, counted in the volume.
    """

    direction: Direction
    start: int
    stop: int
    copies: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def settled(self) -> int:
        """Slices whose output the slab gives."""
        return len(self) + sum(map(len, self.copies.values()))


def slices_first(volume: Array, direction: Direction) -> Array:
    """View a volume [x, y, z] as the slices [n, H, W] of one direction."""
    axes = (DIRECTIONS.index(direction), *IMAGE_AXES[direction])
    return namespace(volume).permute_dims(volume, axes)


def cut(volume: Array, slab: Slab, margin: int = 0, dtype: Any = None) -> Array:
    """Cut a slab out of a volume.

    Parameters
    ----------
    volume
        [x, y, z].
    margin
        Further slices on both ends; 0 where there are none.
    dtype
        Of the slab; the volume's when None.

    Returns
    -------
    [S + 2·margin, H, W], contiguous, of the volume's array module.
    """
    xp = namespace(volume)
    slices = slices_first(volume, slab.direction)
    first, last = slab.start - margin, slab.stop + margin
    low, high = max(first, 0), min(last, slices.shape[0])
    cutting = xp.empty((last - first, *slices.shape[1:]), dtype=dtype or volume.dtype)
    cutting[: low - first, ...] = _OUTSIDE
    cutting[low - first : high - first, ...] = slices[low:high, ...]
    cutting[high - first :, ...] = _OUTSIDE
    return cutting


def add(total: Array, slab: Slab, values: Array) -> None:
    """Add a slab's output to a volume, for its slices and their copies.

    Not thread-safe: two slabs of different directions share voxels.

    Parameters
    ----------
    total
        [x, y, z], changed in place.
    values
        [S, H, W] of the same array module.
    """
    slices = slices_first(total, slab.direction)
    slices[slab.start : slab.stop, ...] += values
    for source, copies in slab.copies.items():
        for copy in copies:
            slices[copy, ...] += values[source - slab.start, ...]


def same_inputs(
    volume: Array,
    direction: Direction,
    window: Sequence[int],
    channels: Iterable[Array] = (),
) -> NDArray[np.intp]:
    """Find slices whose networks see the same.

    Only slices are compared that see nothing but constant slices: the fill around a scan, and the
    zeros outside the lungs of an enhanced volume.

    Parameters
    ----------
    volume
        [x, y, z].
    window
        Offsets of the slices that any of the networks sees.
    channels
        Further volumes of which a network sees the slice itself.

    Returns
    -------
    For each slice the first one with the same input: itself for most.
    """
    own = [_constants(c, direction) for c in channels]
    seen = _constants(volume, direction)
    count = len(seen)
    first: dict[tuple[float, ...], int] = {}
    same = np.arange(count)
    for i in range(count):
        key = [c[i] for c in own]
        key += [seen[i + w] if 0 <= i + w < count else _OUTSIDE for w in sorted(window)]
        if not np.isnan(key).any():
            same[i] = first.setdefault(tuple(key), i)
    return same


def plan(
    direction: Direction, wanted: NDArray[np.bool_], same: NDArray[np.intp], length: int
) -> list[Slab]:
    """Put the wanted slices into slabs.

    Parameters
    ----------
    wanted
        Which slices are wanted.
    same
        For each slice the first one with the same input (`same_inputs`).
    length
        Most slices of a slab.

    Returns
    -------
    Slabs of about equal length for each run of slices, in order; every wanted slice is in exactly
    one of them, or a copy of a slice that is.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for i in np.flatnonzero(wanted).tolist():
        groups[int(same[i])].append(i)
    members = {group[0]: tuple(group[1:]) for group in groups.values()}
    slabs = []
    for start, stop in _runs(sorted(members)):
        parts = -(-(stop - start) // length)
        edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
        for a, b in pairwise(edges):
            copies = {i: members[i] for i in range(a, b) if members[i]}
            slabs.append(Slab(direction, a, b, MappingProxyType(copies)))
    return slabs


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Consecutive numbers of an ascending list as (first, last + 1)."""
    start = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1:
            yield numbers[start], numbers[k - 1] + 1
            start = k


def _constants(volume: Array, direction: Direction) -> NDArray[np.float64]:
    """The value of each constant slice, NaN for the others."""
    xp, slices = namespace(volume), slices_first(volume, direction)
    values = to_host(slices[:, 0, 0]).astype(np.float64)
    sparse = slices[:, ::_SPARSE, ::_SPARSE]
    maybe = to_host(xp.all(sparse == sparse[:, :1, :1], axis=(1, 2)))
    constant = xp.zeros(len(values), dtype=xp.bool)
    for start, stop in _runs(np.flatnonzero(maybe).tolist()):
        for a in range(start, stop, _BLOCK):
            b = min(a + _BLOCK, stop)
            block = slices[a:b, ...]
            constant[a:b] = xp.all(block == block[:, :1, :1], axis=(1, 2))
    return np.where(to_host(constant), values, np.nan)
