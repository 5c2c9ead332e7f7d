"""Grey JPEG of 8 or 12 bits, sequential, Huffman coded (ITU-T T.81, processes 1, 2 and 4).

The libraries for images stop at 8 bits; those that read 12 are under the GPL, or bring a whole
toolkit. Here the symbols are read one after the other, and all blocks are transformed at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jpeg_stream import BASELINE, EXTENDED, Stream, UnreadableJpegError, code_table, segments

_ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
])  # fmt: skip
"""Place in its block of each coefficient, in the order of the stream (T.81 figure A.6)."""

_BATCH = 4096
"""Blocks that are transformed at a time."""

_PRECISION = 9
"""Bits behind the point of the transform's factors."""

_FRACTION = 4
"""Bits behind the point of what the transform works on."""

(
    _F0298, _F0390, _F0541, _F0765, _F0899, _F1175, _F1501, _F1847, _F1961, _F2053, _F2562, _F3072,
) = (
    round(factor * 2**_PRECISION)
    for factor in (
        0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223, 1.175875602, 1.501321110,
        1.847759065, 1.961570560, 2.053119869, 2.562915447, 3.072711026,
    )
)  # fmt: skip


def decode(stream: Stream) -> NDArray[np.uint16]:
    """Decode the samples.

    Returns
    -------
    uint16 [H, W], 0 to 2**bits − 1.

    Raises
    ------
    UnreadableJpegError
        For a damaged or truncated stream, and for another process.
    """
    if stream.process not in (BASELINE, EXTENDED) or stream.bits not in (8, 12):
        raise UnreadableJpegError(f"process {stream.process:#x} with {stream.bits} bits")
    if stream.table not in stream.steps:
        raise UnreadableJpegError("a quantisation table is missing")
    rows, columns = -(-stream.height // 8), -(-stream.width // 8)
    levels = _coefficients(stream, rows * columns)
    middle, highest = 1 << stream.bits - 1, (1 << stream.bits) - 1
    out = np.empty((rows, 8, columns, 8), np.uint16)
    batch = max(1, _BATCH // columns)
    for first in range(0, rows, batch):
        part = levels[first * columns : (first + batch) * columns]
        block = np.zeros((len(part), 64), np.int64)
        block[:, _ZIGZAG] = part * stream.steps[stream.table]
        samples = np.clip(_transformed(block.reshape(-1, 8, 8)) + middle, 0, highest)
        out[first : first + batch] = samples.reshape(-1, columns, 8, 8).transpose(0, 2, 1, 3)
    return out.reshape(rows * 8, columns * 8)[: stream.height, : stream.width]


def _coefficients(stream: Stream, blocks: int) -> NDArray[np.int16]:
    """Quantised coefficients int16 [blocks, 64], each block in the order of the stream."""
    tables = _packed(stream, stream.direct), _packed(stream, stream.alternating)
    levels = np.zeros(blocks * 64, np.int16)
    interval, done = stream.interval or blocks, 0
    for segment in segments(stream, blocks * 64):
        count = min(interval, blocks - done)
        places, values = _symbols(segment, tables, count)
        levels[np.array(places, np.int64) + done * 64] = np.array(values).astype(np.int16)
        done += count
        if done == blocks:
            return levels.reshape(blocks, 64)
    raise UnreadableJpegError("a truncated scan")


def _packed(stream: Stream, number: int) -> list[int]:
    """For the next 16 bits ``run << 12 | size << 6 | length``, length with the bits of the value.

    0 where no code begins like this.
    """
    value, length = (table.astype(np.int64) for table in code_table(stream, number))
    size = value & 15
    return np.where(length, value >> 4 << 12 | size << 6 | length + size, 0).tolist()


def _symbols(
    segment: bytes, tables: tuple[list[int], list[int]], blocks: int
) -> tuple[list[int], list[int]]:
    """Places and values of the coefficients that are not 0."""
    padded = segment.ljust(-(-len(segment) // 4) * 4 + 8, b"\xff")
    halves = np.frombuffer(padded, ">u4").astype(np.uint64)
    words = (halves[:-1] << np.uint64(32) | halves[1:]).tolist()  # 64 bits from each 32nd on
    last = (len(words) - 1) * 32
    places: list[int] = []
    values: list[int] = []
    at = level = 0
    for first in range(0, blocks * 64, 64):
        place, table, end = first, tables[0], first + 64
        if at > last:
            break
        while place < end:
            word, left = words[min(at, last) >> 5], 64 - (at & 31)
            entry = table[word >> left - 16 & 0xFFFF]
            if not entry:
                raise UnreadableJpegError("a code that is not in its table")
            at += entry & 63
            bits = entry >> 6 & 63
            value = word >> left - (entry & 63) & (1 << bits) - 1
            if bits and not value >> bits - 1:
                value -= (1 << bits) - 1
            if place == first:
                level += value
                value, table = level, tables[1]
            elif bits:
                place += entry >> 12
                if place >= end:
                    raise UnreadableJpegError("a coefficient outside its block")
            elif entry >> 12 == 15:
                place += 16
                continue
            else:  # the rest of the block is 0
                break
            places.append(place)
            values.append(value)
            place += 1
    if at > len(segment) * 8:
        raise UnreadableJpegError("a truncated scan")
    return places, values


def _transformed(block: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse cosine transform of blocks [n, 8, 8], along rows and then along columns.

    By the factors of Loeffler, Ligtenberg and Moschytz, ICASSP 1989, 988, in whole numbers as the
    Independent JPEG Group orders them. `_PRECISION` and `_FRACTION` are those of the JPEG
    committee's reference decoder: the samples are the same to the last bit.
    """
    half = 1 << _PRECISION - 1
    for axis in (2, 1):
        scaled = block << _FRACTION if axis == 2 else block
        parts = [scaled[:, :, k] if axis == 2 else scaled[:, k] for k in range(8)]
        block = np.stack(_along(parts), axis)
        if axis == 2:
            block = block + half >> _PRECISION
    spread = _PRECISION + 3
    block = block + (1 << spread - 1) >> spread
    return block + (1 << _FRACTION - 1) >> _FRACTION


def _along(part: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """One dimension of the transform: eight coefficients to eight samples, times 2**_PRECISION."""
    turned = (part[2] + part[6]) * _F0541
    low, high = turned - part[6] * _F1847, turned + part[2] * _F0765
    total, rest = part[0] + part[4] << _PRECISION, part[0] - part[4] << _PRECISION
    even = total + high, rest + low, rest - low, total - high
    first, second = part[7] + part[3], part[5] + part[1]
    joined = (first + second) * _F1175
    a, b = joined - first * _F1961, joined - second * _F0390
    c, d = (part[7] + part[1]) * -_F0899, (part[5] + part[3]) * -_F2562
    odd = (
        part[1] * _F1501 + c + b, part[3] * _F3072 + d + a,
        part[5] * _F2053 + d + b, part[7] * _F0298 + c + a,
    )  # fmt: skip
    return [
        *(e + o for e, o in zip(even, odd, strict=True)),
        *(e - o for e, o in zip(even[::-1], odd[::-1], strict=True)),
    ]
