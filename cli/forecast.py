"""How long a study takes, said once its first steps are measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from hilum.client.protocols import AnySystem

from .console import duration

MEASURED_S = 10.0
"""How long the first steps are measured."""

LONG_S = 300.0
"""Studies that take less are begun without a word."""


class Forecast:
    """Watches the progress of the first study, and says how long it will take.

    Parameters
    ----------
    say
        Called once, with a sentence, where a study takes more than `LONG_S` seconds.
    """

    def __init__(self, system: AnySystem, options: Any, say: Callable[[str], object]) -> None:
        self._system, self._options, self._say = system, options, say
        self._began: tuple[float, int] | None = None
        self._lock = threading.Lock()
        self._over = False

    def part(self, stage: str, done: int, total: int, now: float | None = None) -> None:
        """Take note of progress: `done` of `total` steps of `stage`; from any thread."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if self._over:
                return
            share = self._system.share_of(stage, self._options)
            if share is None:
                return
            if self._began is None:  # as soon as the first is done, all that run at once do
                self._began = now, done
            since, before = self._began
            if done == before or (now - since < MEASURED_S and done < total):
                return
            self._over = True
            seconds = (now - since) * total / (done - before) / share
        if seconds > LONG_S:
            self._say(
                f"a study takes {duration(seconds)} at most on these servers, measured on its "
                f"first {done} of {total} slices of {stage}"
            )
