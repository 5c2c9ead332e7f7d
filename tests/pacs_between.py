"""A proxy before a PACS, that fails where a test wants it to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from pacs import PASSWORD, USER, Orthanc
from requests.auth import _basic_auth_str

Fault = Callable[[str, str], int]

Instead = Callable[[], tuple[int, str, bytes] | None]

KEPT = ("accept", "authorization", "content-type")

RETRY = "[limits]\nfirst_retry_s = 0.3\nlongest_retry_s = 0.5"
"""Limits of a gateway that does not wait long."""


@contextmanager
def between(
    pacs: Orthanc,
    fault: Fault,
    pem: Path | None = None,
    token: str = "",
    instead: Instead = lambda: None,
    without: str = "",
) -> Iterator[int]:
    """A proxy that answers with a status of its own where `fault` gives one; its port.

    With the certificate and key of `pem` it is encrypted; with a token only who has it comes in;
    what `instead` gives is said of what was stored; no row of a query has the attribute `without`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.pass_on(None)

        def do_POST(self) -> None:
            self.pass_on(self.body())

        def body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            found = b""
            while length := int(self.rfile.readline(), 16):  # sent in chunks
                found += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def pass_on(self, body: bytes | None) -> None:
            status = fault(self.command, self.path)
            if token and self.headers["Authorization"] != f"Bearer {token}":
                status = 401
            if status:
                self.answer(status, b"", {})
                return
            kept = {k: v for k, v in self.headers.items() if k.lower() in KEPT}
            kept["Accept-Encoding"] = "identity"
            if token:
                kept["Authorization"] = _basic_auth_str(USER, PASSWORD)
            found = requests.request(
                self.command, pacs.rest + self.path, data=body, headers=kept, timeout=30
            )
            if self.command == "POST" and self.path.endswith("/studies") and (said := instead()):
                status, kind, content = said
                self.answer(status, content, {"Content-Type": kind})
                return
            if (
                without
                and self.command == "GET"
                and "json" in found.headers.get("Content-Type", "")
            ):
                rows = found.json()
                for row in rows:
                    row.pop(without, None)
                said = json.dumps(rows).encode(), dict(found.headers)
            else:
                said = found.content, dict(found.headers)
            self.answer(found.status_code, *said)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() in ("content-type", "mime-version"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:  # type: ignore[override]
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if pem is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
