"""Work over many items with a bounded number in progress; results in the order of the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_order(
    function: Callable[[S], T],
    items: Iterable[S],
    in_flight: int,
    on_end: Callable[[], object] = lambda: None,
) -> Generator[T, None, None]:
    """Call `function` on each item in threads, `in_flight` at once.

    Items are taken as they are needed: as many finished results wait, at most, for a slower one
    before them. The first exception ends the iteration; so does closing it. Either waits for the
    items in progress: `on_end` is called before that, so that they may end.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="hilum-work")
    try:
        for item in items:
            waiting.append(pool.submit(copy_context().run, function, item))
            if len(waiting) >= 2 * in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        on_end()
        pool.shutdown(wait=True, cancel_futures=True)


async def in_order_async(
    function: Callable[[S], Awaitable[T]], items: Iterable[S], in_flight: int
) -> AsyncIterator[T]:
    """`in_order` for an event loop."""
    gate = asyncio.Semaphore(in_flight)

    async def gated(item: S) -> T:
        async with gate:
            return await function(item)

    waiting: deque[asyncio.Task[T]] = deque()
    try:
        for item in items:
            waiting.append(asyncio.create_task(gated(item)))
            if len(waiting) >= 2 * in_flight:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
