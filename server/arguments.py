"""The command line of the server: nothing is open that Hilum does not use."""

from __future__ import annotations

import grp
import ipaddress
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hilum.catalog.errors import InputError

from .binary import ServerBinary
from .environment import LARGE_PAGES, MALLOC
from .machine import gpus, shared_memory_free

LogLevel = Literal["warning", "info", "verbose"]

MiB = 1024 * 1024

GRPC_SOCKET, HTTP_SOCKET = "g", "h"
"""Names of a server's Unix sockets; Triton adds ``:PORT`` to that of gRPC."""

_LARGEST_REGION = 32 * MiB
"""First size of a stub's shared-memory region where there is room: taken at once, and it grows."""

_CLOSED = "logging,trace"
_CLOSED_TO_NETWORK = "logging,trace,shared-memory"
"""Protocols that are closed to everybody. Nobody can share memory with a server from afar, and some
of the published attacks began there. Clients list the models, so `model-repository` stays open: to
load or unload one is off by the mode of model control."""

_NO_HEADER = "HILUM:CLOSED=closed"
"""Name and value of the header that would open them. It is no secret, as everybody may read the
command line of a process: no header can have such a name, as HTTP/1 ends a name at the colon, and
HTTP/2 allows neither colons nor capitals in one."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one server; `http` None: no HTTP."""

    grpc: int = 8001
    metrics: int = 8002
    http: int | None = None

    def all(self) -> tuple[int, ...]:
        """Every port that the server binds."""
        return (self.grpc, self.metrics) + (() if self.http is None else (self.http,))

    def check(self) -> None:
        """Refuse what no server can bind.

        Raises
        ------
        InputError
            For a port outside of 1 to 65535, or one that is given twice.
        """
        for port in self.all():
            if not 0 < port < 65536:
                raise InputError(f"port {port} does not exist; choose one from 1 to 65535")
            if self.all().count(port) > 1:
                raise InputError(
                    f"port {port} is given twice; gRPC, metrics and HTTP need one of their own each"
                )


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line of a server depends on.

    Attributes
    ----------
    tag
        The server's id, by which it is recognised on the wire and in ``/dev/shm``.
    backends
        Own backend folder, None for the server's.
    stubs
        Number of processes that the Python backend will start.
    auto_complete
        Triton is to find out inputs and outputs that a ``config.pbtxt`` does not name.
    exit_timeout
        Seconds that requests in flight get when the server is stopped.
    connection_age
        Seconds after which a client has to connect again, so that it finds servers that were added
        meanwhile; requests under way get `exit_timeout`. None: as long as it likes.
    http_host
        Address of HTTP where it differs from `host`: 127.0.0.1 for a container's own health check.
    sockets
        Folder for Unix sockets, on which gRPC and HTTP listen instead of ports: for a server behind
        a `Door`. None: ports.
    group
        Members of this group are let in as well. Triton opens regions of memory by their names, for
        whoever asks, so that shared memory is closed then.
    """

    repository: Path
    tag: str = "hilum"
    host: str = "127.0.0.1"
    ports: Ports = Ports()
    backends: Path | None = None
    stubs: int = 1
    auto_complete: bool = False
    exit_timeout: int = 10
    connection_age: float | None = None
    http_host: str | None = None
    sockets: Path | None = None
    group: int | None = None
    log_level: LogLevel = "info"

    @property
    def private(self) -> bool:
        """Whether only this machine can reach gRPC and HTTP."""
        return is_loopback(self.host) and is_loopback(self.http_host or self.host)

    def doors(self) -> tuple[tuple[str, int, str], ...]:
        """Host, port and Unix socket of each `Door` that the server stands behind."""
        if self.sockets is None:
            return ()
        ports = self.ports
        doors = [(self.host, ports.grpc, f"{self.sockets / GRPC_SOCKET}:{ports.grpc}")]
        if ports.http is not None:
            host = self.http_host or self.host
            doors.append((host, ports.http, str(self.sockets / HTTP_SOCKET)))
        return tuple(doors)


def arguments(found: ServerBinary, settings: Settings) -> tuple[str, ...]:
    """The options for `found`; those that its version does not know are left out."""
    options = (
        *_fixed(settings),
        *_network(settings),
        *_python(found, settings),
        *_logging(settings.log_level),
    )
    return tuple(option for option in options if found.has_flag(option.partition("=")[0]))


def print_args(found: ServerBinary, settings: Settings) -> str:
    """The command for a shell: environment, program and options, one a line."""
    words = (
        "env",
        *(f"{name}={value}" for name, value in MALLOC.items()),
        f"GLIBC_TUNABLES={LARGE_PAGES}=1",
        str(found.binary),
        *arguments(found, settings),
    )
    return " \\\n  ".join(shlex.quote(word) for word in words)


def exit_timeout(grace: float) -> int:
    """Seconds that Triton gives requests in flight, which takes whole ones."""
    return max(1, round(grace))


def bare(host: str) -> str:
    """An address without the brackets that one of IPv6 has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare(host)).is_loopback
    except ValueError:
        return False


def admitted(group: str, *hosts: str | None) -> int:
    """Id of a group that a server on these `hosts` is to let in.

    Raises
    ------
    InputError
        When there is no such group, or the server would let in the network anyway.
    """
    if not all(host is None or is_loopback(host) for host in hosts):
        raise InputError(
            f"group {group!r}: only a server on the loopback knows who comes; leave the group out, "
            "or bind 127.0.0.1"
        )
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"this machine has no group {group!r}; see `getent group`") from None


def region_size(stubs: int, free: int) -> int:
    """Bytes of shared memory for each of `stubs` at the start: a quarter of what is `free` at most.

    The rest is for growth and for the clients' own regions.
    """
    share = free // 4 // max(1, stubs)
    return max(MiB, min(_LARGEST_REGION, share // MiB * MiB))


def _fixed(settings: Settings) -> Iterable[str]:
    yield f"--id={settings.tag}"
    yield f"--model-repository={settings.repository}"
    yield "--model-control-mode=none"
    if not settings.auto_complete:
        yield "--disable-auto-complete-config"  # else each Python model is started twice
    yield "--strict-readiness=true"
    yield "--exit-on-error=true"
    yield f"--exit-timeout-secs={settings.exit_timeout}"
    yield "--allow-sagemaker=false"
    yield "--allow-vertex-ai=false"
    if gpus() == 0:
        yield "--allow-gpu-metrics=false"
        yield "--pinned-memory-pool-byte-size=0"


def _network(settings: Settings) -> Iterable[str]:
    ports, host, sockets = settings.ports, settings.host, settings.sockets
    address = f"[{host}]" if ":" in host else host
    yield f"--grpc-address={address if sockets is None else f'unix:{sockets / GRPC_SOCKET}'}"
    yield f"--grpc-port={ports.grpc}"
    # Whoever may send images has no business with the server's log and trace files.
    shares = settings.private and settings.group is None
    closed = _CLOSED if shares else _CLOSED_TO_NETWORK
    yield f"--grpc-restricted-protocol={closed}:{_NO_HEADER}"
    if settings.connection_age is not None:  # in milliseconds
        yield f"--grpc-max-connection-age={round(1000 * settings.connection_age)}"
        yield f"--grpc-max-connection-age-grace={1000 * settings.exit_timeout}"
    yield f"--allow-http={'false' if ports.http is None else 'true'}"
    if ports.http is not None:
        http = _http_address(settings.http_host or host)
        yield f"--http-address={http if sockets is None else f'unix:{sockets / HTTP_SOCKET}'}"
        yield f"--http-port={ports.http}"
        yield f"--http-restricted-api={closed}:{_NO_HEADER}"
    yield "--allow-metrics=true"
    yield f"--metrics-address={_http_address(host)}"
    yield f"--metrics-port={ports.metrics}"
    yield "--metrics-config=histogram_latencies=true"
    yield "--metrics-config=summary_latencies=true"
    yield "--metrics-config=summary_quantiles=0.5:0.02,0.95:0.01,0.99:0.001"
    if shares:
        yield "--allow-client-shm=true"


def _http_address(host: str) -> str:
    """An address as Triton's HTTP and metrics take it, which is not as its gRPC does."""
    return f"ipv6:{host}" if ":" in host else host


def _python(found: ServerBinary, settings: Settings) -> Iterable[str]:
    if settings.backends is not None:
        yield f"--backend-directory={settings.backends}"
    size = region_size(settings.stubs, shared_memory_free())
    for backend in ("python", *found.python_backends):
        yield f"--backend-config={backend},shm-region-prefix-name={settings.tag}-"
        yield f"--backend-config={backend},shm-default-byte-size={size}"


def _logging(level: LogLevel) -> Iterable[str]:
    yield f"--log-info={'false' if level == 'warning' else 'true'}"
    yield f"--log-verbose={1 if level == 'verbose' else 0}"
    yield "--log-format=ISO8601"
