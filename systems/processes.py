"""Processes that all studies of a program share, and long work that can be watched and ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from hilum.client.calls import Calls
from hilum.preprocessing.workers import Pool, Watch, cores, open_pool

IDLE_S = 20.0
"""Processes are ended when no study has used them for as long."""

PARTS = 100
"""Steps in which progress is reported."""


@dataclass(slots=True)
class _Shared:
    """A pool, the studies that use it, and the clock that closes it when there are none."""

    pool: Pool
    users: int = 0
    clock: threading.Timer | None = None


class SharedPools:
    """Pools of processes by their size, each for all studies that run. Thread-safe.

    A pool is started for the first study that needs it, stays for those that follow, and is ended
    when none has needed it for `IDLE_S` seconds, when the program ends, and in the middle of its
    work when the last study that uses it was cancelled.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._pools: dict[int, _Shared] = {}

    @contextmanager
    def use(self, processes: int) -> Iterator[Pool | None]:
        """Lend a pool.

        Parameters
        ----------
        processes
            How many; 0: one for each core.

        Yields
        ------
        The pool; None for a single process, since that is the program's own.
        """
        size = processes or cores()
        if size == 1:
            yield None
            return
        shared = self._lend(size)
        cancelled = True
        try:
            yield shared.pool
            cancelled = False
        except Exception as error:
            cancelled = isinstance(error, CancelledError)
            raise
        finally:
            self._give_back(size, shared, kill=cancelled)

    def close(self) -> None:
        """End all pools that no study uses."""
        with self._lock:
            idle = [size for size, shared in self._pools.items() if not shared.users]
            ended = [self._pools.pop(size) for size in idle]
        for shared in ended:
            if shared.clock is not None:
                shared.clock.cancel()
            shared.pool.shutdown()

    def _lend(self, size: int) -> _Shared:
        with self._lock:
            shared = self._pools.get(size)
            if shared is None or not _works(shared.pool):
                shared = self._pools[size] = _Shared(open_pool(size))
                _works(shared.pool)
            if shared.clock is not None:
                shared.clock.cancel()
                shared.clock = None
            shared.users += 1
            return shared

    def _give_back(self, size: int, shared: _Shared, *, kill: bool) -> None:
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            current = self._pools.get(size) is shared  # else it was broken, and replaced
            if kill or not current or not _works(shared.pool):
                if current:
                    del self._pools[size]
                shared.pool.kill()
                shared.pool.shutdown(wait=False)
                return
            shared.clock = threading.Timer(self._idle_s, self._expire, (size, shared))
            shared.clock.daemon = True
            shared.clock.start()

    def _expire(self, size: int, shared: _Shared) -> None:
        with self._lock:
            if shared.users or self._pools.get(size) is not shared:
                return
            del self._pools[size]
        shared.pool.shutdown()


POOLS = SharedPools()
"""Those of this program."""


def _works(pool: Pool) -> bool:
    """Whether a pool takes work; the question also starts its first process."""
    try:
        pool.submit(os.getpid)
    except BrokenProcessPool:
        return False
    return True


def watched(calls: Calls, stage: Callable[[float], tuple[str, float]]) -> Watch:
    """What follows long work of a study: reports its progress, ends it when the study is to end.

    Parameters
    ----------
    stage
        Name of a stage and the share of it that is done, by the share of the whole work.
    """
    last: list[tuple[str, int]] = []

    def done(share: float) -> None:
        name, part = stage(share)
        news = (name, round(PARTS * part))
        if [news] != last:
            last[:] = [news]
            calls.progress(*news, PARTS)

    return Watch(done, calls.stop)
