"""From a CT to DLPE's normalised space and back (spec dlpe §3).

Normalised space is [x, y, z]: axis 0 to the back, axis 1 to the patient's left, axis 2 to the head;
512³ voxels over 334 × 334 × 512 mm, values (HU + 600) / 1600.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe import FIELD_MM, FILL_HU, HU_OFFSET, HU_SCALE, SIDE
from hilum.catalog.errors import InputError
from hilum.catalog.terms import Mode

from ..arrays import Array, namespace
from ..reading.volume import Volume
from .grid import (
    Normalised,
    Space,
    check_side,
    physical_space,
    published_cut,
    published_space,
)
from .ready import read_normalised
from .resample import (
    Taps,
    for_each,
    from_planes,
    linear_row,
    oblique_plane,
    published_taps,
    sample_points,
    taps_at,
    weighted_sum,
)
from .source import Scan, Source, as_published, by_position

__all__ = [
    "Normalised",
    "Space",
    "normalise",
    "normalise_signal",
    "read_normalised",
    "to_source",
]


def normalise(
    scan: Scan,
    mode: Mode = "parity",
    side: int = SIDE,
    *,
    fill_hu: float = FILL_HU,
    xp: Any = None,
) -> Normalised:
    """Bring a CT into normalised space.

    Parameters
    ----------
    scan
        A series, or a volume whose voxels may lie on a GPU.
    mode
        ``"parity"``: ordered by InstanceNumber, resized as the published program does;
        ``"corrected"``: by positions, with the exact map (spec dlpe §2 and §3.1).
    side
        Voxels along each axis, a multiple of 16; the field is the same for all.
    fill_hu
        What lies around the scan; 0 is what the published networks were given.
    xp
        NumPy or CuPy: where it is computed; None: where a volume lies, for a series NumPy.

    Raises
    ------
    InputError
        For a series that cannot be read, or not as the mode asks.
    """
    check_side(side)
    if xp is None:
        xp = namespace(scan.voxels) if isinstance(scan, Volume) else np
    if mode == "parity":
        source = as_published(scan)
        space = published_space(source.shape, source.spacing, side)
    else:
        source = by_position(scan)
        space = physical_space(source.geometry, side, source.levels, source.level_axis)
    space = replace(space, reorientation=source.reorientation, order=source.order)
    voxels = _resampled(source, space, fill_hu, xp)
    return Normalised(
        voxels=voxels, space=space, geometry=source.stored, notes=(*source.notes, *space.notes)
    )


def normalise_signal(hu: Array) -> None:
    """(HU + 600) / 1600 in place, without clipping (spec dlpe §3.2); float32."""
    hu -= HU_OFFSET
    hu /= HU_SCALE


def to_source(
    array: Array,
    space: Space,
    order: Literal["nearest", "linear"] = "nearest",
    fill: float = 0,
) -> Array:
    """Map a mask or a volume of normalised space back to the array of the file.

    Parameters
    ----------
    array
        [x, y, z] of the shape of `space`, NumPy or CuPy.
    order
        ``"nearest"`` for masks; the type stays. ``"linear"`` for volumes; float32.
    fill
        What voxels of the scan outside normalised space get.

    Returns
    -------
    [slice, row, column] as stored: the array of `Normalised.geometry`.

    Raises
    ------
    InputError
        For an array of another shape.

    Notes
    -----
    The exact inverse of the map that was used (spec dlpe §3.3, corrected), in both modes.
    """
    _check_shape(array, space.shape)
    xp = namespace(array)
    out = xp.full(space.stored_shape, fill, dtype=array.dtype if order == "nearest" else xp.float32)
    lying = space.reorientation.apply(out)  # a view: [slice, row, column] of the scan
    if not space.straight:
        _oblique_to_source(array, space, order, fill, lying)
        return out
    taps = tuple(
        taps_at((space.slice_places(a) - space.offset[a]) / space.scale[a], space.shape[a])
        for a in range(3)
    )
    slices: Any = slice(None) if space.order is None else xp.asarray(space.order)
    if order == "linear":
        rows, columns, planes = taps
        on_device = rows, columns.on(xp), planes.on(xp)

        def one(row: int) -> None:
            lying[slices, row, :] = linear_row(array, on_device, row, fill).T
    else:
        one = _nearest_row(array, taps, slices, lying)
    for_each(one, range(space.source_shape[0]), xp)
    return out


def _resampled(source: Source, space: Space, fill_hu: float, xp: Any) -> Array:
    if space.straight:
        taps = tuple(_forward_taps(space, axis) for axis in range(3))
        return from_planes(
            source.plane, (taps[0], taps[1], taps[2]), fill=fill_hu, xp=xp, finish=normalise_signal
        )
    voxels = xp.asarray(source.whole())
    out = xp.empty(space.shape, dtype=xp.float32)

    def one(x: int) -> None:
        out[x, ...] = oblique_plane(voxels, space, x, fill_hu)
        normalise_signal(out[x, ...])

    for_each(one, range(space.shape[0]), xp)
    return out


def _forward_taps(space: Space, axis: int) -> Taps:
    length, size = space.source_shape[axis], space.shape[axis]
    if space.mode == "parity":
        start, span = published_cut(length, space.spacing[axis], FIELD_MM[axis])
        return published_taps(length, start, span, size)
    places = space.scale[axis] * np.arange(size) + space.offset[axis]
    return taps_at(space.sample_indices(places, axis), length)


def _nearest_row(array: Array, taps: Any, slices: Any, lying: Array) -> Any:
    """Make the function that fills a row of all slices by nearest neighbours."""
    xp = namespace(array)
    rows, columns, planes = (t.nearest() for t in taps)
    (y0, y1), (z0, z1) = _inside(columns), _inside(planes)
    columns, planes = xp.asarray(columns[y0:y1]), xp.asarray(planes[z0:z1])
    target = slice(z0, z1) if isinstance(slices, slice) else slices[z0:z1]

    def one(row: int) -> None:
        if rows[row] >= 0:
            picked = xp.take(xp.take(array[int(rows[row]), ...], columns, axis=0), planes, axis=1)
            lying[target, row, y0:y1] = picked.T

    return one


def _inside(nearest: NDArray[np.int64]) -> tuple[int, int]:
    """The range in which there is a sample; the places of an axis ascend."""
    there = np.flatnonzero(nearest >= 0)
    return (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)


def _oblique_to_source(
    array: Array, space: Space, order: Literal["nearest", "linear"], fill: float, lying: Array
) -> None:
    xp = namespace(array)
    back = np.linalg.inv(np.array(space.matrix))
    start = -back @ np.array(space.offset)
    rows, columns, slices = (space.slice_places(a) for a in range(3))
    rows, columns = xp.asarray(rows)[:, None], xp.asarray(columns)[None, :]

    def one(k: int) -> None:
        places = [
            weighted_sum(float(b[2] * slices[k] + s), ((float(b[0]), rows), (float(b[1]), columns)))
            for b, s in zip(back, start, strict=True)
        ]
        lying[k, ...] = sample_points(array, places, order, fill)

    for_each(one, range(len(slices)), xp)


def _check_shape(array: Array, shape: tuple[int, int, int]) -> None:
    if tuple(array.shape) != shape:
        raise InputError(
            f"an array {list(array.shape)} for a normalised space of {list(shape)}; give one of "
            "the same run"
        )
