"""Clusters of Ray on this machine, as `ray start` makes them, with nodes that a test may kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hilum.server.launcher import free_ports

_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
_STORE_BYTES = 80_000_000

_MARK = "HILUM_TEST_NODE"
"""Variable by which the processes of a node are known, whatever killed those above them."""


class Cluster:
    """A head without slots, and nodes of two slots each; small, and behind a token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The names of Ray's sockets may have 107 characters in all, with that of their folder.
        self.sockets = Path(tempfile.mkdtemp(prefix="hr"))
        self.port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",  # others use this machine's memory as well
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start_head(self) -> Cluster:
        """Start the head, and wait until it listens."""
        self.start(
            "head", "--head", f"--port={self.port}", "--include-dashboard=false",
            f"--temp-dir={self.sockets}", "--num-cpus=0",
        )  # fmt: skip
        return self

    def start_node(self, url: str, slots: int = 2, **settings: str) -> str:
        """Start a node whose workers ask the server at `url`; returns its name.

        `settings` are Ray's own, without their ``RAY_``.
        """
        name = f"node{len(self.started)}"
        self.start(
            name, f"--address={self.address}", "--num-cpus=1",
            f'--resources={{"triton": {slots}}}', HILUM_BATCH_URL=url,
            **{f"RAY_{setting}": value for setting, value in settings.items()},
        )  # fmt: skip
        return name

    def workers(self) -> list[int]:
        """Processes of the nodes that work on tasks."""
        names = [name for name in self._names() if name != "head"]
        return [p for n in names for p in _marked(self._mark(n)) if "ray::_perform" in _line(p)]

    def kill_raylet(self, name: str) -> None:
        """Kill a node's raylet, not its workers."""
        (raylet,) = [p for p in _marked(self._mark(name)) if "raylet/raylet " in _line(p)]
        os.kill(raylet, signal.SIGKILL)

    def kill_node(self, name: str) -> None:
        """Kill a node with all that runs on it."""
        for pid in _marked(self._mark(name)):
            _kill(pid)

    def kill_gcs(self) -> None:
        """Kill the process that holds the cluster together."""
        (gcs,) = [p for p in _marked(self._mark("head")) if "gcs/gcs_server " in _line(p)]
        os.kill(gcs, signal.SIGKILL)

    def stop(self) -> None:
        """Kill everything that was started here."""
        for name in self._names():
            self.kill_node(name)
        for process in self.started.values():
            process.wait(30)
        self.started.clear()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _names(self) -> list[str]:
        return list(self.started)

    def _mark(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def start(self, name: str, *words: str, **more: str) -> None:
        """Start a part by the words of `ray start`; returns when it runs."""
        log = self.folder / f"{name}.log"
        environment = {**os.environ, **self.environment, _MARK: self._mark(name), **more}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*_RAY, "start", "--block", "--disable-usage-stats",
                 "--node-ip-address=127.0.0.1", f"--object-store-memory={_STORE_BYTES}", *words],
                stdout=stream, stderr=stream, env=environment, start_new_session=True,
            )  # fmt: skip
        self.started[name] = process
        deadline = time.monotonic() + 180
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def _marked(mark: str) -> Iterator[int]:
    """The processes that were started with a mark in their environment, or by such a one."""
    wanted = f"{_MARK}={mark}".encode()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name)
        except OSError:
            continue


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
