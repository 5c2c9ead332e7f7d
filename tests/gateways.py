"""Gateways in processes of their own, their settings, and studies for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from commands import called
from pacs import PASSWORD, USER, Orthanc
from pydicom import dcmread

from hilum.gateway.ledger import Ledger
from hilum.gateway.worker import explained
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom

RULES = """
[[rule]]
name = "chest CT"
modality = ["CT"]
description_not = ["scout"]
min_slices = 4
systems = ["lungmask"]

[[rule]]
name = "chest X-ray"
modality = ["CR", "DX"]
systems = ["cxr-severity"]
options.cxr-severity.network = "manet"
"""


both = pytest.mark.parametrize(
    "changes",
    [pytest.param(True, id="changes"), pytest.param(False, id="queries", marks=pytest.mark.load)],
)
"""Both ways to hear of what is new; `make test` takes one."""


def web(pacs: Orthanc, *, changes: bool = True, port: int | None = None) -> str:
    """The source that an Orthanc is, by its changes or by queries; through a proxy at `port`."""
    root = f"http://127.0.0.1:{port or pacs.port}"
    lines = f"[source]\ndicomweb = '{root}/dicom-web'\nuser = '{USER}'\npassword = 'env:PACS'\n"
    return lines + (f"orthanc = '{root}'\n" if changes else "days = 0\n")


@dataclass
class Running:
    """A gateway in a process of its own."""

    config: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> Running:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from hilum.cli import main; main()", "gateway", "run",
                 "--config", str(self.config)],
                stdout=log, stderr=log, env={**os.environ, "PACS": PASSWORD, **self.environment},
            )  # fmt: skip
        return self

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of `hilum gateway` with the same settings, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PACS", PASSWORD)
            return called("gateway", *words, "--config", self.config)

    def status(self) -> dict[str, Any]:
        done = self.call("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def until(
        self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 240, fails: bool = False
    ) -> dict[str, Any]:
        """Wait for what `status --json` prints; says what it was when the time is over."""
        deadline = time.monotonic() + seconds
        path = self.config.parent / "state" / "ledger.sqlite"
        while not path.exists():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        ledger = Ledger(path)
        while True:
            jobs = [explained(job) for job in ledger.jobs()]
            status: dict[str, Any] = {"counts": ledger.counts(), "jobs": jobs}
            if wanted(status):
                return status
            assert not status["counts"]["failed"] or fails, f"{status}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"{status}\n{self.log.read_text()}"
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def end(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.process = None
        return code


def done(count: int) -> Callable[[dict[str, Any]], bool]:
    """So many jobs are done, and none is open."""

    def wanted(status: dict[str, Any]) -> bool:
        counts = status["counts"]
        return counts["done"] == count and counts["done"] + counts["failed"] + counts[
            "ignored"
        ] == len(status["jobs"])

    return wanted


def ct(folder: Path, seed: int = 5, slices: int = 12) -> list[Path]:
    write_dicom_series(chest_ct(seed, slices=slices, size=96, lesions=0).volume, folder)
    return sorted(folder.rglob("*.dcm"))


def xray(path: Path, seed: int = 3) -> list[Path]:
    write_dicom(chest_xray(seed, height=300, width=260, severity=0.8), path)
    return [path]


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0]).StudyInstanceUID)
