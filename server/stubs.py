"""The processes in which Triton's Python models run, and whether all of them are alive."""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path

QUESTION = "hilum_probe"
"""Parameter of a request that Hilum's Python models answer at once, without outputs."""

_STUB = b"triton_python_backend_stub"
_FILE = 1
"""Position of the model's file in the command line of a stub: ``<model>/<version>/<file>``."""

_STOPPED_S = 2.0
"""Seconds after which a process that was stopped (SIGSTOP, a debugger) counts as dead."""


@dataclass(slots=True)
class _Process:
    pid: int
    what: str
    file: int
    """A descriptor that becomes readable when the process ends."""
    stopped_since: float | None = None


class Stubs:
    """The server `pid` and its stubs as they are now, each of which is needed from now on."""

    def __init__(self, pid: int) -> None:
        self._processes = [_Process(pid, "the server", -1)]
        for stub, model in children(pid):
            with contextlib.suppress(OSError):  # it ended just now; Triton reports that itself
                file = os.pidfd_open(stub)
                self._processes.append(_Process(stub, f"a process of model {model!r}", file))

    @property
    def files(self) -> list[int]:
        """Descriptors of which one becomes readable when a process ends."""
        return [process.file for process in self._processes if process.file >= 0]

    def dead(self) -> str | None:
        """Which process died, in words; None as long as all are alive."""
        ended, _, _ = select.select(self.files, [], [], 0)
        now = time.monotonic()
        for process in self._processes:
            if process.file in ended:
                return f"{process.what} died"
            if not _is_stopped(process.pid):
                process.stopped_since = None
            elif process.stopped_since is None:
                process.stopped_since = now
            elif now - process.stopped_since > _STOPPED_S:
                return f"{process.what} stands still"
        return None

    def close(self) -> None:
        """Watch no longer."""
        for process in self._processes:
            if process.file >= 0:
                os.close(process.file)
        self._processes.clear()


def children(pid: int) -> list[tuple[int, str]]:
    """Process id and model of each stub of the server `pid`."""
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[1] != str(pid):
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(_STUB):
            found.append((int(entry.name), Path(os.fsdecode(words[_FILE])).parent.parent.name))
    return found


def cpu_seconds(pid: int) -> dict[str, float]:
    """Processor time that the processes of each model of the server `pid` have used so far.

    With that of all processes which these have started.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                one = int(entry.name)
                parents[one] = int(fields[1])
                ticks[one] = sum(map(int, fields[11:15]))  # utime stime cutime cstime
    used: dict[str, float] = {}
    for stub, model in children(pid):
        theirs = {stub}
        while more := {one for one, parent in parents.items() if parent in theirs} - theirs:
            theirs |= more
        seconds = sum(ticks.get(one, 0) for one in theirs) / os.sysconf("SC_CLK_TCK")
        used[model] = used.get(model, 0.0) + seconds
    return used


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False
