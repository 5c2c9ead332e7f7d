"""Regions of system shared memory, and how those of processes that died are found.

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
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..steps import Method, Stub

logger = logging.getLogger(__name__)

PREFIX = "hilum_client-"
"""Names of our regions: ``hilum_client-<word><process id>-<its start time>-<random>``."""

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX puts shared memory on Linux


class SystemMemory:
    """Shared memory of the host."""

    name: Literal["shm", "cuda"] = "shm"
    noun: str = "shared memory"
    smallest: int = 1 << 16

    def obstacle(self) -> str | None:
        """Why there is none."""
        return None if has_folder() else "this system has no /dev/shm"

    def make(self, size: int) -> SystemRegion:
        """A new region; OSError when there is no room for it."""
        return SystemRegion(size)

    def ownerless(self, names: Iterable[str]) -> list[str]:
        """Those of the server's region `names` whose owner is dead."""
        return ownerless(names)

    def register(self, stub: Stub) -> Method:
        """The call that makes a region known to the server."""
        return stub.register_system_shared_memory

    def unregister(self, stub: Stub) -> Method:
        """The call that has the server forget a region."""
        return stub.unregister_system_shared_memory

    def status(self, stub: Stub) -> Method:
        """The call for the regions that the server knows."""
        return stub.get_system_shared_memory_status


def has_folder() -> bool:
    """Whether this system has shared memory of the kind a Triton server can open."""
    return sys.platform == "linux" and _FOLDER.is_dir()


class Mark:
    """A file in ``/dev/shm`` that this process keeps locked; readable by this user alone.

    Parameters
    ----------
    word
        What the name has after the prefix.
    """

    __slots__ = ("_owner", "file", "name")

    def __init__(self, word: str = "") -> None:
        self._owner = os.getpid()
        self.name, self.file = _create_locked(word)

    def remove(self) -> None:
        """Remove file and lock; may be repeated."""
        if self.file < 0 or os.getpid() != self._owner:  # a fork's copy is not the owner
            return
        file, self.file = self.file, -1
        with contextlib.suppress(OSError):
            (_FOLDER / self.name).unlink()
        os.close(file)


class SystemRegion:
    """One mapped region; see `pool.Region`."""

    __slots__ = ("_mark", "_memory", "name", "registered", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.registered = False
        self._mark = Mark()
        self.name = self._mark.name
        try:
            # Takes the pages now: a full /dev/shm is an error here, and a crash (SIGBUS) later.
            os.posix_fallocate(self._mark.file, 0, size)
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._memory = mmap.mmap(self._mark.file, size, flags)
        except OSError:
            self.free()
            raise

    @property
    def key(self) -> str:
        """The name of the region for ``shm_open``."""
        return "/" + self.name

    def registration(self) -> dict[str, Any]:
        """Arguments of the call that registers it."""
        return {"name": self.name, "key": self.key, "byte_size": self.size}

    def write(self, offset: int, array: NDArray) -> None:
        """Copy an array into the region."""
        np.copyto(self._array(offset, array.shape, array.dtype), array)

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        """A read-only copy of the region's bytes as an array."""
        array = self._array(offset, shape, dtype).copy()
        array.flags.writeable = False
        return array

    def settle(self) -> None:
        """Copies on the host are done when they return."""

    def retire(self) -> None:
        """Remove the region's file; the memory goes when nobody maps it any more."""
        self._mark.remove()

    free = retire

    def _array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)


def _create_locked(word: str) -> tuple[str, int]:
    while True:
        name = f"{PREFIX}{word}{os.getpid()}-{_start_time()}-{secrets.token_hex(6)}"
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


def remove_own() -> None:
    """Unlink every region of this process, when it ends without time to close its clients."""
    if has_folder():
        for path in _FOLDER.glob(f"{PREFIX}*{os.getpid()}-{_start_time()}-*"):
            path.unlink(missing_ok=True)


def ownerless(names: Iterable[str]) -> list[str]:
    """Those of the server's region `names` that are ours by name and whose file is gone."""
    return [n for n in names if n.startswith(PREFIX) and not (_FOLDER / n).exists()]
