"""Run a server in the foreground: its log on the terminal, a clean end on Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .folders import state_folder
from .launcher import TritonServer


def serve_foreground(
    server: TritonServer,
    on_ready: Callable[[TritonServer], None],
    on_log: Callable[[str], None] | None = None,
) -> int:
    """Start `server` and stay until it ends or this process is told to stop.

    Ctrl-C, SIGTERM and a closed terminal stop the server with its grace.

    Parameters
    ----------
    on_ready
        Called once when all models are ready.
    on_log
        Called with each line of the server's log, from the start on.

    Returns
    -------
    0 when it was stopped by Ctrl-C or a signal, else the exit code of the server that ended by
    itself (128 + signal when it was killed), never 0.

    Raises
    ------
    RepositoryError, ServerError
        When it does not start.
    """
    with _signals_interrupt(), _following(server, on_log):
        try:
            with server:
                on_ready(server)
                while (code := server.poll()) is None:
                    time.sleep(0.2)
                return code or 1
        except KeyboardInterrupt:
            return 0


def draining(seconds: float) -> Callable[[], None]:
    """What a server does between being told to stop and stopping: it is taken out, and goes on.

    While the `draining_mark` exists the health check of docker/ fails, so that a balancer sends
    nothing new; what is in flight is answered. (Triton itself, once told to stop, answers
    NOT_FOUND on the still open port.)

    Parameters
    ----------
    seconds
        As long as the balancer takes to notice, and a request lasts.
    """
    draining_mark().unlink(missing_ok=True)

    def drain() -> None:
        if seconds > 0:
            draining_mark().touch()
            time.sleep(seconds)

    return drain


def draining_mark() -> Path:
    """The file that tells a health check that the server is about to stop."""
    return state_folder() / "draining"


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; where signals can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _following(server: TritonServer, on_log: Callable[[str], None] | None) -> Iterator[None]:
    """Pass the lines of the server's log on while the block runs."""
    if on_log is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(server, on_log, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(server: TritonServer, on_log: Callable[[str], None], ended: threading.Event) -> None:
    path, offset = None, 0
    while True:
        last = ended.wait(0.1)
        if server.log is not None:
            if server.log != path:  # a new attempt has a new log
                path, offset = server.log, 0
            with server.log.open("rb") as log:
                log.seek(offset)
                data = log.read()
            whole = data if last else data[: data.rfind(b"\n") + 1]
            offset += len(whole)
            for line in whole.decode("utf-8", errors="replace").splitlines():
                on_log(line)
        if last:
            return
