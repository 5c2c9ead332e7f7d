"""Real X-rays through the whole path with random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LIMIT = 1.5 * 2**30
"""Bytes that the command and the processes it started may each have had at most."""


def test_all_real_xrays_run_in_bounded_memory(
    shared: Path, exported_repository: Path, tmp_path: Path
) -> None:
    images = shared / "data/cxr-hannover-ccby/images"
    command = [
        str(Path(sys.executable).with_name("hilum")), "run", "cxr-severity", str(images),
        "--network", "pspnet", "--repository", str(exported_repository), "--out", str(tmp_path),
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0, (tmp_path / "log").read_text()
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["results"]) == 77
    assert all("score" in r and (tmp_path / r["files"][0]).exists() for r in report["results"])
    assert all(w["source"].startswith("random") for w in report["weights"])
    assert "RANDOM WEIGHTS" in report["weights_note"]
    assert usage.ru_maxrss * 1024 < LIMIT
