"""HAProxy in front of several Tritons: its configuration, its process, and draining a server.

gRPC is HTTP/2, so HAProxy speaks it on both sides and gives each request, not each connection, to
a server. Tensors must travel in the requests: shared memory would be that of one server.
"""

from __future__ import annotations

import csv
import io
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..catalog.errors import InputError, ServerError
from ..server.launcher import free_ports

_BACKEND = "tritons"

_TEMPLATE = """\
global
    maxconn 4096
    stats socket {socket} mode 600 level admin
    # Tensors are megabytes; with the 64 KiB of HTTP/2 each would wait for many acknowledgements.
    tune.h2.initial-window-size 1048576

defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 1s
    # What no server has begun to work on goes to another one.
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response

frontend grpc
    bind {bind} proto h2
    default_backend {backend}

backend {backend}
    balance leastconn
    # Ready, not merely alive: a Triton that is told to stop says so at once.
    option httpchk
    http-check connect proto h1
    http-check send meth GET uri /v2/health/ready ver HTTP/1.1 hdr Host triton
    http-check expect status 200
    default-server proto h2 check inter 250ms fall 2 rise 2
{servers}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A Triton behind the balancer.

    Attributes
    ----------
    grpc, http
        ``host:port``; HTTP is for the health check alone.
    """

    name: str
    grpc: str
    http: str


def configuration(servers: Sequence[Server], bind: str, admin: Path) -> str:
    """The text of a ``haproxy.cfg``.

    Parameters
    ----------
    bind
        ``host:port`` for clients.
    admin
        Socket on which HAProxy takes orders.
    """
    lines = [f"    server {s.name} {s.grpc} port {s.http.rpartition(':')[2]}" for s in servers]
    return _TEMPLATE.format(socket=admin, bind=bind, backend=_BACKEND, servers="\n".join(lines))


def installed() -> str | None:
    """Path of the program, None without it."""
    return shutil.which("haproxy")


class HAProxy:
    """A balancer that lives as long as this object is entered.

    Parameters
    ----------
    timeout
        Seconds until all servers must have passed their first health check.

    Examples
    --------
    >>> with HAProxy([Server("a", "127.0.0.1:8001", "127.0.0.1:8000")]) as balancer:
    ...     print(balancer.url)
    127.0.0.1:43101
    """

    def __init__(self, servers: Sequence[Server], *, timeout: float = 20.0) -> None:
        self.servers = tuple(servers)
        self._timeout = timeout
        self.url = f"127.0.0.1:{free_ports(1)[0]}"
        self._folder = tempfile.TemporaryDirectory(prefix="hilum-haproxy-")
        self._admin = Path(self._folder.name) / "admin"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = installed()
        if program is None:
            raise InputError("haproxy is not installed; install it (apt-get install haproxy)")
        folder = Path(self._folder.name)
        file, log = folder / "haproxy.cfg", folder / "log"
        file.write_text(configuration(self.servers, self.url, self._admin))
        with log.open("wb") as target:
            self._process = subprocess.Popen(
                [program, "-db", "-f", str(file)], stdout=target, stderr=target
            )
        try:
            self._wait_until_up(log)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def states(self) -> dict[str, str]:
        """What HAProxy thinks of each server, by name: ``UP``, ``DOWN`` or ``DRAIN``."""
        return {name: row["status"] for name, row in self._rows().items()}

    def drain(self, name: str, timeout: float = 30.0) -> None:
        """Give a server no new requests, and wait until those it has are answered.

        A Triton unloads its models as the first thing when it is told to stop, so this comes
        before that.

        Raises
        ------
        ServerError
            When it still has requests after `timeout` seconds.
        """
        self._tell(f"set server {_BACKEND}/{name} state drain")
        end = time.monotonic() + timeout
        while int(self._rows()[name]["scur"]) > 0:
            if time.monotonic() > end:
                raise ServerError(f"{name} still has requests after {timeout:g} s of draining")
            time.sleep(0.05)

    def _wait_until_up(self, log: Path) -> None:
        process, end = self._process, time.monotonic() + self._timeout
        while True:
            if process is None or process.poll() is not None or time.monotonic() > end:
                said = log.read_text(errors="replace").strip()
                raise ServerError(f"haproxy and its servers are not ready: {said or 'no answer'}")
            try:
                # Before its first check a server counts as up.
                if all(
                    row["status"] == "UP" and row["check_status"] == "L7OK"
                    for row in self._rows().values()
                ):
                    return
            except OSError:
                pass  # its socket is not there yet
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        self._folder.cleanup()

    def _rows(self) -> dict[str, dict[str, str]]:
        told = csv.DictReader(io.StringIO(self._tell("show stat").lstrip("# ")))
        names = {s.name for s in self.servers}
        return {
            row["svname"]: row
            for row in told
            if row["pxname"] == _BACKEND and row["svname"] in names
        }

    def _tell(self, order: str) -> str:
        """Send an order; HAProxy answers and closes."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self._admin))
            line.sendall(f"{order}\n".encode())
            parts = []
            while part := line.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()
