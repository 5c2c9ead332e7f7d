"""How to reach a Triton server: address, patience, transport, encryption."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from hilum.catalog.errors import ConnectionFailed

TransportName = Literal["grpc", "shm", "cuda"]
"""Inside gRPC messages, through system shared memory, or through that of a GPU."""

TransportChoice = Literal["auto", "grpc", "shm", "cuda"]
"""``auto``: shared memory where the server takes it, for arrays on a GPU the GPU's; else gRPC."""

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables of the environment that gRPC takes a proxy from."""

_NO_PROXIES = ("no_grpc_proxy", "no_proxy")
"""Variables that name the hosts which gRPC reaches directly."""

_TARGET_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Everything a client has to know about its server.

    Attributes
    ----------
    url
        ``host:port`` of Triton's gRPC endpoint, or a gRPC target such as ``unix:/run/triton.sock``.
    deadline_s
        Seconds the server has for the answer to one request. A request that is sent again, because
        the server went away, gets them again: what that may cost is bounded by `retry_window_s`.
    connect_window_s
        Seconds a server that has never answered is waited for.
    retry_window_s
        Seconds a server that has answered before is waited for, counted from the moment it was
        first seen unavailable and shared by all requests of a client. A request after that makes
        one attempt only.
    backoff_s, max_backoff_s
        First and longest pause between two attempts; it doubles from one to the other, and half of
        it is random, so that many clients do not come back at once.
    transport
        ``"shm"`` makes it an error when the server refuses shared memory; ``"cuda"``, when it
        refuses that of the GPU for arrays on one (arrays on the host go as with ``"auto"``).
        Tensors whose shape is not known beforehand, and requests beyond `shared_memory_bytes`, go
        over gRPC all the same.
    shared_memory_bytes
        Most that a client's regions occupy together, on the host and on each GPU.
    tls
        Encrypt; implied by any of the options that follow.
    tls_root_certificates
        PEM file of the authorities to trust, None for gRPC's own list.
    tls_client_key, tls_client_certificate
        PEM files with which the client proves who it is (mutual TLS).
    tls_server_name
        Name in the server's certificate when it is not the host in `url`.
    metadata
        Sent with every call, for instance ``{"authorization": "Bearer …"}``. Not shown in `repr`.
    max_message_bytes
        Longest gRPC message, -1 for no limit. (Triton itself ends at 2 GiB.)
    """

    url: str = "localhost:8001"
    deadline_s: float = 120.0
    connect_window_s: float = 5.0
    retry_window_s: float = 30.0
    backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    transport: TransportChoice = "auto"
    shared_memory_bytes: int = 1 << 30
    tls: bool = False
    tls_root_certificates: Path | str | None = None
    tls_client_key: Path | str | None = field(default=None, repr=False)
    tls_client_certificate: Path | str | None = None
    tls_server_name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_message_bytes: int = -1

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.transport not in get_args(TransportChoice):
            raise ConnectionFailed(
                f"there is no transport {self.transport!r}; choose auto, grpc, shm or cuda"
            )
        if self.deadline_s <= 0:
            raise ConnectionFailed(f"a deadline of {self.deadline_s} s leaves no time to answer")
        if (self.tls_client_key is None) != (self.tls_client_certificate is None):
            raise ConnectionFailed(
                "tls_client_key and tls_client_certificate belong together: give both"
            )
        lower = {name.lower(): value for name, value in self.metadata.items()}
        object.__setattr__(self, "metadata", MappingProxyType(lower))

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        given = (self.tls_root_certificates, self.tls_client_key, self.tls_server_name)
        return self.tls or any(value is not None for value in given)

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port, None for a gRPC target that is not just these."""
        if self.url.startswith(_TARGET_SCHEMES):
            return None
        host, _, port = self.url.rpartition(":")
        return host.strip("[]"), int(port)

    def is_on_this_host(self) -> bool:
        """Whether every address of the server is one of this host (looks the name up)."""
        if self.endpoint is None:
            return self.url.startswith("unix")
        try:
            found = socket.getaddrinfo(self.endpoint[0], None, type=socket.SOCK_DGRAM)
        except OSError:
            return False
        return all(_is_own_address(family, str(address[0])) for family, _, _, _, address in found)

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """Options of the gRPC channel, the same for the blocking and the asyncio client."""
        arguments: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # A server that comes back is found within a second, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # Longest time that a single connection attempt may take.
            ("grpc.min_reconnect_backoff_ms", 5000),
            # A new client must not inherit the back-off of one that failed.
            ("grpc.use_local_subchannel_pool", 1),
            # Finds out that a host vanished during a long request. Triton drops clients that ping
            # more often than every 300 s.
            ("grpc.keepalive_time_ms", 330_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        if self.url.startswith("dns:"):
            # A name of several servers: each request goes to the next one, and one that is to
            # stop is forgotten when its connection has come of age, not up to 30 s later.
            arguments.append(("grpc.lb_policy_name", "round_robin"))
            arguments.append(("grpc.dns_min_time_between_resolutions_ms", 2000))
        if self.tls_server_name is not None:
            arguments.append(("grpc.ssl_target_name_override", self.tls_server_name))
        if self._avoids_proxy():
            arguments.append(("grpc.enable_http_proxy", 0))
        return arguments

    def proxy_variable(self) -> str | None:
        """Name of the environment's variable whose proxy gRPC goes through, if it does."""
        if self.endpoint is None or self._avoids_proxy():
            return None
        if any(_matches(self.endpoint[0], os.environ.get(name, "")) for name in _NO_PROXIES):
            return None
        return next((name for name in _PROXIES if os.environ.get(name)), None)

    def _avoids_proxy(self) -> bool:
        """Whether a proxy in the environment, which gRPC would use, is not meant for this server.

        No proxy leads back to this machine, whatever name it has in the address. For others gRPC
        itself heeds ``no_proxy``.
        """
        if self.endpoint is None:
            return False
        if _is_loopback_name(self.endpoint[0]):
            return True
        # Looking a name up takes time, so only where it matters.
        return any(os.environ.get(name) for name in _PROXIES) and self.is_on_this_host()


def _check_url(url: str) -> None:
    if url.startswith(_TARGET_SCHEMES):
        return
    host, _, port = url.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConnectionFailed(
            f"{url!r} is not host:port; Triton's gRPC endpoint is meant, for instance "
            "localhost:8001, without http://"
        )


def _is_loopback_name(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_own_address(family: int, address: str) -> bool:
    if _is_loopback_name(address):
        return True
    # Only an address of this host can be bound.
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _matches(host: str, names: str) -> bool:
    """Whether a host is one of those that ``no_proxy`` names, by the ends of names as in gRPC."""
    return any(host.endswith(name.strip()) for name in names.split(",") if name.strip())
