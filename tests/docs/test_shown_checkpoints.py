"""Commands of pages that say where checkpoints are, fetch them, import them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import dlpe_checkpoints
import pytest
from manual import Typist, inline, shown

from hilum.catalog.sources import SOURCES
from hilum.export.fetch import ZENODO


class Mirror(ThreadingHTTPServer):
    """A copy of the publishers' hosts that has nothing; it keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Nothing)
        self.asked: list[str] = []


class Nothing(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def reader(tmp_path: Path) -> Typist:
    return Typist(tmp_path, HILUM_STORE=str(tmp_path / "store"), no_proxy="127.0.0.1")


PRINTED = (
    inline("docs/start/checkpoints.md", "hilum fetch-weights dlpe"),
    inline("docs/start/checkpoints.md", "hilum fetch-weights ct-angel"),
    inline("docs/background/covid-mtl.md", "hilum fetch-weights covid-mtl"),
    inline("docs/background/ct-angel.md", "hilum fetch-weights ct-angel"),
    inline("docs/background/dlpe.md", "hilum fetch-weights dlpe"),
)

FETCHED = (
    inline("docs/start/checkpoints.md", "hilum fetch-weights cxr-severity --out downloads"),
    inline("docs/start/checkpoints.md", "hilum fetch-weights ct-classifier --out downloads"),
    inline("docs/start/checkpoints.md", "hilum fetch-weights lungmask --out downloads"),
    inline("docs/background/cxr-severity.md", "hilum fetch-weights cxr-severity --out checkpoints"),
    inline(
        "docs/background/ct-classifier.md", "hilum fetch-weights ct-classifier --out checkpoints"
    ),
    inline("docs/background/lungmask.md", "hilum fetch-weights lungmask --out checkpoints"),
)


@pytest.mark.parametrize("command", sorted(set(PRINTED)))
def test_a_page_is_told_where_checkpoints_are(command: str, reader: Typist) -> None:
    where = SOURCES[command.split()[2]].where
    assert " ".join(where.split()) in " ".join(reader.type(command).split())


@pytest.mark.parametrize("command", {line.split()[2]: line for line in FETCHED}.values())
def test_checkpoints_are_asked_for_where_they_are(
    command: str, reader: Typist, mirror: Mirror
) -> None:
    """From a copy that lacks them: what comes from one that has them is in tests/export."""
    port = mirror.server_address[1]
    reader.type(f"{command} --mirror http://127.0.0.1:{port}", None, 1, 2)
    urls = [file.url for file in SOURCES[command.split()[2]].files if file.url] or [ZENODO]
    assert mirror.asked[0].split("/")[1] in {urlsplit(url).netloc for url in urls}


@pytest.mark.load
def test_fetched_checkpoints_are_exported(reader: Typist, mirror: Mirror) -> None:
    (block,) = shown("docs/how-to/own-network.md", "Checkpoints", "sh")
    fetch, export = block.splitlines()
    port = mirror.server_address[1]
    reader.type(f"{fetch} --mirror http://127.0.0.1:{port}", None, 1, 2)
    assert "hilum weights import lungmask" in reader.type(export, None, 2)  # nothing came
    bare = inline("docs/background/covid-mtl.md", "hilum export lungmask")
    reader.type(f"{bare} --weights random")
    assert list(reader.folder.rglob("lungmask_r231/1/model.onnx"))


@pytest.mark.load
def test_published_files_of_dlpe_are_imported(reader: Typist, golden: Path) -> None:
    dlpe_checkpoints.write_published(
        reader.folder / "trained_models", golden / "dlpe" / "10_pipeline.npz"
    )
    command = inline("docs/background/dlpe.md", "hilum weights import dlpe trained_models")
    assert "reading lung_x" in reader.type(command)


@pytest.mark.load
def test_published_files_of_xrays_are_imported(reader: Typist) -> None:
    command = inline(
        "docs/background/cxr-severity.md", "hilum weights import cxr-severity checkpoints"
    )
    (reader.folder / "checkpoints").mkdir()
    assert "checkpoints" in reader.type(command, None, 1, 2)  # Start imports files that are there
