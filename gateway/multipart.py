"""Bodies of several DICOM files, as DICOMweb sends them (RFC 2046, PS3.18 §8.6.1)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from email.message import Message
from pathlib import Path

import requests

_CHUNK = 1 << 17
"""Bytes that are asked of a connection at once."""


def files_of(answer: requests.Response, folder: Path) -> Iterator[Path]:
    """Write each part of an answer into a file of its own, byte by byte as it came.

    The answer must have been asked for with ``stream=True``; memory does not grow with it.

    Parameters
    ----------
    folder
        Where the files ``came-0``, ``came-1``, … are made.

    Yields
    ------
    Each file, once it is whole.

    Raises
    ------
    ValueError
        When the answer has no parts of DICOM, or ends before its last boundary.
    """
    kind = Message()
    kind["Content-Type"] = answer.headers.get("Content-Type", "")
    boundary = kind.get_boundary()
    chunks = answer.iter_content(_CHUNK)
    if kind.get_content_type() == "application/dicom":
        yield _write(folder / "came-0", chunks)
        return
    if kind.get_content_type() != "multipart/related" or not boundary:
        raise ValueError("no parts")
    stream = _Stream(chunks)
    end = b"\r\n--" + boundary.encode()
    for _ in stream.until(end):
        pass  # what stands before the first part
    number = 0
    while stream.peek(2) != b"--":
        for _ in stream.until(b"\r\n\r\n"):
            pass  # headers of the part
        yield _write(folder / f"came-{number}", stream.until(end))
        number += 1
    for _ in chunks:
        pass  # what stands after the last part: the connection is free for the next request


def body_of(files: Sequence[Path]) -> tuple[bytes, str]:
    """A body with the very bytes of files, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [part for path in files for part in (
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
        path.read_bytes(), b"\r\n",
    )]  # fmt: skip
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def _write(path: Path, parts: Iterator[bytes]) -> Path:
    with path.open("xb") as stream:
        for part in parts:
            stream.write(part)
    return path


class _Stream:
    """Bytes that come in chunks, taken up to marks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b"\r\n"  # the first boundary may have no line before it

    def until(self, mark: bytes) -> Iterator[bytes]:
        """Everything before a mark, which is passed over."""
        while (place := self._held.find(mark)) < 0:
            sure = max(0, len(self._held) - len(mark) + 1)  # the mark may have begun
            if sure:
                yield self._held[:sure]
            self._held = self._held[sure:]
            self._more()
        yield self._held[:place]
        self._held = self._held[place + len(mark) :]

    def peek(self, count: int) -> bytes:
        """The next bytes, which stay."""
        while len(self._held) < count:
            self._more()
        return self._held[:count]

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ValueError("the answer ends too early")
        self._held += chunk
