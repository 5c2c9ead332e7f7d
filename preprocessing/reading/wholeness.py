"""Whether a PNG or JPEG holds all of its pixels, however a truncated one was closed again."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
          (1, 0, 2, 1))  # fmt: skip
_STEP = 2**20

_END = 0xD9
_RESTARTS = range(0xD0, 0xD8)
_NO_SEGMENTS = frozenset((0x00, 0x01, 0xD8, 0xFF, *_RESTARTS))
"""After FF: stuffing, fill bytes, and marks without a length."""


def png_is_whole(
    parts: list[memoryview], width: int, height: int, bits: int, colour: int, interlaced: bool
) -> bool:
    """Whether the IDAT chunks `parts` unpack to every row, and to nothing beyond."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for top, left, down, across in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + (columns * bits * _CHANNELS[colour] + 7) // 8)
    unpacker, got = zlib.decompressobj(), 0
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while len(rest) and not unpacker.eof and got <= wanted:
                got += len(unpacker.decompress(rest, _STEP))
                rest = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof and got == wanted


def jpeg_is_whole(data: bytes, image: NDArray[Any], flag: int) -> bool:
    """Whether bits put before the end mark change nothing: then none were missing.

    Parameters
    ----------
    image
        What OpenCV decoded from `data` with `flag`.
    """
    end = _end_of_jpeg(data)
    for byte in (b"\x55", b"\xaa"):
        # With restart marks, which the decoder waits for where it stopped at one.
        filler = byte * 64 + b"".join(bytes((0xFF, mark)) + byte * 8 for mark in _RESTARTS)
        again = cv2.imdecode(np.frombuffer(data[:end] + filler + data[end:], np.uint8), flag)
        if again is None or not np.array_equal(again, image):
            return False
    return True


def _end_of_jpeg(data: bytes) -> int:
    """Where the first end mark lies that is no part of a segment."""
    position = data.find(b"\xff", 2)
    while 0 <= position < len(data) - 1:
        marker = data[position + 1]
        if marker == _END:
            return position
        length = (
            1 if marker in _NO_SEGMENTS else 2 + int.from_bytes(data[position + 2 : position + 4])
        )
        position = data.find(b"\xff", position + length)
    return data.rfind(b"\xff\xd9")
