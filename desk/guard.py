"""What every request passes: the token, and headers that keep the page to itself."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content policy: scripts and styles of our own files alone. The viewer's font and light are
``data:`` pictures, and pictures of results are fetched with the token and shown as ``blob:``."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Asks for the token at everything below ``/api``; what is refused is not read.

    The token comes as ``Authorization: Bearer``: from the page, or from a proxy that sets it.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/api"):
                    headers["cache-control"] = "no-store"
                else:
                    headers["cache-control"] = "no-cache"
            await send(message)

        if scope["path"].startswith("/api") and not self._knows(Headers(scope=scope)):
            told = "open the link that `hilum desk` printed: it holds the token"
            ended = {"connection": "close"}  # nothing of a body is waited for
            answer: Any = JSONResponse({"error": told, "code": "token"}, 401, ended)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and secrets.compare_digest(given.encode(), self._token)
