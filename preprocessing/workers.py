"""Work on several cores, with progress and a way to end it.

Most of what takes long before a network holds Python's global lock, so threads would wait for each
other; it goes to processes instead. They are started afresh (``spawn``), because a copy of a
process with a server connection of its own may hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from hilum.catalog.errors import HilumError

Result = TypeVar("Result")

_LOOK_S = 0.2
"""How often a wish to stop is looked for."""

_NOTICE_S = 5.0
"""Within this it is noticed that processes have died."""


class Watch:
    """Who follows a piece of work.

    Parameters
    ----------
    progress
        Called with the share of the work that is done, 0…1.
    stop
        When it is set the work ends with `CancelledError` at its next step.
    """

    def __init__(
        self,
        progress: Callable[[float], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._progress, self._stop = progress, stop

    def check(self) -> None:
        """End the work when that is wished.

        Raises
        ------
        concurrent.futures.CancelledError
            Then.
        """
        if self._stop is not None and self._stop.is_set():
            raise CancelledError

    def done(self, share: float) -> None:
        """Tell the share that is done; ends the work when that is wished, as `check` does."""
        self.check()
        self._progress(min(1.0, share))

    def part(self, start: float, end: float) -> Watch:
        """The watch over a part of the work that begins at one share of it and ends at another."""
        return Watch(lambda share: self._progress(start + share * (end - start)), self._stop)


class _Spawning(SpawnContext):
    """Starts processes afresh, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Any] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]
        process = SpawnProcess(*args, **kwargs)
        self.started.append(process)
        return process


class Pool(ProcessPoolExecutor):
    """Processes that can be ended in the middle of their work."""

    def __init__(self, processes: int) -> None:
        self._own = _Spawning()
        super().__init__(processes, mp_context=self._own, initializer=_begin)

    def kill(self) -> None:
        """End all processes at once; what was given to them fails with `BrokenProcessPool`.

        From without, since most of their work leaves them no moment to end themselves.
        """
        pending = getattr(self, "_pending_work_items", None)
        for item in list((pending or {}).values()):
            if item.future.cancelled():  # CPython 3.11 stumbles over it when it fails the others
                item.future = Future()
        for process in self._own.started:
            if process.is_alive():
                process.kill()
        # The pool's own thread fails that work and then closes the pipe to the processes, or what
        # is being written to them would be written for ever (CPython gh-94777). Where it does not,
        # in early releases of 3.11, the pipe is closed here: never by both, since the second would
        # close whatever has its number by then.
        thread = getattr(self, "_executor_manager_thread", None)
        reader = getattr(getattr(self, "_call_queue", None), "_reader", None)
        deadline = time.monotonic() + _NOTICE_S
        while thread and reader and thread.is_alive() and not reader.closed:
            if time.monotonic() > deadline:
                with suppress(OSError):
                    reader.close()
            time.sleep(_NOTICE_S / 1000)


def open_pool(processes: int | None = None) -> Pool:
    """Start processes for the functions that take a `pool`.

    Parameters
    ----------
    processes
        How many; None: one for each core that this process may use.

    Returns
    -------
    A pool to be closed after use, best by ``with``. Each process keeps to one thread, leaves Ctrl-C
    to this one, and ends with it. It starts the program's main module once more, so a script needs
    ``if __name__ == "__main__":``.
    """
    return Pool(processes or cores())


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_each(
    function: Callable[..., Result],
    tasks: Iterable[tuple[Any, ...]],
    pool: Executor,
    watch: Watch,
) -> Generator[tuple[int, Result], None, None]:
    """Call a function for each task in a pool; what is not begun is dropped on ``close``.

    Parameters
    ----------
    function
        For a pool of processes one of a module.
    tasks
        Its arguments.

    Yields
    ------
    Number of the task and its result, in the order in which they are ready.

    Raises
    ------
    concurrent.futures.CancelledError
        When the watch wants an end; what has not begun is dropped.
    HilumError
        When a process died.
    """
    numbers = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
    for one in ready(numbers, watch):
        yield numbers[one], one.result()


def ready(futures: Iterable[Future[Result]], watch: Watch) -> Iterator[Future[Result]]:
    """Futures as they finish; drops the rest when the watch wants an end or one fails.

    Raises
    ------
    concurrent.futures.CancelledError
        When the watch wants an end.
    HilumError
        When a process died.
    """
    pending = set(futures)
    try:
        while pending:
            watch.check()
            finished, pending = wait(pending, _LOOK_S, FIRST_COMPLETED)
            for one in finished:
                if isinstance(one.exception(), BrokenProcessPool):
                    raise HilumError(
                        "a process of the pool died, most likely for want of memory; use fewer "
                        "processes"
                    )
                yield one
    finally:
        for one in pending:
            one.cancel()


def _begin() -> None:
    """Prepare a process of the pool before it loads any library that has threads of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def follow_parent() -> None:
    """Let this process end with the one that started it, also when that was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
