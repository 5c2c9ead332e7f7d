"""Linear and nearest resampling between a scan and DLPE's normalised space.

Everything is computed in double precision plane by plane and rounded to single precision after the
two steps of the published program, in the plane and along the third axis (spec dlpe §3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, is_numpy, namespace
from ..staging import decoded_ahead
from .grid import Space

_BLOCK = 16
"""Planes that are written to the result at once: a cache line of float32."""

_THREADS = 2
"""NumPy sets the interpreter's lock aside while it computes; more threads only take memory."""

_NO_WEIGHT = 1e-9
"""A factor of an index that moves no sample."""


@dataclass(frozen=True, slots=True)
class Taps:
    """The two samples of an axis between which each sample of the result lies.

    Attributes
    ----------
    low, high
        int64 [n]; −1 stands for the fill value.
    weight
        float64 [n], of the high one.
    """

    low: Array
    high: Array
    weight: Array

    def __len__(self) -> int:
        return self.low.shape[0]

    def on(self, xp: Any) -> Taps:
        """The same as arrays of the module `xp`."""
        return Taps(xp.asarray(self.low), xp.asarray(self.high), xp.asarray(self.weight))

    def nearest(self) -> NDArray[np.int64]:
        """The nearer sample of each pair (the high one half way), −1 for the fill value."""
        return np.where(self.weight < 0.5, self.low, self.high)


def published_taps(length: int, start: int, span: int, size: int) -> Taps:
    """Taps that cut `span` samples out of an axis and resize them, as the published program does.

    Parameters
    ----------
    length
        Samples of the axis; around them lies the fill value.
    start, span
        First sample that is cut out, and how many.
    size
        Samples of the result; the border of what was cut out is replicated.
    """
    place = (np.arange(size) + 0.5) * span / size - 0.5
    low = np.floor(place)
    weight = place - low
    weight[(low < 0) | (low >= span - 1)] = 0.0
    low = np.clip(low, 0, span - 1).astype(np.int64)
    low, high = (n + start for n in (low, np.minimum(low + 1, span - 1)))
    return Taps(
        np.where((low >= 0) & (low < length), low, -1),
        np.where((high >= 0) & (high < length), high, -1),
        weight,
    )


def taps_at(places: NDArray[np.float64], length: int) -> Taps:
    """Taps at (fractional) indices of an axis of `length` samples.

    An outermost sample reaches half a step beyond its centre; after that comes the fill value.
    """
    inside = (places >= -0.5) & (places < length - 0.5)
    held = np.clip(places, 0, length - 1)
    low = np.floor(held)
    weight = np.where(inside, held - low, 0.0)
    low = low.astype(np.int64)
    return Taps(
        np.where(inside, low, -1), np.where(inside, np.minimum(low + 1, length - 1), -1), weight
    )


def from_planes(
    plane: Callable[[int], Array],
    taps: tuple[Taps, Taps, Taps],
    *,
    fill: float,
    xp: Any,
    finish: Callable[[Array], None] | None = None,
) -> Array:
    """Resample a stack of planes that are asked for one by one.

    Parameters
    ----------
    plane
        Gives plane k [rows, columns] of any real type, for each k that `taps` name; called from
        several threads.
    taps
        Of axis 0 (rows), axis 1 (columns) and axis 2 (planes).
    xp
        NumPy or CuPy: where it is computed.
    finish
        Changes the values of a block of the result in place.

    Returns
    -------
    float32 [x, y, z], contiguous.
    """
    rows, columns, planes = taps
    out = xp.empty((len(rows), len(columns), len(planes)), dtype=xp.float32)
    xp = namespace(out)  # it has names of the standard that NumPy 1 and CuPy lack
    on_device = rows.on(xp), columns.on(xp)

    def block(start: int, given: Callable[[int], Array], ready: dict[int, Array]) -> None:
        stop = min(start + _BLOCK, len(planes))
        part = xp.empty((len(rows), stop - start, len(columns)), dtype=xp.float32)
        for k in range(start, stop):
            low, high = _ends(planes, k)
            for j in ready.keys() - {low, high}:
                del ready[j]
            for j in (low, high):
                if j not in ready:
                    ready[j] = _resized(given, j, on_device, fill, xp)
            part[:, k - start, :] = _between(ready[low], ready[high], float(planes.weight[k]), xp)
        if finish is not None:
            finish(part)
        out[:, :, start:stop] = xp.permute_dims(part, (0, 2, 1))

    starts = range(0, len(planes), _BLOCK)
    if is_numpy(xp):
        for_each(lambda start: block(start, plane, {}), starts, xp)
        return out
    ready: dict[int, Array] = {}
    with decoded_ahead(plane, _first_uses(planes), xp) as given:
        for start in starts:
            block(start, given, ready)
    return out


def _ends(planes: Taps, k: int) -> tuple[int, int]:
    return int(planes.low[k]), int(planes.high[k])


def _first_uses(planes: Taps) -> list[int]:
    """The planes in the order in which they are needed, if two are kept; −1 is none."""
    found: list[int] = []
    held: set[int] = {-1}
    for k in range(len(planes)):
        ends = _ends(planes, k)
        found += [j for j in dict.fromkeys(ends) if j not in held]
        held = {-1, *ends}
    return found


def linear_row(array: Array, taps: tuple[Taps, Taps, Taps], row: int, fill: float) -> Array:
    """Row `row` of a resampled array [x, y, z]: float32 [len(taps[1]), len(taps[2])].

    Parameters
    ----------
    taps
        Of the three axes; those of axes 1 and 2 as arrays of the module of `array`.
    """
    xp = namespace(array)
    low, high = int(taps[0].low[row]), int(taps[0].high[row])
    if low == high == -1:
        return xp.full((len(taps[1]), len(taps[2])), fill, dtype=xp.float32)
    padded = _padded(array.shape[1:], fill, xp)
    within, weight = padded[:-1, :-1], float(taps[0].weight[row])
    within[...] = fill if low < 0 else array[low, ...]
    if weight:
        within *= 1 - weight
        within += weight * (fill if high < 0 else xp.astype(array[high, ...], xp.float64))
    plane = xp.astype(_along(padded, taps[1], 0), xp.float32)
    return xp.astype(_along(xp.astype(plane, xp.float64), taps[2], 1), xp.float32)


def oblique_plane(voxels: Array, space: Space, x: int, fill: float) -> Array:
    """Plane `x` of normalised space, of a scan whose axes are not the patient's.

    Parameters
    ----------
    voxels
        The scan [slice, row, column].

    Returns
    -------
    float32 [y, z].
    """
    xp = namespace(voxels)
    y = xp.arange(space.shape[1], dtype=xp.float64)[:, None]
    z = xp.arange(space.shape[2], dtype=xp.float64)[None, :]
    rows, columns, slices = (
        space.sample_indices(weighted_sum(m[0] * x + o, ((m[1], y), (m[2], z))), axis)
        for axis, (m, o) in enumerate(zip(space.matrix, space.offset, strict=True))
    )
    return sample_points(voxels, [slices, rows, columns], "linear", fill)


def weighted_sum(start: float, terms: Sequence[tuple[float, Array]]) -> Array:
    """Sum of arrays with weights, only as large as the arrays whose weight matters."""
    total = namespace(terms[0][1]).zeros((1, 1)) + start
    for weight, array in terms:
        if abs(weight) > _NO_WEIGHT:
            total = total + weight * array
    return total


def sample_points(
    array: Array, places: list[Array], order: Literal["nearest", "linear"], fill: float
) -> Array:
    """Values of an array at (fractional) indices, one array of them for each axis.

    Beyond half a step outside the outermost samples comes the fill value.

    Parameters
    ----------
    places
        Of shapes that go together.

    Returns
    -------
    Of the common shape: float32, or for ``"nearest"`` of the type of `array`.
    """
    xp = namespace(array)
    inside = True
    for place, length in zip(places, array.shape, strict=True):
        inside = inside & (place >= -0.5) & (place < length - 0.5)
    if order == "nearest":
        index = tuple(
            xp.astype(xp.clip(xp.floor(p + 0.5), 0, n - 1), xp.int64)
            for p, n in zip(places, array.shape, strict=True)
        )
        values = array[index]
    else:
        values = _interpolated(array, places)
    values[~xp.broadcast_to(inside, values.shape)] = fill
    return values


def _interpolated(array: Array, places: Sequence[Array]) -> Array:
    """Linear interpolation, float32; beyond the outermost samples their value holds on.

    Eight products are added up in the order of SciPy's ``map_coordinates``, for the same bits.
    """
    xp = namespace(array)
    ends = []
    for place, length in zip(places, array.shape, strict=True):
        place = xp.clip(xp.astype(place, xp.float64), 0, length - 1)
        whole = xp.floor(place)
        low = xp.astype(whole, xp.int64)
        ends.append(((low, 1 - (place - whole)), (xp.clip(low + 1, 0, length - 1), place - whole)))
    total: Any = 0.0
    for corner in product(*ends):
        values = xp.astype(array[tuple(index for index, _ in corner)], xp.float64)
        for _, weight in corner:
            values = values * weight
        total = total + values
    return xp.astype(total, xp.float32)


def for_each(work: Callable[[int], None], items: Iterable[int], xp: Any) -> None:
    """Do `work` for all `items`, on the host in a few threads."""
    if not is_numpy(xp):
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hilum-resample") as pool:
        running = [pool.submit(work, item) for item in items]
        try:
            for one in running:
                one.result()
        finally:
            for one in running:
                one.cancel()


def _resized(
    plane: Callable[[int], Array], index: int, taps: tuple[Taps, Taps], fill: float, xp: Any
) -> Array:
    """Plane `index` resized, rounded to single precision, as float64; a number for −1."""
    if index < 0:
        return fill
    values = xp.asarray(plane(index))
    padded = _padded(values.shape, fill, xp)
    padded[:-1, :-1] = xp.astype(values, xp.float64)
    resized = _along(_along(padded, taps[0], 0), taps[1], 1)
    return xp.astype(xp.astype(resized, xp.float32), xp.float64)


def _padded(shape: tuple[int, ...], fill: float, xp: Any) -> Array:
    """Room for a plane with the fill value in a last row and column, which index −1 finds."""
    padded = xp.empty((shape[0] + 1, shape[1] + 1), dtype=xp.float64)
    padded[-1, :] = fill
    padded[:, -1] = fill
    return padded


def _along(x: Array, taps: Taps, axis: int) -> Array:
    xp = namespace(x)
    low = xp.take(x, taps.low, axis=axis)
    weight = taps.weight[:, None] if axis == 0 else taps.weight
    low *= 1 - weight
    high = xp.take(x, taps.high, axis=axis)
    high *= weight
    low += high
    return low


def _between(low: Array, high: Array, weight: float, xp: Any) -> Array:
    between = low if weight == 0 else low * (1 - weight) + high * weight
    return between if isinstance(between, (int, float)) else xp.astype(between, xp.float32)
