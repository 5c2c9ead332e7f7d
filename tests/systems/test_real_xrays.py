"""Real X-rays through the whole path with reference weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
"""Runs a command and prints its peak in KiB; of a child of the tests it would be theirs."""

LIMIT = 1.5 * 2**30
"""Bytes that the command and the processes it started may each have had at most."""


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.load)])
def test_real_xrays_run_in_bounded_memory(
    shared: Path, exported_repository: Path, tmp_path: Path, step: int
) -> None:
    """Every eighth of them, and all."""
    real = sorted((shared / "data/cxr-hannover-ccby/images").iterdir())
    assert len(real) == 77
    images = real[::step]
    command = [
        str(Path(sys.executable).with_name("hilum")), "run", "cxr-severity", *map(str, images),
        "--network", "pspnet", "--repository", str(exported_repository), "--out", str(tmp_path),
    ]  # fmt: skip
    run = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["results"]) == len(images)
    assert all("score" in r and (tmp_path / r["files"][0]).exists() for r in report["results"])
    assert all(w["kind"] == "reference" for w in report["weights"])
    assert "REFERENCE WEIGHTS" in report["weights_note"]
    peak = int(run.stdout.split()[-1])
    assert 0 < peak * 1024 < LIMIT
