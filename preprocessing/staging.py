"""Planes on their way to a GPU: decoded ahead by threads, copied out of pinned memory.

While one plane is copied and resampled, threads decode the next ones. A copy out of pinned memory
does not stop the host, and a buffer is filled again only after its copy has ended. Not yet run on
a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .workers import cores

THREADS = 8
"""Threads that decode, where there are as many cores; one core is left to the caller."""

Plane = Callable[[int], Array]


@dataclass(slots=True)
class _Buffer:
    """Memory of the host that planes are copied from.

    Attributes
    ----------
    memory
        uint8 [bytes]; pinned where the copy goes to a GPU.
    copied
        When the copy out of it has ended; None: nothing is copied.
    """

    memory: NDArray[np.uint8]
    copied: Any = None

    def take(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same values in this memory, or as they are when it is too small for them."""
        if values.nbytes > self.memory.nbytes:
            return values
        held = self.memory[: values.nbytes].view(values.dtype).reshape(values.shape)
        held[...] = values
        return held

    def wait(self) -> None:
        """Wait until the memory may be written again."""
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None


@contextmanager
def decoded_ahead(plane: Plane, order: Sequence[int], xp: Any) -> Iterator[Plane]:
    """Have planes decoded before they are asked for.

    Parameters
    ----------
    plane
        Decodes plane k; called from several threads.
    order
        The planes, each when it will be asked for.
    xp
        Where they are wanted: not NumPy.

    Yields
    ------
    A function like `plane` that gives arrays of `xp`. It must be asked in the `order`; its errors
    are those of `plane`. What lies on a GPU already is given as `plane` gives it.
    """
    first = plane(order[0]) if order else None
    if not isinstance(first, np.ndarray):
        yield plane
        return
    threads = min(THREADS, max(1, cores() - 1), len(order))
    buffers = [_Buffer(_host_memory(first.nbytes, xp)) for _ in range(threads + 1)]
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="hilum-decode") as pool:
            ahead = _Ahead(plane, first, order, xp, buffers, pool)
            try:
                yield ahead.next
            finally:
                ahead.cancel()
    finally:
        for buffer in buffers:  # whoever gets their memory next would change what is copied
            buffer.wait()


class _Ahead:
    """A ring of buffers: as many planes are decoded ahead as there are buffers but one."""

    def __init__(
        self,
        plane: Plane,
        first: NDArray[Any],
        order: Sequence[int],
        xp: Any,
        buffers: Sequence[_Buffer],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._plane, self._first, self._order, self._xp = plane, first, order, xp
        self._buffers, self._pool = buffers, pool
        self._running: dict[int, Future[NDArray[Any]]] = {}
        self._taken = 0
        for number in range(len(buffers) - 1):
            self._begin(number)

    def next(self, index: int) -> Array:
        """The next plane of the order, which must be `index`."""
        number = self._taken
        if index != self._order[number]:
            raise ValueError(f"plane {index} is asked for, {self._order[number]} is the next one")
        self._taken += 1
        self._begin(number + len(self._buffers) - 1)  # where the plane before was copied from
        values = self._running.pop(number).result()
        return self._copied(values, self._buffers[number % len(self._buffers)])

    def cancel(self) -> None:
        """Begin nothing more."""
        for running in self._running.values():
            running.cancel()

    def _begin(self, number: int) -> None:
        if number >= len(self._order):
            return
        buffer, index = self._buffers[number % len(self._buffers)], self._order[number]
        buffer.wait()
        self._running[number] = self._pool.submit(
            lambda: buffer.take(self._plane(index) if number else self._first)
        )

    def _copied(self, values: NDArray[Any], buffer: _Buffer) -> Array:
        if not array_api_compat.is_cupy_namespace(self._xp):
            return self._xp.asarray(values, copy=True)
        cupy = importlib.import_module("cupy")
        stream = cupy.cuda.get_current_stream()
        there = cupy.empty(values.shape, values.dtype)
        there.set(values, stream)
        buffer.copied = stream.record()
        return there


def _host_memory(size: int, xp: Any) -> NDArray[np.uint8]:
    """Memory of the host, pinned for CuPy."""
    if array_api_compat.is_cupy_namespace(xp):
        return importlib.import_module("cupyx").empty_pinned((size,), np.uint8)
    return np.empty(size, np.uint8)
