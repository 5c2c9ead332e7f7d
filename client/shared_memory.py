"""Regions of system shared memory: made, pooled, and cleaned up after processes that died.

A region is a file in ``/dev/shm`` that its owner keeps locked. The lock ends with the process,
however it ends, so whoever can take it knows that the region is a leftover; this also holds
between containers that share ``/dev/shm`` but do not see each other's processes.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

PREFIX = "hilum_client-"
"""Names of our regions: ``hilum_client-<process id>-<its start time>-<random>``."""

ALIGNMENT = 64
"""Tensors start at multiples of a cache line."""

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX puts shared memory on Linux
_SMALLEST = 1 << 16
_RETIRED_RETRY_S = 5.0


def is_available() -> bool:
    """Whether this system has shared memory of the kind a Triton server can open."""
    return sys.platform == "linux" and _FOLDER.is_dir()


def aligned(size: int) -> int:
    """`size` rounded up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def size_class(size: int) -> int:
    """The size of the region for `size` bytes: four steps to each doubling, so ≤ 25 % is unused."""
    if size <= _SMALLEST:
        return _SMALLEST
    step = 1 << ((size - 1).bit_length() - 3)
    return -(-size // step) * step


class Region:
    """One mapped region. Its file is readable by this user alone.

    Attributes
    ----------
    name
        What the server knows it by; ``/`` + `name` is its key.
    registered
        Whether the server is thought to know it.
    """

    __slots__ = ("_file", "_memory", "_owner", "name", "registered", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.registered = False
        self._owner = os.getpid()
        self.name, self._file = _create_locked()
        try:
            # Takes the pages now: a full /dev/shm is an error here, and a crash (SIGBUS) later.
            os.posix_fallocate(self._file, 0, size)
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._memory = mmap.mmap(self._file, size, flags)
        except OSError:
            self.unlink()
            raise

    @property
    def key(self) -> str:
        """The name of the region for ``shm_open``."""
        return "/" + self.name

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        """A view of the region's bytes from `offset` as an array."""
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)

    def unlink(self) -> None:
        """Remove the region's file and lock; the memory goes when nobody maps it any more."""
        if self._file < 0 or os.getpid() != self._owner:  # a fork's copy is not the owner
            return
        file, self._file = self._file, -1
        with contextlib.suppress(OSError):
            (_FOLDER / self.name).unlink()
        os.close(file)


def _create_locked() -> tuple[str, int]:
    while True:
        name = f"{PREFIX}{os.getpid()}-{_start_time()}-{secrets.token_hex(6)}"
        file = os.open(_FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # Between creation and lock another client may have taken it for a leftover.
        if _lock(file) and os.fstat(file).st_nlink > 0:
            return name, file
        os.close(file)


def _lock(file: int) -> bool:
    """Take the lock that an owner holds for life; False when somebody has it."""
    import fcntl  # only where there is /dev/shm; the module must load everywhere

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _start_time() -> str:
    """When this process started, in clock ticks since boot (proc(5), field 22 of ``stat``)."""
    return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]


def remove_leftovers() -> list[str]:
    """Unlink the regions of processes that died; return their names."""
    removed = []
    for path in _FOLDER.glob(PREFIX + "*"):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # another user's, or gone already
            continue
        if _lock(file):  # its owner is dead
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                removed.append(path.name)
        os.close(file)
    if removed:
        logger.info("removed %d shared memory regions of processes that died", len(removed))
    return removed


def ownerless(names: Iterable[str]) -> list[str]:
    """Those of the server's region `names` that are ours by name and whose file is gone."""
    return [n for n in names if n.startswith(PREFIX) and not (_FOLDER / n).exists()]


class Pool:
    """Regions to reuse, bounded in total size. Thread-safe; it never waits and never calls out.

    A region is *retired* when its memory is given up but the server may still know it, or even
    write to it: its file is gone, and its name waits to be unregistered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[Region] = []
        self._used: set[Region] = set()
        self._retired: dict[str, tuple[int, float]] = {}  # size, when to unregister
        self._closed = False
        self._full_told = False

    def acquire(self, size: int) -> Region | None:
        """A region of at least `size` bytes, None when the bound or ``/dev/shm`` allows none."""
        wanted = size_class(size)
        with self._lock:
            if self._closed:
                return None
            for position in range(len(self._idle) - 1, -1, -1):  # the warmest first
                if self._idle[position].size == wanted:
                    region = self._idle.pop(position)
                    self._used.add(region)
                    return region
            while self._idle and self._occupied() + wanted > self._limit:
                self._retire(self._idle.pop(0))
            if self._occupied() + wanted > self._limit:
                return None
            try:
                region = Region(wanted)
            except OSError as error:
                self._tell_full(error)
                return None
            self._used.add(region)
            return region

    def release(self, region: Region) -> None:
        """Give a region back for reuse; the server must be done with it."""
        with self._lock:
            if region not in self._used:  # the pool was closed meanwhile
                return
            self._used.remove(region)
            self._idle.append(region)

    def drop(self, region: Region) -> None:
        """Give a region up that the server may still write to."""
        with self._lock:
            if region in self._used:
                self._used.remove(region)
                self._retire(region)

    def take_retired(self) -> Mapping[str, int]:
        """Forget the retired regions that are due to be unregistered; their names and sizes."""
        now = time.monotonic()
        with self._lock:
            due = {name: size for name, (size, when) in self._retired.items() if when <= now}
            for name in due:
                del self._retired[name]
            return due

    def keep_retired(self, name: str, size: int) -> None:
        """The server would not unregister `name` yet, as a request still uses it."""
        with self._lock:
            self._retired[name] = (size, time.monotonic() + _RETIRED_RETRY_S)

    def close(self) -> list[str]:
        """Unlink every region; return the names that the server may still know."""
        with self._lock:
            self._closed = True
            regions = [*self._idle, *self._used]
            names = [r.name for r in regions if r.registered] + list(self._retired)
            self._idle.clear()
            self._used.clear()
            self._retired.clear()
        for region in regions:
            region.unlink()
        return names

    def __len__(self) -> int:
        """How many regions there are, in use or idle."""
        return len(self._idle) + len(self._used)

    def _occupied(self) -> int:
        living = sum(r.size for r in self._idle) + sum(r.size for r in self._used)
        return living + sum(size for size, _ in self._retired.values())

    def _retire(self, region: Region) -> None:
        region.unlink()
        if region.registered:
            self._retired[region.name] = (region.size, 0.0)

    def _tell_full(self, error: OSError) -> None:
        if not self._full_told:
            self._full_told = True
            logger.warning("no shared memory for a request, which goes over gRPC: %s", error)
