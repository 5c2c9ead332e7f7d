"""The command line of the server: nothing is open that Hilum does not use."""

from __future__ import annotations

import ipaddress
import secrets
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .environment import LARGE_PAGES, MALLOC
from .find import ServerBinary
from .machine import gpus, shared_memory_free

LogLevel = Literal["warning", "info", "verbose"]

MiB = 1024 * 1024

_LARGEST_REGION = 32 * MiB
"""First size of a stub's shared-memory region where there is room: taken at once, and it grows."""

_CLOSED = "logging,trace"
_CLOSED_TO_NETWORK = "logging,trace,shared-memory"
"""Protocols behind a key that nobody has. Nobody can share memory with a server from afar, and some
of the published attacks began there. Clients list the models, so `model-repository` stays open: to
load or unload one is off by the mode of model control."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one server; `http` None: no HTTP."""

    grpc: int = 8001
    metrics: int = 8002
    http: int | None = None

    def all(self) -> tuple[int, ...]:
        """Every port that the server binds."""
        return (self.grpc, self.metrics) + (() if self.http is None else (self.http,))


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
    http_host
        Address of HTTP where it differs from `host`: 127.0.0.1 for a container's own health check.
    """

    repository: Path
    tag: str = "hilum"
    host: str = "127.0.0.1"
    ports: Ports = Ports()
    backends: Path | None = None
    stubs: int = 1
    auto_complete: bool = False
    exit_timeout: int = 10
    http_host: str | None = None
    log_level: LogLevel = "info"


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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    ports, host = settings.ports, settings.host
    yield f"--grpc-address={host}"
    yield f"--grpc-port={ports.grpc}"
    # Whoever may send images has no business with the server's log and trace files.
    closed = _CLOSED if is_loopback(host) else _CLOSED_TO_NETWORK
    yield f"--grpc-restricted-protocol={closed}:hilum-key={secrets.token_urlsafe(16)}"
    yield f"--allow-http={'false' if ports.http is None else 'true'}"
    if ports.http is not None:
        yield f"--http-address={settings.http_host or host}"
        yield f"--http-port={ports.http}"
        yield f"--http-restricted-api={closed}:hilum-key={secrets.token_urlsafe(16)}"
    yield "--allow-metrics=true"
    yield f"--metrics-address={host}"
    yield f"--metrics-port={ports.metrics}"
    yield "--metrics-config=histogram_latencies=true"
    yield "--metrics-config=summary_latencies=true"
    yield "--metrics-config=summary_quantiles=0.5:0.02,0.95:0.01,0.99:0.001"
    if is_loopback(host):
        yield "--allow-client-shm=true"


def _python(found: ServerBinary, settings: Settings) -> Iterable[str]:
    if settings.backends is not None:
        yield f"--backend-directory={settings.backends}"
    size = region_size(settings.stubs, shared_memory_free())
    backends = ("python", "onnxruntime") if found.needs_backends else ("python",)
    for backend in backends:
        yield f"--backend-config={backend},shm-region-prefix-name={settings.tag}-"
        yield f"--backend-config={backend},shm-default-byte-size={size}"


def _logging(level: LogLevel) -> Iterable[str]:
    yield f"--log-info={'false' if level == 'warning' else 'true'}"
    yield f"--log-verbose={1 if level == 'verbose' else 0}"
    yield "--log-format=ISO8601"
