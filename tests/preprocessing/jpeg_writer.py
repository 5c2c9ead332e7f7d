"""A plain writer of grey JPEG streams: lossless, and sequential of 8 or 12 bits."""

from __future__ import annotations

import numpy as np

ZIGZAG = sorted(
    ((r, c) for r in range(8) for c in range(8)),
    key=lambda at: (at[0] + at[1], at[0] if (at[0] + at[1]) % 2 else at[1]),
)


class Bits:
    """Coded bits, with the zeros that are stuffed behind 255."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> None:
        self.text += format(value, f"0{count}b") if count else ""

    def signed(self, value: int, size: int) -> None:
        self.put(value if value > 0 else value + (1 << size) - 1, size)

    def bytes(self) -> bytes:
        text = self.text + "1" * (-len(self.text) % 8)
        raw = bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8))
        return raw.replace(b"\xff", b"\xff\x00")


def marker(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body


def codes(number: int, bits: int, values: bytes) -> bytes:
    """A table whose codes all have the same length, in the order of `values`."""
    counts = [0] * 16
    counts[bits - 1] = len(values)
    return marker(0xC4, bytes([number, *counts]) + values)


def frame(process: int, picture: np.ndarray, bits: int) -> bytes:
    size = picture.shape[0].to_bytes(2, "big") + picture.shape[1].to_bytes(2, "big")
    return marker(process, bytes([bits]) + size + bytes([1, 1, 0x11, 0]))


def lossless(
    picture: np.ndarray, bits: int, predictor: int = 1, lines: int = 0, shift: int = 0
) -> bytes:
    """A lossless stream; `lines` between restarts."""
    height, width = picture.shape
    parts = [b"\xff\xd8", frame(0xC3, picture, bits), codes(0, 5, bytes(range(17)))]
    if lines:
        parts.append(marker(0xDD, (lines * width).to_bytes(2, "big")))
    parts.append(marker(0xDA, bytes([1, 1, 0, predictor, 0, shift])))
    values = (picture >> shift).tolist()
    every = lines or height
    for number, first in enumerate(range(0, height, every)):
        if number:
            parts.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        out = Bits()
        for r in range(first, min(first + every, height)):
            for c in range(width):
                wanted = predicted(values, r, c, first, predictor, bits - shift)
                write_difference(out, (values[r][c] - wanted) & 0xFFFF)
        parts.append(out.bytes())
    return b"".join([*parts, b"\xff\xd9"])


def predicted(v: list[list[int]], r: int, c: int, first: int, predictor: int, bits: int) -> int:
    if r == first:
        return v[r][c - 1] if c else 1 << bits - 1
    if not c:
        return v[r - 1][c]
    left, above, corner = v[r][c - 1], v[r - 1][c], v[r - 1][c - 1]
    return (
        left, above, corner, left + above - corner, left + (above - corner >> 1),
        above + (left - corner >> 1), left + above >> 1,
    )[predictor - 1]  # fmt: skip


def write_difference(out: Bits, value: int) -> None:
    if value == 0x8000:
        out.put(16, 5)
        return
    value -= 0x10000 if value > 0x8000 else 0
    size = abs(value).bit_length()
    out.put(size, 5)
    out.signed(value, size)


def sequential(picture: np.ndarray, bits: int, step: int = 3, restart: int = 0) -> bytes:
    """A stream of cosine transforms; `restart` blocks between restarts."""
    height, width = picture.shape
    symbols = bytes(
        run << 4 | size for run in range(16) for size in range(15) if size or run in (0, 15)
    )
    parts = [
        b"\xff\xd8", marker(0xDB, bytes([0]) + bytes([step] * 64)),
        frame(0xC0 if bits == 8 else 0xC1, picture, bits),
        codes(0, 5, bytes(range(16))), codes(0x10, 8, symbols),
    ]  # fmt: skip
    if restart:
        parts.append(marker(0xDD, restart.to_bytes(2, "big")))
    parts.append(marker(0xDA, bytes([1, 1, 0, 0, 63, 0])))
    wide = np.pad(picture, ((0, -height % 8), (0, -width % 8)), "edge").astype(float)
    blocks = wide.reshape(len(wide) // 8, 8, -1, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    k, n = np.mgrid[:8, :8]
    wave = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    wave[0] /= np.sqrt(2)
    levels = np.rint(wave @ (blocks - (1 << bits - 1)) @ wave.T / step).astype(int)
    every = restart or len(levels)
    for number, first in enumerate(range(0, len(levels), every)):
        if number:
            parts.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        out, before = Bits(), 0
        for block in levels[first : first + every]:
            line = [int(block[at]) for at in ZIGZAG]
            write_block(out, line[0] - before, line[1:], symbols)
            before = line[0]
        parts.append(out.bytes())
    return b"".join([*parts, b"\xff\xd9"])


def write_block(out: Bits, direct: int, rest: list[int], symbols: bytes) -> None:
    size = abs(direct).bit_length()
    out.put(size, 5)
    out.signed(direct, size)
    run = 0
    for k, value in enumerate(rest):
        if not any(rest[k:]):
            out.put(symbols.index(0), 8)
            return
        if not value:
            run += 1
            continue
        for _ in range(run // 16):
            out.put(symbols.index(0xF0), 8)
        size = abs(value).bit_length()
        out.put(symbols.index(run % 16 << 4 | size), 8)
        out.signed(value, size)
        run = 0
