"""Start a Triton server on this machine, wait until it is ready, stop it without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hilum.catalog.errors import ServerError

from . import cleanup as leftovers
from . import logs
from .arguments import LogLevel, Ports, Settings, admitted, arguments, bare, exit_timeout
from .backend_folder import assemble_backends, check_backends, resources_for
from .binary import ServerBinary, find_server
from .environment import server_environment
from .folders import for_sockets, log_folder, runtime_root
from .model_config import OPTIONAL_FIELDS
from .ports import check_free, free_ports, reachable
from .readiness import answers_as
from .records import write_record
from .runtime_repository import Resources, Staged, stage
from .supervisor import Order, reason

_ATTEMPTS = 4
"""Starts with new free ports when another process takes one before the server does."""

_MARGIN = 10.0
"""Seconds that the supervisor may take for its own cleaning."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start has come; models by name."""

    loaded: tuple[str, ...]
    loading: tuple[str, ...]
    total: int
    seconds: float


class _PortTaken(Exception):
    """Another process bound a port after it was found free."""


class TritonServer:
    """A Triton server that lives as long as this object is entered, or until `stop`.

    Whatever happens to this process, the server goes with it.

    Parameters
    ----------
    repository
        A model repository as `hilum export` writes it.
    models
        Names of the Triton models to serve, with what they call; None: all that are complete.
    host
        Address to bind; the loopback by default, where a `Door` lets in this user's processes
        alone. Triton itself asks nobody who they are.
    group
        Name of a group whose members the `Door` lets in as well, without shared memory.
    ports
        None: free ones.
    instances, threads
        Copies of each network, and CPU threads of each copy; None: what fits the machine.
    queue_delay_ms
        How long a network that batches waits for more requests; None: as exported.
    http
        Serve HTTP besides gRPC, when `ports` are free ones.
    http_host
        Address of HTTP where it differs from `host`.
    log_dir
        None: the user's state folder, which keeps the last ten logs.
    timeout
        Seconds until the server must be ready.
    grace
        Seconds that requests in flight get when the server is stopped.
    progress
        Called while the models load, whenever something changed.
    drain
        Called before the server is asked to stop, while it still answers.
    connection_age
        See `Settings`.

    Examples
    --------
    >>> with TritonServer("model_repository", models=["cxr_severity_manet"]) as server:
    ...     print(server.grpc_url)
    127.0.0.1:41237
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        models: Iterable[str] | None = None,
        host: str = "127.0.0.1",
        group: str | None = None,
        ports: Ports | None = None,
        instances: int | None = None,
        threads: int | None = None,
        queue_delay_ms: float | None = None,
        http: bool = False,
        http_host: str | None = None,
        log_dir: Path | None = None,
        log_level: LogLevel = "info",
        timeout: float = 600.0,
        grace: float = 10.0,
        progress: Callable[[Progress], None] | None = None,
        drain: Callable[[], None] | None = None,
        connection_age: float | None = None,
    ) -> None:
        self.repository = Path(repository)
        self.models = None if models is None else tuple(models)
        self.host, self._http_host = bare(host), http_host and bare(http_host)
        self._group = None if group is None else admitted(group, self.host, self._http_host)
        self.timeout, self.grace, self.drain = timeout, grace, drain
        self._connection_age = connection_age
        self.log_level: LogLevel = log_level
        self.log: Path | None = None
        self.staged: Staged | None = None
        self.resources: Resources | None = None
        self.binary: ServerBinary | None = None
        self.pid: int | None = None
        self._instances, self._threads, self._delay = instances, threads, queue_delay_ms
        self._wanted_ports, self._http = ports, http
        self._log_dir, self._progress = log_dir, progress
        self._ports = ports or Ports()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._tag = ""
        self._owner = 0

    @property
    def grpc_url(self) -> str:
        """``host:port`` for clients on this machine."""
        return f"{reachable(self.host)}:{self._ports.grpc}"

    @property
    def http_url(self) -> str | None:
        """``host:port`` of the HTTP service, None when it is off."""
        if self._ports.http is None:
            return None
        return f"{reachable(self._http_host or self.host)}:{self._ports.http}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{reachable(self.host)}:{self._ports.metrics}/metrics"

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._supervisor is not None and self.poll() is None

    def poll(self) -> int | None:
        """The exit code of a server that ended by itself (128 + signal when it was killed).

        None while it runs, before `start` and after `stop`.
        """
        return None if self._supervisor is None else self._supervisor.poll()

    def why(self) -> str:
        """Why a server ended by itself, in words that complete "the server …"."""
        said = ""
        if self._supervisor is not None and self._supervisor.stdout is not None:
            said = self._supervisor.stdout.read().decode(errors="replace").strip()
        return reason(self.poll() or 0, said)

    def check_ports(self) -> None:
        """Refuse ports that do not exist or are in use, before anything is started.

        Raises
        ------
        InputError, ServerError
        """
        if self._wanted_ports is not None:
            self._choose_ports()

    def keep_ports(self) -> None:
        """Have the next start take the ports of this one: clients know them."""
        self._wanted_ports = self._ports

    def start(self, given_up: threading.Event | None = None) -> Self:
        """Start the server and wait until every model is ready, or until it is `given_up`.

        Raises
        ------
        InputError
            For ports that do not exist.
        RepositoryError
            When the repository lacks what is to be served.
        ServerError
            When there is no server, it does not start, or it is not ready in time; with the lines
            of its log that say why.
        """
        if self.alive:
            return self
        found = self.binary = find_server()
        self.resources = resources_for(found, self._instances, self._threads, self._delay)
        leftovers.clean_dead(runtime_root())
        for attempt in range(_ATTEMPTS):
            self._ports = self._choose_ports()
            try:
                self._launch(found, self.resources)
                self._wait_until_ready(given_up)
            except _PortTaken:
                self._abandon()
                if self._wanted_ports is not None or attempt == _ATTEMPTS - 1:
                    raise self._failure("cannot bind its ports") from None
            except BaseException:
                self._abandon()
                raise
            else:
                return self
        raise AssertionError

    def stop(self, grace: float | None = None) -> None:
        """Stop the server and wait until it, its processes and its shared memory are gone.

        Parameters
        ----------
        grace
            Seconds for requests in flight; 0 kills at once, which loses nothing when there are
            none. None: as given to the constructor.
        """
        supervisor = self._supervisor
        if supervisor is None or self._owner != os.getpid():
            return  # a forked child does not own the server
        if supervisor.poll() is None and self.drain is not None:
            self.drain()
        grace = self.grace if grace is None else grace
        assert supervisor.stdin is not None  # noqa: S101 - opened in _launch
        with contextlib.suppress(OSError):  # the supervisor may be gone already
            supervisor.stdin.write(f"{grace}\n".encode())
            supervisor.stdin.flush()
        with contextlib.suppress(OSError):
            supervisor.stdin.close()
        try:
            supervisor.wait(grace + _MARGIN)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
        if supervisor.stdout is not None:
            supervisor.stdout.close()
        if self.pid is not None and supervisor.returncode < 0:
            leftovers.kill_session(self.pid)
        leftovers.remove(self._tag, runtime_root())
        self._supervisor = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _choose_ports(self) -> Ports:
        if self._wanted_ports is None:
            grpc, metrics, http = free_ports(3, self.host)
            return Ports(grpc, metrics, http if self._http else None)
        self._wanted_ports.check()
        for port in self._wanted_ports.all():
            http = port == self._wanted_ports.http
            check_free((http and self._http_host) or self.host, port)
        return self._wanted_ports

    def _launch(self, found: ServerBinary, resources: Resources) -> None:
        """Start the supervisor, prepare the runtime folder under its tag, send its order."""
        environment = server_environment(found.binary)
        with logs.new_log(self._log_dir or log_folder()) as log:
            self.log = Path(log.name)
            try:
                supervisor = subprocess.Popen(
                    [sys.executable, "-P", "-m", "hilum.server.supervisor"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as failure:
                raise ServerError(f"{sys.executable} cannot be run: {failure}") from failure
        self._supervisor, self._owner, self.pid = supervisor, os.getpid(), None
        self._tag = leftovers.tag_of(supervisor.pid)
        root = runtime_root()
        settings, argv = self._prepare(found, resources, root / self._tag)
        environment["TMPDIR"] = str(temporary := root / self._tag / "tmp")
        temporary.mkdir(mode=0o700)
        host = reachable(self.host).strip("[]")
        order = Order(
            argv, environment, self._tag, str(root), self.grace,
            (host, self._ports.grpc), settings.doors(), self._group,
        )  # fmt: skip
        assert supervisor.stdin is not None  # noqa: S101
        assert supervisor.stdout is not None  # noqa: S101
        try:
            supervisor.stdin.write(order.line())
            supervisor.stdin.flush()
        except BrokenPipeError:
            supervisor.wait()
            raise self._failure("could not be started") from None
        first = supervisor.stdout.readline()
        self.pid = int(first) if first.strip() else None

    def _prepare(
        self, found: ServerBinary, resources: Resources, runtime: Path
    ) -> tuple[Settings, tuple[str, ...]]:
        """Fill the runtime folder; what the server is to be like, and its command line."""
        runtime.mkdir(mode=0o700)
        unknown = [field for field in OPTIONAL_FIELDS if not found.has_field(field)]
        target = runtime / "repository"
        staged = stage(self.repository, target, resources, self.models, unknown)
        backends = assemble_backends(found, runtime / "backends", staged.backends)
        check_backends(found, staged.backends, backends or found.backends)
        self.staged = staged
        in_python = ("python", *found.python_backends)
        stubs = sum(staged.instances.get(backend, 0) for backend in in_python)
        settings = Settings(
            repository=staged.folder,
            tag=self._tag,
            host=self.host,
            ports=self._ports,
            backends=backends,
            stubs=stubs,
            auto_complete=not staged.complete,
            exit_timeout=exit_timeout(self.grace),
            connection_age=self._connection_age,
            log_level=self.log_level,
            http_host=self._http_host,
            group=self._group,
        )
        if settings.private:
            assert self._supervisor is not None  # noqa: S101
            sockets = for_sockets(runtime, self._supervisor.pid)
            settings = dataclasses.replace(settings, sockets=sockets)
        return settings, (str(found.binary), *arguments(found, settings))

    def _wait_until_ready(self, given_up: threading.Event | None) -> None:
        start = time.monotonic()
        shown: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        while True:
            seconds = time.monotonic() - start
            text = self._log_text()
            if self.poll() is not None or logs.given_up(text):
                if logs.port_taken(text):
                    raise _PortTaken
                raise self._failure("did not start")
            if given_up is not None and given_up.is_set():
                raise self._failure("was not wanted any more")
            if seconds > self.timeout:
                raise self._failure(f"was not ready within {self.timeout:g} s")
            if self._progress is not None and self.staged is not None:
                state = logs.loading_state(text)
                if state != shown:
                    shown = state
                    self._progress(Progress(*state, len(self.staged.models), seconds))
            if answers_as(self.grpc_url, self._tag):
                leftovers.make_private(self._tag)
                self._write_record()
                return
            time.sleep(0.05)

    def _write_record(self) -> None:
        """Say where the server is, for `hilum status`."""
        assert self.staged is not None  # noqa: S101
        write_record(runtime_root() / self._tag, {
            "grpc": self.grpc_url,
            "metrics": self.metrics_url,
            "http": self.http_url,
            "pid": self.pid,
            "log": str(self.log),
            "repository": str(self.repository.absolute()),
            "models": list(self.staged.models),
        })  # fmt: skip

    def _abandon(self) -> None:
        """Stop without draining or grace: nothing is in flight."""
        self.drain, drain = None, self.drain
        self.stop(grace=0)
        self.drain = drain

    def _failure(self, what: str) -> ServerError:
        lines = logs.meaningful_lines(self._log_text())
        listed = "".join(f"\n  {line}" for line in lines)
        return ServerError(f"the Triton server {what}:{listed}\nThe whole log: {self.log}")

    def _log_text(self) -> str:
        return "" if self.log is None else self.log.read_text("utf-8", errors="replace")
