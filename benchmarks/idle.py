"""What this process and all that it started compute while nothing is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")


def busy_cores(seconds: float) -> float | None:
    """Cores that this process and its descendants keep busy, over so many seconds of waiting.

    None where there is no ``/proc``.
    """
    if not _PROC.is_dir():
        return None
    before, start = _cpu_seconds(), time.perf_counter()
    time.sleep(seconds)
    return max(0.0, _cpu_seconds() - before) / (time.perf_counter() - start)


def _cpu_seconds() -> float:
    """CPU time of the living ones; a process that ends in between is missed."""
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # gone meanwhile
        pid = int(entry.name)
        parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    own = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(spent.get(pid, 0) for pid in own) / os.sysconf("SC_CLK_TCK")
