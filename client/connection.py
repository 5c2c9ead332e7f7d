"""What the blocking client and that for asyncio have in common: one connection to one server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from hilum.catalog.errors import ConnectionFailed

from .calls import Progress
from .options import ConnectionOptions, TransportName
from .session import Session
from .steps import Rpc

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class Connection:
    """Options, session, and what a client knows without asking the server."""

    def __init__(
        self,
        url: str | ConnectionOptions = "localhost:8001",
        *,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        given = url if isinstance(url, ConnectionOptions) else ConnectionOptions(url)
        self.options = dataclasses.replace(given, **options)
        self.session = Session(self.options, metrics)
        self.metrics = metrics
        self.on_progress: Callable[[Progress], None] = lambda _: None
        """Called with the progress of studies, from several threads."""

    @property
    def transport(self) -> TransportName | None:
        """How tensors travel, as negotiated; None before the first request."""
        return self.session.transport.name

    @property
    def transport_reason(self) -> str:
        """Why tensors travel the way they do, in words for a report."""
        return self.session.transport.reason

    def __repr__(self) -> str:
        state = "closed" if self.session.closed else self.transport or "not connected"
        return f"<{type(self).__name__} {self.options.url} ({state})>"


def connect(kind: type[T], options: ConnectionOptions) -> T:
    """One of tritonclient's clients with these options.

    Raises
    ------
    ConnectionFailed
        When a certificate or key cannot be read.
    """
    make: Any = kind
    return make(
        options.url,
        creds=_credentials(options) if options.secure else None,
        channel_args=options.channel_arguments(),
    )


def arguments(rpc: Rpc, options: ConnectionOptions) -> dict[str, Any]:
    """Keyword arguments of the method of tritonclient that makes a call."""
    return {
        **rpc.arguments,
        "headers": dict(options.metadata),
        "client_timeout": rpc.timeout_s,
    }


def _credentials(options: ConnectionOptions) -> grpc.ChannelCredentials:
    def read(file: Path | str | None) -> bytes | None:
        return None if file is None else Path(file).read_bytes()

    try:
        return grpc.ssl_channel_credentials(
            root_certificates=read(options.tls_root_certificates),
            private_key=read(options.tls_client_key),
            certificate_chain=read(options.tls_client_certificate),
        )
    except OSError as error:
        raise ConnectionFailed(f"cannot read a certificate or key: {error}") from error
