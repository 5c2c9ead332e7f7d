"""How the desk is served: a connection that brings no whole request in time is ended.

There are so many connections at most; without this, idle ones would keep others out for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512


class Impatient(H11Protocol):
    """Ends a connection on which nothing is being answered, and no request comes, for `idle_s`."""

    idle_s = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request, unless it is whole."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self._timer is None and self._idle:
            self._timer = self.loop.call_later(self.idle_s, self._end)
        elif self._timer is not None and not self._idle:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        if self._idle and not self.transport.is_closing():
            self.transport.close()


def configured(app: Any, idle_s: float, **more: Any) -> uvicorn.Config:
    """Settings of a server for the desk's application."""
    protocol = type("Protocol", (Impatient,), {"idle_s": idle_s})
    return uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", access_log=False, server_header=False,
        limit_concurrency=CONNECTIONS, **more,
    )  # fmt: skip
