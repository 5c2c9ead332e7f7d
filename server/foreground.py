"""Run a server in the foreground: start it again when it dies, end cleanly on Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hilum.catalog.errors import HilumError, ServerError

from .folders import state_folder
from .launcher import TritonServer
from .questions import askable
from .readiness import Probe
from .signals import call_apart, handled

_LOOK_S = 0.1
"""Seconds between two looks whether the server lives."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
"""Pauses before the server is started again; they double from one to the other. The longest leaves
time for the start within the 30 s for which clients send again."""

_STEADY_S = 60.0
"""A server that has lived for so long is started again after the first pause."""

_STARTS = 5
"""Starts in a row that may fail."""


def serve_foreground(
    server: TritonServer,
    on_ready: Callable[[TritonServer], None],
    on_log: Callable[[str], None] | None = None,
    on_event: Callable[[str], None] = lambda _line: None,
) -> int:
    """Start `server` and stay until this process is ordered to stop; start it again when it dies.

    Ctrl-C, SIGTERM and a closed terminal stop the server with its grace.

    Parameters
    ----------
    on_ready
        Called once when all models are ready.
    on_log
        Called with each line of the server's log, from the start on.
    on_event
        Called with one line for each death of the server and each new start.

    Returns
    -------
    0: it was stopped by Ctrl-C or a signal.

    Raises
    ------
    InputError, RepositoryError, ServerError
        When it does not start; several times in a row, where it was ready before.
    """
    ended = threading.Event()
    with _signals_interrupt(ended), _following(server, on_log):
        try:
            with server:
                on_ready(server)
                _keep(server, on_event, ended)
        except KeyboardInterrupt:
            pass
    return 0


@contextmanager
def kept(server: TritonServer, on_event: Callable[[str], None]) -> Iterator[TritonServer]:
    """Start `server` again, at the same address, whenever it dies while the block runs.

    Parameters
    ----------
    server
        Is started where it does not run yet, and stopped at the end.
    on_event
        Called from another thread with one line for each death and each new start, and when it is
        given up: then requests fail as those to any server that is not there.
    """
    ended = threading.Event()

    def keep() -> None:
        try:
            _keep(server, on_event, ended)
        except HilumError as lost:
            on_event(str(lost))

    with server:
        server.keep_ports()
        thread = threading.Thread(target=keep, name="hilum-keep", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            thread.join()


def _keep(server: TritonServer, on_event: Callable[[str], None], ended: threading.Event) -> None:
    """Start a server again whenever it dies, until `ended`."""
    pause = _FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        reason = _watch(server, ended)
        if ended.is_set():
            return
        server.stop(grace=0)  # what is left of it
        if time.monotonic() - began > _STEADY_S:
            pause = _FIRST_PAUSE_S
        on_event(f"the server {reason}; starting it again in {pause:g} s (its log: {server.log})")
        for attempt in range(1, _STARTS + 1):
            if ended.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            try:
                server.start(given_up=ended)
                break
            except HilumError as error:
                if ended.is_set():
                    return
                if attempt == _STARTS:
                    raise ServerError(
                        f"the server {reason} and could not be started again: {error}"
                    ) from error
                first = str(error).partition("\n")[0]
                on_event(f"that did not succeed, trying again in {pause:g} s: {first}")
        if server.drain is not None:  # the mark is of this server
            draining_mark().unlink(missing_ok=True)
        on_event(f"ready again: gRPC {server.grpc_url}")


def _watch(server: TritonServer, ended: threading.Event) -> str:
    """Why the server died, or has to be stopped, as soon as that is so; "" when it `ended`."""
    with _probe(server) as probe:
        while server.poll() is None:
            if ended.wait(_LOOK_S):
                return ""
            if probe.failure is not None:
                server.stop()
                return probe.failure
    return server.why()


def _probe(server: TritonServer) -> Probe:
    """Asks `server` from time to time whether it is well."""
    staged, found = server.staged, server.binary
    assert staged is not None and found is not None and server.pid is not None  # noqa: S101
    asked = askable(staged.folder, staged.models, own_backends=found.python_backends)
    return Probe(server.grpc_url, staged.models, asked, server.pid)


def draining(seconds: float) -> Callable[[], None]:
    """What a server does between the request to stop and stopping: it is taken out, and goes on.

    While the `draining_mark` exists the health check of docker/ fails, so that a balancer sends
    nothing new; what is in flight is answered. (Triton itself, once asked to stop, answers
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
    """The file that shows a health check that the server is about to stop."""
    return state_folder() / "draining"


@contextmanager
def _signals_interrupt(ended: threading.Event) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP interrupt the block and set `ended`; where signals can be set.

    An exception that a signal raises while a library's callback runs is lost; `ended` is not.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        call_apart(ended.set)
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


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
