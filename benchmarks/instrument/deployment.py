"""The server that a benchmark loads: one that runs already, or one that is started for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.catalog.errors import InputError, RepositoryError
from hilum.client import Client
from hilum.client.options import ConnectionOptions, TransportChoice
from hilum.results.provenance import weights_entry
from hilum.server.launcher import TritonServer

from .workloads import Workload

Progress = Callable[[str], None]

DEADLINE_S = 300.0
"""For one request, as in `hilum run`."""

METRICS_PORT = 8002
"""Where a Triton's metrics usually are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which server.

    Attributes
    ----------
    url
        HOST:PORT of a running Triton's gRPC; None: one is started from `repository`.
    repository
        None: the networks are exported for the run, with `weights` ("random", "reference" or
        "store").
    metrics_url
        None: that of the server that is started, else port 8002 of the host of `url`.
    """

    url: str | None = None
    repository: Path | None = None
    weights: str = "random"
    transport: TransportChoice = "auto"
    metrics_url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.repository is not None:
            raise InputError("--url names a running server and --repository starts one; give one")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A server that is ready, and a client of it.

    Attributes
    ----------
    weights, precision
        Of the networks that are loaded, as the server reports.
    server
        What a record says of it: never its address.
    """

    client: Client
    metrics_url: str | None
    weights: str
    precision: str
    server: dict[str, Any]


@contextmanager
def deployed(choice: Choice, loads: Sequence[Workload], progress: Progress) -> Iterator[Deployment]:
    """Find or start the server for some workloads.

    The client does not repeat what failed: under load a refused request is a result.

    Raises
    ------
    RepositoryError
        When the server lacks a model that a workload asks for.
    ConnectionFailed, ServerError
        When there is no server.
    """
    if choice.url is not None:
        with _client(choice.url, choice) as client:
            host = client.options.endpoint
            metrics = choice.metrics_url or (host and f"http://{host[0]}:{METRICS_PORT}/metrics")
            yield described(client, metrics, loads, "running already")
        return
    from ..runs import exported_all  # brings PyTorch, which a running server's client need not have

    wanted = [(load.declared, load.networks) for load in loads]
    models = [model for load in loads for model in load.models]
    with (
        exported_all(wanted, choice.repository, choice.weights, progress) as folder,
        _server(folder, models, progress) as server,
        _client(server.grpc_url, choice) as client,
    ):
        metrics = choice.metrics_url or server.metrics_url
        yield described(client, metrics, loads, "started for the run")


def _server(folder: Path, models: Sequence[str], progress: Progress) -> TritonServer:
    progress("start the server")
    return TritonServer(folder, models=models, grace=0)


def _client(url: str, choice: Choice) -> Client:
    options = ConnectionOptions(
        url, deadline_s=DEADLINE_S, retry_window_s=0.0, transport=choice.transport
    )
    return Client(options)


def described(
    client: Client, metrics_url: str | None, loads: Sequence[Workload], kind: str
) -> Deployment:
    """A server that is ready, and what it says of itself.

    Raises
    ------
    RepositoryError
        When it lacks a model that a workload asks for.
    """
    ready = client.models()
    missing = sorted({m for load in loads for m in load.models} - set(ready))
    if missing:
        names = " ".join(dict.fromkeys(load.system for load in loads))
        raise RepositoryError(
            f"the server does not serve {', '.join(missing)}; export it (hilum export {names}) and "
            "start the server again"
        )
    about = (client.about() or {"models": {}})["models"]
    networks = {m for load in loads for m in load.pipeline.networks(load.options)}
    entries = [weights_entry(m, about.get(m)) for m in sorted(networks)]
    certificates = [about[m] for m in sorted(networks) if m in about]
    described = client.describe()
    return Deployment(
        client=client,
        metrics_url=metrics_url,
        weights=", ".join(sorted({_origin(e) for e in entries})),
        precision=", ".join(sorted({str(c["precision"]) for c in certificates})) or "unknown",
        server={
            "name": "Triton",
            "version": described["version"],
            "endpoint": "gRPC, " + ("TLS" if client.options.secure else "no TLS"),
            "kind": kind,
            "transport": described["transport"],
            "transport_reason": described["transport_reason"],
        },
    )


def _origin(entry: Mapping[str, Any]) -> str:
    """Where weights are from; of random ones only that they are, whatever their seed."""
    return "random" if entry["kind"] == "random" else str(entry["source"])
