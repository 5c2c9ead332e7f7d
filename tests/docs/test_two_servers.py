"""How to use two servers and restart one, word for word as the page says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import exports
import pytest
from manual import shown

PORTS = (8101, 8102, 8201, 8202)
FEWER = "30"
"""X-rays instead of the page's 60: the run still lasts longer than the restart."""

ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks() -> list[list[list[str]]]:
    """Commands of the section by block, each as words."""
    found = shown(
        "docs/how-to/servers-and-gpus.md", "Two servers and a restart", "sh", "sh", "sh", "sh", "sh"
    )
    return [[shlex.split(line) for line in block.splitlines()] for block in found]


def done(command: list[str], folder: Path) -> str:
    finished = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@contextmanager
def terminal(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a terminal of its own, ready; Ctrl-C at the end, where it still runs."""
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: gRPC 127.0.0.1:")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


def finished_studies(report: Path) -> int:
    return len(list(report.parent.glob("[0-9]*/result.json")))


@pytest.mark.load
def test_a_run_goes_on_while_one_of_two_servers_is_restarted(tmp_path: Path) -> None:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                pytest.skip(f"port {port}, which the page uses, is taken on this machine")
    prepare, (first,), (second,), (status, run), (again,) = blocks()
    generate, export = prepare
    done([FEWER if word == "60" else word for word in generate], tmp_path)
    exports.as_shown(export, tmp_path)
    with terminal(second, tmp_path), terminal(first, tmp_path) as one:
        assert done(status, tmp_path).count(": ready, Triton") >= 2
        going = subprocess.Popen(run, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        report = tmp_path / "results/report.json"
        try:
            while finished_studies(report) < 3:
                assert going.poll() is None
                time.sleep(0.05)
            one.send_signal(signal.SIGINT)  # Ctrl-C in the first terminal
            one.wait(60)
            assert going.poll() is None, "the run was over before its server"
            with terminal(first, tmp_path):
                assert going.wait(300) == 0
                assert done(again, tmp_path).count(": ready, Triton") == 2
        finally:
            if going.poll() is None:
                going.kill()
                going.wait()
    results = json.loads(report.read_text())["results"]
    assert len(results) == int(FEWER)
    assert "failed" not in {entry["status"] for entry in results}
