"""Ctrl-C, SIGTERM and SIGHUP: what they end, how long that may take, and what is left: nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from hilum.client.transport.system import remove_own
from hilum.server.signals import call_apart, handled

WAIT_S = 2.0
"""How long a run that is to end waits for what cannot be stopped."""

_CLOSING_S = 3.0
"""How long connections and a server may take to close before the process ends without them."""


class Interrupted(BaseException):
    """A signal asked the command to end.

    Attributes
    ----------
    signum
        Which.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code for it, as a shell has it."""
        return 128 + self.signum


class Interrupts:
    """Signals that end a run.

    Until `deferred` the first one raises `Interrupted` in the main thread; there it sets `stop`,
    and the run ends itself. The second one ends the process at once.

    Attributes
    ----------
    stop
        Set once a signal came.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._signum = 0
        self._deferred = False
        self._cleanups: list[Callable[[], object]] = [remove_own]

    @property
    def interrupted(self) -> Interrupted | None:
        """What to raise once the run has ended itself; None without a signal."""
        return Interrupted(self._signum) if self._signum else None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals meanwhile; those that the shell had ignored stay ignored."""
        with handled(self._handle):
            yield

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal set `stop` and nothing else meanwhile."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def on_end(self, cleanup: Callable[[], object]) -> None:
        """Have `cleanup` called when the process ends at once; it must not wait."""
        self._cleanups.append(cleanup)

    def end_soon(self, code: int) -> None:
        """End the process in a few seconds even if closing takes longer."""
        clock = threading.Timer(_CLOSING_S, self.end_now, [code])
        clock.daemon = True
        clock.start()

    def end_now(self, code: int) -> None:
        """End the process at once; threads and helper processes are not waited for.

        A server that was started goes with this process: its supervisor sees to that.
        """
        for cleanup in self._cleanups:
            with suppress(Exception):
                cleanup()
        for child in multiprocessing.active_children():
            with suppress(Exception):
                child.kill()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._signum:
            self.end_now(128 + signum)
        self._signum = signum
        call_apart(self.stop.set)
        if not self._deferred:
            raise Interrupted(signum)
