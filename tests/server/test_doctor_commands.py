"""`hilum doctor` on this machine, and the commands that refuse what it calls broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import small_repository
from recorded_plans import write_plan
from typer.testing import CliRunner, Result

from hilum.cli import app
from hilum.export.declarations import write_declarations
from hilum.server.machine import gpus

HILUM = str(Path(sys.executable).with_name("hilum"))


def hilum(*arguments: object) -> Result:
    """Run one command in this process: most of what a program of its own takes is its start."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_doctor_calls_this_machine_usable(tmp_path: Path) -> None:
    write_declarations(tmp_path)
    done = subprocess.run(
        [HILUM, "doctor", "--json", "--repository", tmp_path], capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["usable"]) == (0, True), done.stdout
    lines = {f["what"]: f for f in told["findings"]}
    old = lines["Triton 2.51.0 is older than 2.71 (26.07)"]
    assert old["level"] == "note"
    assert "loopback only" in old["remedy"]
    (networks,) = [f for what, f in lines.items() if what.startswith("cxr_lung, cxr_unet, ")]
    assert networks["remedy"] == "hilum export cxr-severity"  # one line for ten networks
    other = hilum("doctor", "--repository", tmp_path / "none", "--host", "0.0.0.0")  # noqa: S104
    assert other.exit_code == 1
    (line,) = [text for text in other.stdout.splitlines() if text.startswith("problem")]
    assert "bind 127.0.0.1" in line


@pytest.mark.skipif(gpus() > 0, reason="this machine has a GPU")
def test_doctor_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    assert "no NVIDIA GPU found" in hilum("doctor", "--repository", tmp_path / "none").stdout


def test_serve_and_run_refuse_what_doctor_calls_broken(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    small_repository.write(repository)
    done = hilum("serve", "--repository", repository, "--host", "0.0.0.0")  # noqa: S104
    assert done.exit_code == 3
    assert "older than 2.71" in done.stderr
    assert "ready" not in done.stdout
    write_plan(repository)
    plan = hilum("serve", "--repository", repository)
    assert plan.exit_code == 3
    assert "--target onnx" in plan.stderr
    phantom = hilum("phantom", "cxr", "--out", tmp_path / "x", "--size", 256, "--count", 1)
    assert phantom.exit_code == 0, phantom.stderr
    run = hilum("run", "cxr-severity", tmp_path / "x", "--out", tmp_path / "out",
                "--repository", repository)  # fmt: skip
    assert run.exit_code == 3
    assert "--target onnx" in run.stderr
    ignored = hilum("run", "cxr-severity", tmp_path / "x", "--out", tmp_path / "out",
                    "--repository", repository, "--ignore-doctor")  # fmt: skip
    assert "hilum export" in ignored.stderr  # what is refused now is the incomplete repository
    assert "does not fit" not in ignored.stderr
