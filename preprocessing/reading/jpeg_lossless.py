"""Lossless grey JPEG of up to 16 bits, Huffman coded (ITU-T T.81 annex H, process 14).

Where a code begins depends on all codes before it. So the length of the code that would begin at
each bit is looked up for all bits at once, one plain loop walks from code to code, and the rest is
done for all samples together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .jpeg_stream import LOSSLESS, Stream, UnreadableJpegError, code_table, segments

_PART = 1 << 16
"""Bytes whose bits are looked up at a time; a multiple of 4."""

_STEPS = 2048
"""Codes that a walk passes before it looks where it is."""

Samples = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Table:
    """A Huffman table by the next 16 bits.

    Attributes
    ----------
    length
        uint8: bits of the code that they begin with and of its value; 0 for no code.
    code
        uint64: bits of the code alone.
    unused
        uint64: 63 less the bits of the value.
    half, lowest
        int32: a value below `half` stands for itself less `lowest`.
    """

    length: NDArray[np.uint8]
    code: NDArray[np.uint64]
    unused: NDArray[np.uint64]
    half: NDArray[np.int32]
    lowest: NDArray[np.int32]

    @classmethod
    def of(cls, stream: Stream) -> Table:
        """Make the one of a stream."""
        size, code = (t.astype(np.int64) for t in code_table(stream, stream.direct))
        if size.max() > 16:
            raise UnreadableJpegError("a difference of more than 16 bits")
        bits = np.where(size < 16, size, 0)
        half = np.where(size < 16, 1 << size >> 1, 1)  # size 16 has no bits and is always 32768
        lowest = np.where(size < 16, (1 << size) - 1, -32768)
        return cls(
            np.where(code, code + bits, 0).astype(np.uint8),
            code.astype(np.uint64),
            (63 - bits).astype(np.uint64),
            half.astype(np.int32),
            lowest.astype(np.int32),
        )


def decode(stream: Stream) -> Samples:
    """Decode the samples, uint16 [H, W].

    Raises
    ------
    UnreadableJpegError
        For a damaged or truncated stream, and for another process.
    """
    height, width, interval = stream.height, stream.width, stream.interval
    if stream.process != LOSSLESS or not 2 <= stream.bits <= 16:
        raise UnreadableJpegError(f"process {stream.process:#x} with {stream.bits} bits")
    if not 1 <= stream.predictor <= 7 or interval % width or stream.shift >= stream.bits:
        raise UnreadableJpegError("a lossless scan out of its limits")
    table = Table.of(stream)
    lines, done = interval // width or height, 0
    out = np.empty((height, width), np.uint16)
    for segment in segments(stream, height * width):
        count = min(lines, height - done)
        steps = _differences(segment, table, count * width).reshape(count, width)
        out[done : done + count] = _summed(steps, stream)
        done += count
        if done == height:
            return np.left_shift(out, stream.shift, dtype=np.uint16)
    raise UnreadableJpegError("a truncated scan")


def _differences(segment: bytes, table: Table, count: int) -> Samples:
    """The differences of a segment, uint16 [count], modulo 2**16 (T.81 H.1.2.2)."""
    raw = np.frombuffer(segment.ljust(-(-len(segment) // 4) * 4 + 12, b"\xff"), np.uint8)
    found, at, missing, left = [], 0, count, len(segment)
    for first in range(0, len(segment), _PART):
        size = min(_PART, left)
        places, at = _walk(_lengths(raw[first:], size, table), at, size * 8, missing)
        found.append(_values(raw[first : first + size + 12], places, table))
        at, missing, left = at - size * 8, missing - len(places), left - size
        if not missing:
            break
    # What follows the last byte was made up.
    if missing or (at > 0 and not left):
        raise UnreadableJpegError("a truncated scan")
    return np.concatenate(found)


def _lengths(raw: NDArray[np.uint8], size: int, table: Table) -> bytes:
    """Length of the code and value that would begin at each bit of the first `size` bytes.

    Behind them are zeros, where a walk comes to rest.
    """
    wide = raw[: size + 2].astype(np.uint32)
    window = wide[:size] << 16 | wide[1 : size + 1] << 8 | wide[2 : size + 2]
    lengths = np.zeros((size + 4, 8), np.uint8)
    for bit in range(8):
        lengths[:size, bit] = table.length[window >> 8 - bit & 0xFFFF]
    return lengths.tobytes()


def _walk(lengths: bytes, at: int, end: int, count: int) -> tuple[NDArray[np.int64], int]:
    """Bits at which up to `count` codes begin, from `at` to `end`; and where the next one does."""
    places: list[int] = []
    while at < end and len(places) < count:
        start = at
        places.append(at)
        places += [at := at + lengths[at] for _ in range(min(_STEPS, count - len(places)))]
        at += lengths[at]
        if at == start or (at < end and not lengths[places[-1]]):
            raise UnreadableJpegError("a code that is not in its table")
    found = np.fromiter(places, np.int64, len(places))
    return found[: np.searchsorted(found, end)], at


def _values(raw: NDArray[np.uint8], places: NDArray[np.int64], table: Table) -> Samples:
    padded = raw[: len(raw) // 4 * 4].view(">u4").astype(np.uint64)
    words = padded[:-1] << np.uint64(32) | padded[1:]  # 64 bits from each 32nd on
    word = words[places >> 5] << (places & 31).astype(np.uint64)  # the code begins at bit 63
    code = (word >> np.uint64(48)).astype(np.int32)
    bits = (word << table.code[code]) >> np.uint64(1) >> table.unused[code]
    values = bits.astype(np.int32)
    values -= np.where(values < table.half[code], table.lowest[code], 0)
    return values.astype(np.uint16)


def _summed(steps: Samples, stream: Stream) -> Samples:
    """Samples from their differences, modulo 2**16 (T.81 H.1.2.1).

    The first line is predicted from the left and the first column from above; the rest by the
    scan's predictor: a is the sample on the left, b the one above, c the one above on the left.
    """
    start = 1 << stream.bits - stream.shift - 1
    steps[:1, :1] += np.uint16(start)  # slices wrap around without a warning
    kind = stream.predictor
    if kind == 1:  # a
        steps[:, 0] = _sums(steps[:, 0])
        return _sums(steps, 1)
    steps[0] = _sums(steps[0])
    if kind == 2:  # b
        return _sums(steps)
    if kind == 6:  # b + (a − c) / 2: predictor 5 with rows and columns changed
        steps[:, 0] = _sums(steps[:, 0])
        return _from_halves(steps.T).T
    if kind == 5:  # a + (b − c) / 2
        steps[:, 0] = _sums(steps[:, 0])
        return _from_halves(steps)
    if kind == 7:  # (a + b) / 2
        return _from_means(steps)
    for line in range(1, len(steps)):
        above = steps[line - 1]
        if kind == 3:  # c
            steps[line, 1:] += above[:-1]
            steps[line, :1] += above[:1]
        else:  # a + b − c
            steps[line] = above + _sums(steps[line])
    return steps


def _sums(steps: Samples, axis: int = 0) -> Samples:
    return np.cumsum(steps, axis, dtype=np.uint16)


def _from_halves(steps: Samples) -> Samples:
    """Predictor 5; first line and column are samples already."""
    for line in range(1, len(steps)):
        above = steps[line - 1].astype(np.int32)
        steps[line, 1:] += (np.diff(above) >> 1).astype(np.uint16)
        steps[line] = _sums(steps[line])
    return steps


def _from_means(steps: Samples) -> Samples:
    """Predictor 7, along the diagonals: a sample there depends on the diagonal before alone."""
    height, width = steps.shape
    steps[:, 0] = _sums(steps[:, 0])
    flat = steps.reshape(-1)
    for diagonal in range(2, height + width - 1):
        low, high = max(1, diagonal - width + 1), min(height - 1, diagonal - 1)
        if low > high:
            continue
        at = np.arange(low, high + 1) * (width - 1) + diagonal
        both = flat[at - 1].astype(np.uint32) + flat[at - width]
        flat[at] += (both >> 1).astype(np.uint16)
    return steps
