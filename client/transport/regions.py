"""Regions of memory that client and server share, whatever memory it is: reused, and given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import numpy as np

from hilum.preprocessing.arrays import Array

from ..steps import Method, Stub

logger = logging.getLogger(__name__)

ALIGNMENT = 256
"""Tensors start at multiples of it: of a cache line, and of what kernels of a GPU expect."""

_RETIRED_RETRY_S = 5.0


class Region(Protocol):
    """Memory that the server can open, too.

    Attributes
    ----------
    name
        What the server knows it by.
    registered
        Whether the server is thought to know it.
    """

    name: str
    size: int
    registered: bool

    def registration(self) -> Mapping[str, Any]:
        """Arguments of the call that registers it."""
        ...

    def write(self, offset: int, array: Array) -> None:
        """Copy an array into the region; done when `settle` returns."""
        ...

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """A copy of the region's bytes as an array; complete when `settle` returns."""
        ...

    def settle(self) -> None:
        """Wait for the copies that this thread has begun."""
        ...

    def retire(self) -> None:
        """Let go of what need not wait for the server, which may still use the memory."""
        ...

    def free(self) -> None:
        """Let go of everything: the server does not use the memory any more."""
        ...


class Memory(Protocol):
    """A kind of memory that regions are made of.

    Attributes
    ----------
    name
        Of the transport, and the value of `ConnectionOptions.transport` that demands it.
    noun
        For messages.
    smallest
        Bytes of the smallest region.
    """

    name: Literal["shm", "cuda"]
    noun: str
    smallest: int

    def obstacle(self) -> str | None:
        """Why this side cannot share such memory; None when it can."""
        ...

    def make(self, size: int) -> Region:
        """A new region.

        Raises
        ------
        OSError, MemoryError
            When there is no room.
        """
        ...

    def ownerless(self, names: Iterable[str]) -> list[str]:
        """Those of the server's region `names` that are of clients that died."""
        ...

    def register(self, stub: Stub) -> Method:
        """The call that makes a region known to the server."""
        ...

    def unregister(self, stub: Stub) -> Method:
        """The call that has the server forget a region."""
        ...

    def status(self, stub: Stub) -> Method:
        """The call for the regions that the server knows."""
        ...


def aligned(size: int) -> int:
    """`size` rounded up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def size_class(size: int, smallest: int) -> int:
    """The size of the region for `size` bytes: four steps to each doubling, so ≤ 25 % is unused."""
    if size <= smallest:
        return smallest
    step = 1 << ((size - 1).bit_length() - 3)
    return -(-size // step) * step


class Pool:
    """Regions to reuse, bounded in total size. Thread-safe; nobody waits for another's new region.

    A region is *retired* when it is given up but the server may still know it, or even write to
    it: it waits to be unregistered.
    """

    def __init__(self, memory: Memory, limit: int) -> None:
        self._memory = memory
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[Region] = []
        self._used: set[Region] = set()
        self._retired: dict[Region, float] = {}  # when to unregister
        self._making = 0  # bytes of regions that are being made
        self._closed = False
        self._full_told = False

    def acquire(self, size: int) -> Region | None:
        """A region of at least `size` bytes, None when the bound or the memory allows none."""
        wanted = size_class(size, self._memory.smallest)
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
            self._making += wanted
        region = None
        try:
            region = self._memory.make(wanted)  # takes its pages, so without the lock
        except (OSError, MemoryError) as error:
            self._tell_full(error)
        finally:
            with self._lock:
                self._making -= wanted
                closed = self._closed
                if region is not None and not closed:
                    self._used.add(region)
        if region is not None and closed:  # nobody else would give it up
            region.free()
            return None
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

    def take_retired(self) -> list[Region]:
        """Forget the retired regions that are due to be unregistered, and return them."""
        now = time.monotonic()
        with self._lock:
            due = [region for region, when in self._retired.items() if when <= now]
            for region in due:
                del self._retired[region]
            return due

    def keep_retired(self, region: Region) -> None:
        """The server would not unregister `region` yet, as a request still uses it."""
        with self._lock:
            self._retired[region] = time.monotonic() + _RETIRED_RETRY_S

    def close(self) -> list[Region]:
        """Give every region up; return those that the server may still know."""
        with self._lock:
            self._closed = True
            living = [*self._idle, *self._used]
            known = [region for region in living if region.registered] + list(self._retired)
            self._idle.clear()
            self._used.clear()
            self._retired.clear()
        for region in living:
            (region.retire if region.registered else region.free)()
        return known

    def __len__(self) -> int:
        """How many regions there are, in use or idle."""
        return len(self._idle) + len(self._used)

    def _occupied(self) -> int:
        regions = (*self._idle, *self._used, *self._retired)
        return self._making + sum(region.size for region in regions)

    def _retire(self, region: Region) -> None:
        if region.registered:
            region.retire()
            self._retired[region] = 0.0
        else:
            region.free()

    def _tell_full(self, error: Exception) -> None:
        if not self._full_told:
            self._full_told = True
            logger.warning("no %s for a request: %s", self._memory.noun, error)
