"""Addresses and ports: which are free, and how a client on this machine reaches them."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from pathlib import Path

from hilum.catalog.errors import ServerError

LOWEST = 10_000
"""Services that everybody knows have lower ports."""

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The first and last port that the system gives to outgoing connections."""

TRIES = 100


def free_ports(count: int, host: str = "127.0.0.1") -> tuple[int, ...]:
    """`count` different ports of `host` that nobody listens on right now.

    They lie below those of outgoing connections where there is room: else a connection of any
    program could take one before a server does.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(_family(host))) for _ in range(count)]
        for one in sockets:
            _bind(one, host)
        return tuple(one.getsockname()[1] for one in sockets)


def _bind(one: socket.socket, host: str) -> None:
    below = _first_outgoing() - LOWEST
    for _ in range(TRIES if below > TRIES else 0):
        with contextlib.suppress(OSError):
            return one.bind((host, LOWEST + secrets.randbelow(below)))
    return one.bind((host, 0))


def _first_outgoing() -> int:
    try:
        return int(OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def check_free(host: str, port: int) -> None:
    """Refuse a port that cannot be bound.

    Raises
    ------
    ServerError
        When it is in use or not for this user, or `host` is no address of this machine.
    """
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no owner
        try:
            probe.bind((host, port))
            probe.listen()  # a bound port that nobody listens on yet is taken all the same
        except OSError as failure:
            if failure.errno == errno.EADDRINUSE:
                raise ServerError(
                    f"port {port} of {host} is in use by another process; stop it or choose "
                    "another port"
                ) from failure
            if failure.errno == errno.EACCES:
                raise ServerError(
                    f"port {port} of {host} is not for this user; choose one above 1023"
                ) from failure
            raise ServerError(
                f"{host!r} is not an address of this machine: {failure.strerror}; "
                "see `ip address` for those that it has"
            ) from failure


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as failure:
        raise ServerError(f"{host!r} is not an address of this machine: {failure}") from failure


def reachable(host: str) -> str:
    """The address at which a client on this machine reaches a server bound to `host`."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
