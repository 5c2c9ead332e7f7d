"""How files are spoilt: blindly, by their structure, and inside of what they are packed in.

Every function takes the bytes and a `random.Random`, so that a seed gives the same file again.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TEXTS = (
    b"nan", b"-inf", b"1e400", b"-1", b"0", b"99999999999999999999", b"\\", b"\0", b"..", b"/etc",
    b"\x1b[31m", b"\xff\xfe", b"1\\2\\3\\4", b"%s%n", b"<!DOCTYPE a>", "é\u202e".encode(),
)  # fmt: skip
_KINDS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT"
).split()
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_OPEN = 0xFFFFFFFF


def blind(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, drop or insert bytes, most often near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        reach = len(changed) if rng.random() < 0.5 else min(len(changed), 1024)
        at, length = rng.randrange(reach + 1), min(rng.choice((1, 2, 4, 16, 200)), len(changed))
        match rng.randrange(8):
            case 0 | 1:
                for k in range(at, min(at + length, len(changed))):
                    changed[k] ^= 1 << rng.randrange(8)
            case 2:
                del changed[rng.randrange(len(changed) + 1) :]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                del changed[at : at + length]
            case 5:
                changed[at:at] = rng.randbytes(length)
            case 6:
                kind = rng.choice(("<H", ">H", "<I", ">I"))
                size = struct.calcsize(kind)
                number = rng.choice(_NUMBERS) & (2 ** (8 * size) - 1)
                changed[at : at + size] = struct.pack(kind, number)
            case _:
                text = rng.choice(_TEXTS)
                changed[at : at + len(text)] = text
    return bytes(changed)


def dicom(data: bytes, rng: random.Random) -> bytes:
    """Change lengths, kinds, tags and values of elements, or insert sequences."""
    elements = _elements(data)
    if not elements or rng.random() < 0.25:
        return blind(data, rng)
    changed = data
    for at, start, end, kind in sorted(
        rng.choices(elements, k=rng.choice((1, 1, 2))), reverse=True
    ):
        tag, value = changed[at : at + 4], changed[start:end]
        match rng.randrange(8):
            case 0:
                tag = changed[(other := rng.choice(elements)[0]) : other + 4]
            case 1:
                kind = rng.choice(_KINDS)
            case 2 | 3:
                value = rng.choice(_TEXTS) * rng.choice((1, 1, 2, 300))
            case 4:
                value, kind = _nested(value, rng), b"SQ"
            case 5:
                number = rng.choice(_NUMBERS)
                value = struct.pack("<I", number)[: max(2, min(4, len(value)))]
            case 6:
                value = b"" if rng.random() < 0.5 else value[: rng.randrange(len(value) + 1)]
            case _:
                written = _element(tag, kind, value)
                wrong = rng.choice(_NUMBERS)
                size = 4 if kind in _LONG else 2
                place = 8 if kind in _LONG else 6
                number = (wrong & (2 ** (8 * size) - 1)).to_bytes(size, "little")
                written = written[:place] + number + written[place + size :]
                changed = changed[:at] + written + changed[end:]
                continue
        changed = changed[:at] + _element(tag, kind, value) + changed[end:]
    return changed


def _elements(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Place, begin and end of the value, and kind of each explicit element of the top level."""
    found, at = [], 132
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 6]
        if kind not in _KINDS:
            break
        long = kind in _LONG
        length = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
        start = at + (12 if long else 8)
        end = len(data) if length == _OPEN else start + length
        if end > len(data):
            break
        found.append((at, start, end, kind))
        at = end
    return found


def _element(tag: bytes, kind: bytes, value: bytes) -> bytes:
    if kind in _LONG:
        return tag + kind + struct.pack("<HI", 0, len(value)) + value
    return tag + kind + struct.pack("<H", len(value) & 0xFFFF) + value


def _nested(value: bytes, rng: random.Random) -> bytes:
    """Sequences in sequences, of known or open length."""
    inner = _element(b"\x28\0\x30\0", b"DS", value[:64])
    for _ in range(rng.choice((1, 2, 5, 100, 2000))):
        if rng.random() < 0.5:
            item = (
                b"\xfe\xff\0\xe0"
                + struct.pack("<I", _OPEN)
                + inner
                + b"\xfe\xff\x0d\xe0"
                + bytes(4)
            )
        else:
            item = b"\xfe\xff\0\xe0" + struct.pack("<I", len(inner)) + inner
        inner = _element(b"\x40\0\x75\x02", b"SQ", item)
    return inner


def png(data: bytes, rng: random.Random) -> bytes:
    """Change a chunk and mend its checksum, so that a decoder goes on."""
    chunks = _chunks(data)
    if not chunks or rng.random() < 0.3:
        return blind(data, rng)
    place = rng.randrange(len(chunks))
    name, content = chunks[place]
    match rng.randrange(4):
        case 0 if name == b"IDAT":
            pixels = zlib.decompress(b"".join(c for n, c in chunks if n == name))
            content = zlib.compress(blind(pixels, rng))
            chunks = [c for k, c in enumerate(chunks) if c[0] != name or k == place]
            place = [n for n, _ in chunks].index(name)
        case 1:
            chunks.insert(place, chunks[rng.randrange(len(chunks))])
        case 2:
            del chunks[place - 1]
            place = max(0, place - 1)
        case _:
            content = blind(content, rng)
    if place < len(chunks):
        chunks[place] = (name, content)
    return data[:8] + b"".join(chunk(*c) for c in chunks)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def inside_gzip(data: bytes, rng: random.Random) -> bytes:
    """Change what is packed, as often as the packing itself."""
    if rng.random() < 0.4:
        return blind(data, rng)
    return gzip.compress(blind(gzip.decompress(data), rng), 1, mtime=0)


def inside_zip(data: bytes, rng: random.Random) -> bytes:
    """Change one member and pack all again, as often as the packing itself."""
    if rng.random() < 0.4:
        return blind(data, rng)
    members: list[tuple[str, bytes]] = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    # The pickle, or the only array, tells what the others are.
    heads = [k for k, (name, _) in enumerate(members) if name.endswith((".pkl", ".npy"))]
    place = rng.choice(heads) if heads and rng.random() < 0.6 else rng.randrange(len(members))
    name, content = members[place]
    members[place] = (name, blind(content, rng) if rng.random() < 0.9 else content * 3)
    target = io.BytesIO()
    kind: Any = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return target.getvalue()
