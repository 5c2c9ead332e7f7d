"""Where this user's servers on this machine are: a small file in the runtime folder of each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cleanup import is_dead
from .folders import runtime_root

_NAME = "server.json"


def write_record(runtime: Path, record: dict[str, Any]) -> None:
    """Say where the server of the folder `runtime` is; one that serves well needs no record."""
    with contextlib.suppress(OSError):
        (runtime / _NAME).write_text(json.dumps(record))


def running() -> Iterator[dict[str, Any]]:
    """The records of the servers that run, the oldest first."""
    files = sorted(runtime_root().glob(f"*/{_NAME}"), key=lambda file: file.stat().st_mtime)
    for file in files:
        if not is_dead(file.parent.name):
            try:
                yield json.loads(file.read_text())
            except (OSError, ValueError):
                continue  # it ends, or begins, just now
