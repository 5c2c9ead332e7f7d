"""What changes, for pages that watch: server-sent events that resume where a page left off."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

_KEPT = 2000
"""Events that a page may have missed; one that missed more reads the whole list again."""

_BEAT_S = 15.0
"""A comment goes out so often, so that both ends see whether the other is still there."""


@dataclass(slots=True)
class Events:
    """The events of one desk. `publish` from any thread, `follow` in an event loop."""

    _boot: str = field(default_factory=lambda: secrets.token_hex(4))
    _kept: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)
    _closed: bool = False

    def publish(self, kind: str, data: Any) -> None:
        """Send an event to all pages."""
        with self._lock:
            self._number += 1
            text = f"id: {self._boot}.{self._number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            self._kept.append((self._number, text))
            self._wake()

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            self._closed = True
            self._wake()

    async def follow(self, last: str) -> AsyncIterator[str]:
        """The events after the one called `last`, for ever.

        The first is ``reset`` where these are not known: the page then reads the whole list.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            seen = self._place(last)
            self._waiting.add((loop, news))
        try:
            if seen is None:
                seen = self._number
                yield f"id: {self._boot}.{seen}\nevent: reset\ndata: null\n\n"
            while not self._closed:
                news.clear()
                with self._lock:
                    found = [(n, text) for n, text in self._kept if n > seen]
                for number, text in found:
                    seen = number
                    yield text
                try:
                    async with asyncio.timeout(_BEAT_S):
                        await news.wait()
                except TimeoutError:
                    yield ": \n\n"
        finally:
            with self._lock:
                self._waiting.discard((loop, news))

    def _place(self, last: str) -> int | None:
        boot, _, number = last.partition(".")
        if boot != self._boot or not number.isdecimal() or int(number) > self._number:
            return None
        oldest = self._kept[0][0] if self._kept else self._number + 1
        return int(number) if int(number) >= oldest - 1 else None

    def _wake(self) -> None:
        for loop, news in self._waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)
