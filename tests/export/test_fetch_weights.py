"""Published files from a server on this machine: whole, broken off, wrong, and behind a proxy."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import WeightsError
from hilum.catalog.sources import SOURCES, PublishedFile, Source
from hilum.export.fetch import ZENODO, fetch

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
URL = "https://files.example/published/weights.pth"


class Files(ThreadingHTTPServer):
    """Serves bytes by path, with ranges; closes the first `breaks` connections half way."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.breaks = 0
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        part = content[start:]
        if self.server.breaks:
            self.server.breaks -= 1
            part = part[: len(part) // 2]
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Files()
    server.content["/files.example/published/weights.pth"] = CONTENT
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(digest: str = DIGEST, size: int | None = len(CONTENT)) -> Source:
    return Source("here", "none", (PublishedFile("weights.pth", URL, digest, size),))


def test_a_file_is_fetched_and_kept_when_it_is_there(files: Files, tmp_path: Path) -> None:
    (path,) = fetch(source(), tmp_path, mirror=files.address)
    assert path.read_bytes() == CONTENT
    assert fetch(source(), tmp_path, mirror=files.address) == [path]
    assert len(files.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_was(files: Files, tmp_path: Path) -> None:
    files.breaks = 2
    (path,) = fetch(source(), tmp_path, mirror=files.address)
    assert path.read_bytes() == CONTENT
    starts = [asked for _, asked in files.asked]
    assert starts == [None, "bytes=640000-", "bytes=960000-"]


def test_the_next_command_resumes_what_never_came_whole(files: Files, tmp_path: Path) -> None:
    files.breaks = 4
    with pytest.raises(WeightsError, match="goes on from there"):
        fetch(source(), tmp_path, mirror=files.address)
    assert 0 < (tmp_path / "weights.pth.part").stat().st_size < len(CONTENT)
    (path,) = fetch(source(), tmp_path, mirror=files.address)
    assert path.read_bytes() == CONTENT
    assert files.asked[-1][1] is not None
    assert not (tmp_path / "weights.pth.part").exists()


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_wrong_file_is_removed(files: Files, tmp_path: Path, size: int | None) -> None:
    with pytest.raises(WeightsError, match="not the published file"):
        fetch(source("ab" * 32, size), tmp_path, mirror=files.address)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_says_what_to_do(files: Files, tmp_path: Path) -> None:
    files.content.clear()
    with pytest.raises(WeightsError, match=r"HTTP 404.*hilum weights import"):
        fetch(source(), tmp_path, mirror=files.address)


def test_an_unreachable_source_names_the_proxy_variable(tmp_path: Path, files: Files) -> None:
    with pytest.raises(WeightsError, match="HTTPS_PROXY"):
        fetch(source(), tmp_path, mirror="http://127.0.0.1:9")


def test_a_proxy_of_the_environment_is_used(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", files.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    files.content["http://mirror.example/files.example/published/weights.pth"] = CONTENT
    (path,) = fetch(source(), tmp_path, mirror="http://mirror.example")
    assert path.read_bytes() == CONTENT


def test_a_record_of_zenodo_names_its_files_and_archives_are_unpacked(
    files: Files, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("models/lung/weights.pth", CONTENT)
    entry = {
        "key": "models.zip",
        "size": len(packed.getvalue()),
        "checksum": "md5:" + hashlib.md5(packed.getvalue(), usedforsecurity=False).hexdigest(),
        "links": {"self": "https://zenodo.org/api/records/7/files/models.zip/content"},
    }
    files.content["/zenodo.org/api/records/7"] = json.dumps({"files": [entry]}).encode()
    files.content["/zenodo.org/api/records/7/files/models.zip/content"] = packed.getvalue()
    fetch(Source("Zenodo", "", zenodo=7), tmp_path, mirror=files.address)
    assert (tmp_path / "models" / "lung" / "weights.pth").read_bytes() == CONTENT
    assert ZENODO.endswith("/records/")


def test_a_strange_answer_of_zenodo_is_one_error(files: Files, tmp_path: Path) -> None:
    files.content["/zenodo.org/api/records/7"] = b"<html>log in</html>"
    with pytest.raises(WeightsError, match="not understood"):
        fetch(Source("Zenodo", "", zenodo=7), tmp_path, mirror=files.address)


def test_every_system_says_where_its_weights_are() -> None:
    assert set(SOURCES) == set(SYSTEMS)
    for found in SOURCES.values():
        assert found.where
        assert found.licence
        assert found.fetched or found.by_hand or found.missing
