"""Bodies of several files: what is sent comes out again, however it arrives."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

pytest.importorskip("requests")

import requests
import urllib3

from hilum.gateway import multipart
from hilum.gateway.multipart import body_of, files_of


def answer(body: bytes, kind: str) -> requests.Response:
    found = requests.Response()
    found.raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
    found.headers["Content-Type"] = kind
    return found


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 17])
def test_files_come_out_as_they_were_sent_in_chunks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(multipart, "_CHUNK", chunk)
    chance = random.Random(chunk)
    contents = [b"", b"\r\n", b"\r\n--", b"--\r\n\r\n", chance.randbytes(300), b"\r\n\r\n--\r\n--"]
    files = [tmp_path / f"{number}.dcm" for number in range(len(contents))]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    came = list(files_of(answer(*body_of(files)), tmp_path))
    assert [path.read_bytes() for path in came] == contents


def test_other_ways_to_write_the_same_body_are_read(tmp_path: Path) -> None:
    body = (
        b"some words\r\n--a b  \r\nContent-Type: application/dicom\r\nX: y\r\n\r\none"
        b"\r\n--a b\r\n\r\ntwo\r\n--a b--and more"
    )
    kind = 'Multipart/Related; boundary="a b"; type="application/dicom"'
    assert [path.read_bytes() for path in files_of(answer(body, kind), tmp_path)] == [
        b"one",
        b"two",
    ]


def test_one_instance_may_come_without_parts(tmp_path: Path) -> None:
    (came,) = files_of(answer(b"DICM", "application/dicom"), tmp_path)
    assert came.read_bytes() == b"DICM"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "text/html"),
        (b"--x\r\n\r\none\r\n--x--", "multipart/related"),
        (b"--x\r\n\r\none", "multipart/related; boundary=x"),
        (b"--x\r\n\r\none\r\n--x", "multipart/related; boundary=x"),
        (b"--x\r\nContent-Type: application/dicom\r\n", "multipart/related; boundary=x"),
        (b"", "multipart/related; boundary=x"),
    ],
)
def test_an_answer_that_is_not_whole_is_refused(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=r"no parts|too early"):
        list(files_of(answer(body, kind), tmp_path))
