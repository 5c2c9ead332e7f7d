"""Bilinear resizing, exactly as the published X-ray program does it, and in floating point.

Both use half-pixel centres and no antialiasing. Other kernels, and antialiasing above all, change
the grey levels that the networks were trained on (spec cxr §5.1).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, namespace

_ONE = 2048
"""1.0 in the fixed-point weights (11 fractional bits)."""


def resize_bilinear_u8(x: Array, shape: tuple[int, int]) -> Array:
    """Resize 8-bit data with integer weights; equal to ``cv2.resize`` with ``INTER_LINEAR``.

    Parameters
    ----------
    x
        uint8 [H, W] or [H, W, C], NumPy or CuPy.
    shape
        Height and width of the result.

    Returns
    -------
    uint8 [h, w] or [h, w, C], contiguous, of the same kind as `x`.

    Notes
    -----
    Spec cxr §5.1. Only the rows and columns that the result needs are read. Equal channels are
    interpolated once, and a plane broadcast along C (stride 0) is read once.
    """
    xp = namespace(x)
    if x.ndim == 2:
        return _interpolate(xp, *_needed(xp, x, shape))
    channels = x.shape[2]
    if channels == 1 or x.strides[2] == 0:
        return xp.repeat(resize_bilinear_u8(x[:, :, 0], shape)[:, :, None], channels, axis=2)
    x, rows, columns = _needed(xp, x, shape)
    if bool((x == x[:, :, :1]).all()):
        plane = _interpolate(xp, xp.ascontiguousarray(x[:, :, 0]), rows, columns)
        return xp.repeat(plane[:, :, None], channels, axis=2)
    return _interpolate(xp, x, rows, columns)


def resize_bilinear(x: Array, shape: tuple[int, int]) -> Array:
    """Resize in floating point, with the border replicated.

    Parameters
    ----------
    x
        [H, W] or [H, W, C] of any real type, NumPy or CuPy.
    shape
        Height and width of the result.

    Returns
    -------
    float32 [h, w] or [h, w, C]; equal to ``torch.nn.functional.interpolate`` with
    ``mode="bilinear", align_corners=False`` up to rounding (spec cxr §5.1, last paragraph).
    """
    xp = namespace(x)
    y = xp.astype(x, xp.float32)
    for axis in (0, 1):
        low, high, t = _float_taps(y.shape[axis], shape[axis])
        along = tuple(-1 if a == axis else 1 for a in range(y.ndim))
        weight = xp.reshape(xp.asarray(t), along)
        first = xp.take(y, xp.asarray(low), axis=axis)
        y = first + (xp.take(y, xp.asarray(high), axis=axis) - first) * weight
    return y


_Taps = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""Two indices and two weights for each sample of the result."""


def _needed(xp: Any, x: Array, shape: tuple[int, int]) -> tuple[Array, _Taps, _Taps]:
    """Drop the rows and columns that nothing reads; return the rest with the taps into it."""
    taps = []
    for axis in (0, 1):
        first, second, w0, w1 = _fixed_taps(x.shape[axis], shape[axis], clamp=axis == 0)
        if 2 * shape[axis] < x.shape[axis]:
            used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
            first, second = place[: shape[axis]], place[shape[axis] :]
            x = xp.take(x, xp.asarray(used), axis=axis)
        taps.append((first, second, w0, w1))
    return x, taps[0], taps[1]


def _interpolate(xp: Any, x: Array, rows: _Taps, columns: _Taps) -> Array:
    """Interpolate uint8 [H, W] or [H, W, C] along columns, then along rows."""
    row0, row1, b0, b1 = (xp.asarray(t) for t in rows)
    col0, col1, a0, a1 = (xp.asarray(t) for t in columns)
    along = (slice(None), *[None] * (x.ndim - 2))
    left, right = (xp.astype(xp.take(x, c, axis=1), xp.int32) for c in (col0, col1))
    left *= a0[along]
    right *= a1[along]
    left += right
    # At most 255 · 2048 / 16 = 32640, which fits 16 bits.
    sums = xp.astype(left >> 4, xp.int16)
    along = (*along, None)
    upper = xp.take(sums, row0, axis=0) * b0[along]
    lower = xp.take(sums, row1, axis=0) * b1[along]
    upper >>= 16
    lower >>= 16
    upper += lower
    upper += 2
    return xp.astype(upper >> 2, xp.uint8)


@lru_cache(maxsize=512)
def _fixed_taps(n_in: int, n_out: int, *, clamp: bool) -> _Taps:
    """Index pairs and weights of 11 bits.

    Outside the image the published program clamps the two rows (`clamp`) but gives the border
    column the whole weight; the two differ by the truncation of the sums.
    """
    f = _positions(n_in, n_out).astype(np.float32)
    start = np.floor(f)
    t = f - start
    w0, w1 = (np.rint(w * np.float32(_ONE)).astype(np.int32) for w in (np.float32(1) - t, t))
    if not clamp:
        outside = (start < 0) | (start >= n_in - 1)
        w0[outside], w1[outside] = _ONE, 0
    first, second = _neighbours(start, n_in)
    return first, second, w0, w1


@lru_cache(maxsize=512)
def _float_taps(n_in: int, n_out: int) -> tuple[NDArray[Any], ...]:
    f = _positions(n_in, n_out)
    start = np.floor(f)
    return *_neighbours(start, n_in), (f - start).astype(np.float32)


def _positions(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Where the samples of the result lie between those of the input (half-pixel centres)."""
    return (np.arange(n_out) + 0.5) * (1.0 / (n_out / n_in)) - 0.5


def _neighbours(start: NDArray[Any], n_in: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = start.astype(np.int64)
    return np.clip(first, 0, n_in - 1), np.clip(first + 1, 0, n_in - 1)
