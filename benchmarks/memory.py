"""Objects in processes of their own, and how much memory processes hold (Linux)."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hilum.preprocessing.workers import follow_parent

_PROC = Path("/proc")

_LOOK_S = 5.0
"""Between two samples of a session: one takes milliseconds for each process."""


def peak_bytes(pid: int | str = "self") -> int:
    """Most memory that a process had resident at a time; pages that it shares count in full."""
    return _entry(_PROC / str(pid) / "status", "VmHWM")


def session(leader: int) -> list[int]:
    """Processes of the session that `leader` began: a server, and the stubs that it started."""
    return [int(e.name) for e in _PROC.iterdir() if e.name.isdigit() and _leader(e) == leader]


class SessionMemory:
    """Looks at the memory of a session of processes while it is entered, once or several times.

    Attributes
    ----------
    processes
        How many there were, at most.
    sampled_peak
        Largest sum of proportional set sizes among the samples: a page that several processes
        share counts once. What was there for less than five seconds may be missed.
    upper_bound
        Sum of what each process had at most since it began, when the look ended; shared pages
        count for each, and not all had their most at once.
    """

    def __init__(self, leader: int) -> None:
        self.processes = self.sampled_peak = self.upper_bound = 0
        self._session = leader
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._end.clear()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        self.upper_bound = sum(peak_bytes(pid) for pid in session(self._session))

    def _look(self) -> None:
        while not self._end.wait(_LOOK_S):
            self._sample()

    def _sample(self) -> None:
        found = session(self._session)
        total = sum(_entry(_PROC / str(pid) / "smaps_rollup", "Pss") for pid in found)
        self.processes = max(self.processes, len(found))
        self.sampled_peak = max(self.sampled_peak, total)


def _entry(path: Path, name: str) -> int:
    """An entry in kB of a file of the kernel, in bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return 0


def _leader(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text()
    except OSError:
        return None  # gone meanwhile
    return int(stat.rpartition(")")[2].split()[3])  # after the name, which may hold anything


class _Manager(BaseManager):
    """The process."""


@contextlib.contextmanager
def apart(kind: Callable[..., Any], *arguments: object) -> Iterator[Any]:
    """Make an object in a fresh process; it ends with the context.

    Parameters
    ----------
    kind
        A class of a module. What its public methods take and return is copied between the
        processes, and so are their exceptions.

    Yields
    ------
    A stand-in for the object, with its methods.
    """
    name = kind.__name__
    _Manager.register(name, kind)
    process = _Manager(ctx=multiprocessing.get_context("spawn"))
    process.start(follow_parent)
    with process as manager:
        yield getattr(manager, name)(*arguments)
