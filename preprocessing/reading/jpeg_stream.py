"""What the markers of a JPEG stream say (ITU-T T.81 annex B), and its coded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BASELINE, EXTENDED, LOSSLESS = 0xC0, 0xC1, 0xC3
"""Processes: sequential with 8 bits, sequential with 8 or 12 bits, lossless; all Huffman coded."""

_TABLES, _STEPS, _INTERVAL, _SCAN = 0xC4, 0xDB, 0xDD, 0xDA
_PLAIN = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, restarts, start of image."""

_LONGEST_CODE = 4
"""Bytes that the longest code of one value, with its bits, fits in."""


class UnreadableJpegError(ValueError):
    """The stream is damaged, truncated, or of a kind that is not read."""


@dataclass(slots=True)
class Stream:
    """A stream of one component and one scan.

    Attributes
    ----------
    process
        The code of its frame marker.
    bits
        Of a sample.
    steps
        By number of the table: float64 [64], what a coefficient is multiplied with.
    codes
        By class and number of the table (`direct` or `alternating`): how many codes there are of
        1 … 16 bits, and their values.
    interval
        Units (blocks or samples) between restarts; 0: no restarts.
    predictor, shift
        Lossless: how a sample is predicted, and by how many bits all are shifted.
    data
        From the first coded byte on.
    """

    process: int = 0
    bits: int = 0
    height: int = 0
    width: int = 0
    table: int = 0
    interval: int = 0
    direct: int = 0
    alternating: int = 0
    predictor: int = 0
    shift: int = 0
    steps: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    codes: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    data: bytes = b""


def parse(data: bytes) -> Stream:
    """Read the markers up to the scan.

    Raises
    ------
    UnreadableJpegError
        For a damaged stream, and for one of several components.
    """
    try:
        return _parsed(data)
    except (IndexError, ValueError) as error:
        raise UnreadableJpegError(str(error)) from error


def segments(stream: Stream, units: int) -> Iterator[bytes]:
    """The coded bytes between restarts, without the zeros that are stuffed behind 255.

    Parameters
    ----------
    stream
        As `parse` gives it.
    units
        Values of the picture; what goes beyond their longest codes is not looked at.
    """
    raw = np.frombuffer(stream.data, np.uint8)[: (units + 1) * 2 * _LONGEST_CODE]
    places = np.flatnonzero(raw[:-1] == 0xFF)
    codes = raw[places + 1]
    restart = (codes >= 0xD0) & (codes <= 0xD7)
    ends = places[(codes != 0) & (codes != 0xFF) & ~restart]
    end = int(ends[0]) if len(ends) else len(raw)
    for first, last in pairwise([-2, *places[restart & (places < end)].tolist(), end]):
        yield raw[first + 2 : last].tobytes().replace(b"\xff\x00", b"\xff")


def code_table(stream: Stream, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For the next 16 bits: the value of the code that they begin with, and its length.

    Returns
    -------
    Twice uint8 [65536]; length 0 where no code begins like this.
    """
    if number not in stream.codes:
        raise UnreadableJpegError("a Huffman table is missing")
    counts, values = stream.codes[number]
    lengths = np.repeat(np.arange(1, 17), np.frombuffer(counts, np.uint8))
    reach = 1 << 16 - lengths
    if int(reach.sum()) > 1 << 16:
        raise UnreadableJpegError("a damaged Huffman table")
    value, length = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    value[: reach.sum()] = np.repeat(np.frombuffer(values, np.uint8), reach)
    length[: reach.sum()] = np.repeat(lengths, reach)
    return value, length


def _parsed(data: bytes) -> Stream:
    stream, at = Stream(), 0
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker where one must be")
        code = data[at + 1]
        if code == 0xFF or code in _PLAIN:
            at += 1 if code == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body, at = data[at + 4 : at + 2 + length], at + 2 + length
        if length < 2 or len(body) != length - 2:
            raise ValueError("truncated markers")
        if code == _TABLES:
            stream.codes |= _codes(body)
        elif 0xC0 <= code <= 0xCF and code != 0xC8:
            _frame(stream, code, body)
        elif code == _STEPS:
            stream.steps |= _steps(body)
        elif code == _INTERVAL:
            stream.interval = int.from_bytes(body[:2], "big")
        elif code == _SCAN:
            if not stream.process or body[0] != 1:
                raise ValueError("a scan without its frame, or of several components")
            stream.direct, stream.alternating = body[2] >> 4, 16 | body[2] & 15
            stream.predictor, stream.shift = body[3], body[5] & 15
            stream.data = data[at:]
            return stream


def _frame(stream: Stream, code: int, body: bytes) -> None:
    if stream.process or body[5] != 1:
        raise ValueError("several frames or components")
    stream.process, stream.bits, stream.table = code, body[0], body[8]
    stream.height, stream.width = (int.from_bytes(body[k : k + 2], "big") for k in (1, 3))
    if not stream.height or not stream.width:
        raise ValueError("a frame without a size")


def _steps(body: bytes) -> dict[int, NDArray[np.int64]]:
    found, at = {}, 0
    while at < len(body):
        kind = np.dtype(">u2" if body[at] >> 4 else "u1")
        found[body[at] & 15] = np.frombuffer(body, kind, 64, at + 1).astype(np.int64)
        at += 1 + 64 * kind.itemsize
    return found


def _codes(body: bytes) -> dict[int, tuple[bytes, bytes]]:
    found, at = {}, 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        values = body[at + 17 : at + 17 + sum(counts)]
        if len(counts) != 16 or len(values) != sum(counts):
            raise ValueError("a damaged Huffman table")
        found[body[at]] = counts, values
        at += 17 + len(values)
    return found
