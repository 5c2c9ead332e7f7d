"""Objects that several threads use, and that travel to other processes all the same."""

from __future__ import annotations

import threading
from typing import Any


class Locked:
    """Has a lock, `_lock`, which a pickle leaves out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
