"""What README and the tutorials show is run as it stands, in one folder, in the reader's order."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import exports
import pytest
from manual import Block, whole

ROOT = Path(__file__).resolve().parents[1]

CHECKPOINTS = {
    "lung": "models_lungs/DeepLabV3+_efficientnet-b1_imagenet_240821_2250",
    "pspnet": "models_covid/PSPNet_efficientnet-b0_imagenet_030921_1848",
}
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _published_checkpoints(folder: Path) -> None:
    """Random weights in the published layout."""
    import torch

    from hilum.export.systems.cxr_severity import network as cxr

    for network, name in CHECKPOINTS.items():
        state = cxr.build(network).state_dict()
        (folder / name).mkdir(parents=True)
        torch.save(
            {cxr.published_name(network, n): t for n, t in state.items()},
            folder / name / "weights.pth",
        )


def masked(text: str) -> str:
    """A text without figures and without what fills a line."""
    return re.sub(r"[-−]?\d[\d.e+-]*(?:cpu)?", "#", " ".join(text.split()))


class Reader:
    """Somebody who types what the pages show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[str] | None = None

    def read(self, blocks: list[Block]) -> list[str]:
        """Type every block of a page; gives what they printed.

        What a page shows as printed must have been printed by the block before, whatever the
        figures. Lines of `make` are those that made the environment of these tests.
        """
        printed = list[str]()
        for block in blocks:
            if block.kind == "text":
                said = masked(printed[-1])
                assert [line for line in block.text.splitlines() if masked(line) not in said] == []
            elif block.kind == "python":
                printed.append(self._program(block.text))
            elif not block.text.startswith("make "):
                printed.append(self._shell(block.text))
        return printed

    def _program(self, text: str) -> str:
        (self.folder / "program.py").write_text(text)
        return self._run([sys.executable, "program.py"])

    def _shell(self, text: str) -> str:
        printed = ""
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["hilum", "serve"]:
                self._serve(words)
            elif words:
                printed += self._run(words)
        return printed

    def _serve(self, words: list[str]) -> None:
        if self.server is not None:
            return
        self.server = subprocess.Popen(
            words, cwd=self.folder, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.server.stdout is not None
        assert "ready" in self.server.stdout.readline()

    def _run(self, words: list[str]) -> str:
        if words[:2] == ["hilum", "export"] and "--store" not in words:
            return exports.as_shown(words, self.folder)
        done = subprocess.run(
            words, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 8001)) == 0:
            pytest.skip("port 8001, which the pages use, is taken on this machine")
    reader = Reader(tmp_path_factory.mktemp("reader"))
    _published_checkpoints(reader.folder / "checkpoints")
    yield reader
    if reader.server is not None:
        reader.server.terminate()
        reader.server.wait(30)


def test_the_first_xray(reader: Reader) -> None:
    *_, table = reader.read(whole("docs/start/xray.md", "sh", "sh", "sh", "text", "sh", "text"))
    shown = re.findall(
        r"^(\d{4}  phantom.*)$", (ROOT / "docs/start/xray.md").read_text(), re.MULTILINE
    )
    scores = [line.split("/")[0] for line in shown]
    assert len(scores) == 4
    assert [line.split("/")[0] for line in table.splitlines() if "phantom" in line] == scores
    assert (reader.folder / "results/0003/overlay.png").exists()


def test_the_first_ct(reader: Reader) -> None:
    reader.read(whole("docs/start/ct.md", "sh", "sh", "sh", "text"))
    (scan,) = json.loads((reader.folder / "scans/report.json").read_text())["results"]
    assert scan["preview"]
    assert scan["volumes_ml"]["lung"] > 0
    page = (ROOT / "docs/start/ct.md").read_text()
    for name in re.findall(r"[\w-]+\.(?:nii\.gz|png|csv)", page):
        assert (reader.folder / "scans/0001" / name).exists() or (
            ROOT / "docs/images" / name
        ).exists()


@pytest.mark.load
def test_checkpoints_in_the_published_layout(reader: Reader) -> None:
    shown = whole("docs/start/checkpoints.md", "sh", "text", "sh", "text", "sh", "text", "sh")
    tree = re.findall(r"[\w+-]+(?:\.pth)?$", shown[1].text, re.MULTILINE)
    assert {path.name for path in (reader.folder / "checkpoints").rglob("*")} >= set(tree[1:])
    where, took, *_ = reader.read([shown[0], *shown[2:]])
    assert "Zenodo" in where
    assert "still without weights" in took
    report = json.loads((reader.folder / "own-results/report.json").read_text())
    assert all(w["source"].startswith("checkpoint") for w in report["weights"])


def test_programs(reader: Reader) -> None:
    _, one, many, together, refused = reader.read(
        whole("docs/start/python.md", "sh", "python", "python", "python", "python")
    )
    assert "4 of 6" in one
    assert len(many.splitlines()) == 4
    assert together.count("ok") == 2
    assert refused.startswith("Unreadable")


def test_the_readme(reader: Reader) -> None:
    assert "4 of 6" in reader.read(whole("README.md", "sh", "sh", "python"))[-1]
