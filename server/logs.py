"""Logs of servers: where they go, what in them matters."""

from __future__ import annotations

import datetime
import fcntl
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

KEPT = 10
"""Number of logs that stay."""

_counter = itertools.count(1)

_LOADING = re.compile(r'"loading: (\S+):\d+"')
_LOADED = re.compile(r"\"successfully loaded '([^']+)'\"")
_HEADER = re.compile(r"^(?:[IWE]\d{4} [\d:.]+|\S+Z [IWEF]) \d+ \S+\] ")
_BAD = re.compile(
    r"^(?:[EF]\d{4} |\S+Z [EF] |error: |Traceback|\w*(?:Error|Exception)\b)", re.IGNORECASE
)
_FRAMES = r"\n\nAt:\n"
"""Begins the frames of an exception in a Python model, on the line of its message."""

_GIVEN_UP = "Waiting for in-flight requests to complete"
_HARMLESS = ("CudaDriverHelper", "NVML", "DCGM")
_PORT_TAKEN = re.compile(
    r"already in use|failed to start (?:GRPC|HTTP|Metrics) service", re.IGNORECASE
)


def new_log(folder: Path) -> BinaryIO:
    """A new log in `folder`, open for the server; older ones than the last ten go.

    The log is locked by whoever holds it open, so that the log of a server that still runs stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = folder / f"tritonserver-{now}-{os.getpid()}-{next(_counter)}.log"
    log = path.open("ab")
    path.chmod(0o600)
    fcntl.flock(log, fcntl.LOCK_SH)
    logs = sorted(folder.glob("tritonserver-*.log"), key=lambda p: (p.stat().st_mtime, p.name))
    for old in logs[:-KEPT]:
        if not _in_use(old):
            old.unlink(missing_ok=True)
    return log


def loading_state(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the models that a log says are loaded, and of those being loaded."""
    loaded = tuple(dict.fromkeys(_LOADED.findall(text)))
    loading = tuple(n for n in dict.fromkeys(_LOADING.findall(text)) if n not in loaded)
    return loaded, loading


def given_up(text: str) -> bool:
    """Whether the log of a server that is not ready yet says that it will not be."""
    return _GIVEN_UP in text or port_taken(text)


def port_taken(text: str) -> bool:
    """Whether the log says that another process holds one of the ports."""
    return _PORT_TAKEN.search(text) is not None


def meaningful_lines(text: str, limit: int = 12) -> list[str]:
    """The lines of a failed start that say why, without their headers, each once."""
    lines = [line for line in text.splitlines() if line.strip()]
    chosen = [line for line in lines if _BAD.match(line)]
    chosen = [line for line in chosen if not any(word in line for word in _HARMLESS)]
    found = list(dict.fromkeys(_plain(chosen)))
    return found[:limit] if found else list(_plain(lines))[-limit:]


def _in_use(log: Path) -> bool:
    try:
        with log.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _plain(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        message = _HEADER.sub("", line).partition(_FRAMES)[0]
        yield message.strip().strip('"')[:400]
