"""Batches over an archive, run as a user does, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import called
from typer.testing import CliRunner, Result

from hilum.archive.ledger import Ledger
from hilum.cli import app
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom

HILUM = [sys.executable, "-c", "from hilum.cli import main; main()"]


@dataclass
class Archive:
    """A ledger, its results, and the commands on them."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def call(self, *words: object) -> Result:
        """A command in this process, which is quicker."""
        given = [str(word) for word in words]
        return CliRunner().invoke(app, ["batch", *given, "--ledger", str(self.ledger)])

    def start(self, *words: object, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """A run in a process of its own, which a test may kill; `within` goes before its words."""
        words = ("batch", *self.run_words(*words), "--ledger", self.ledger)
        command = [*within, *HILUM, *map(str, words)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def plan(self, *sources: object, system: str = "cxr-severity") -> str:
        options = ("--option", "network=manet") if system == "cxr-severity" else ()
        done = self.call("plan", *sources, "--system", system, *options)
        assert done.exit_code == 0, done.output
        return done.stdout

    def run_words(self, *words: object) -> list[str]:
        words = words if "--out" in words else ("--out", self.results, *words)
        words = words if "--engine" in words else ("--slots", 1, *words)
        return ["run", "--url", self.url, *map(str, words)]

    def run(self, *words: object, code: int = 0) -> Result:
        done = self.call(*self.run_words(*words))
        assert done.exit_code == code, done.output
        return done

    def log(self) -> str:
        """What runs in processes of their own said so far."""
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def verified(self) -> str:
        done = self.call("verify")
        assert done.exit_code == 0, done.output
        return done.stdout

    def rows(self) -> list[dict[str, Any]]:
        """The table of the batch, by the file names of its studies."""
        table = self.folder / "table.jsonl"
        done = self.call("export", "--out", table)
        assert done.exit_code == 0, done.output
        return sorted(map(json.loads, table.read_text().splitlines()), key=lambda r: r["source"])

    def checksums(self) -> dict[str, str]:
        return {s.source: s.sha256 for s in Ledger(self.ledger).studies("done")}


def ran(system: str, source: Path, url: str, out: Path, code: int = 0) -> None:
    """`hilum run` of all that lies below `source`."""
    options = ("--network", "manet") if system == "cxr-severity" else ()
    words = ["run", system, source, *options, "--url", url, "--out", out]
    done = called(*words)
    assert done.returncode == code, done.stderr


def settled(folder: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Results below a folder, without what differs from run to run, in the order of contents.

    Each with the checksums of its files.
    """
    found = []
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_bytes())
        del result["seconds"], result["name"]
        files = {
            file: hashlib.sha256((path.parent / file).read_bytes()).hexdigest()
            for file in result["files"]
        }
        found.append((result, files))
    return sorted(found, key=lambda one: one[0]["key"]["content_sha256"])


def xrays(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    made = []
    for seed in range(count):
        image = chest_xray(seed, height=300, width=260, severity=(seed % 10) / 10)
        made.append(folder / f"{seed:03d}.dcm")
        write_dicom(image, made[-1])
    return made
