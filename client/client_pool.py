"""One client of several servers that serve the same: requests go to the least busy of them.

A server that is away or busy is left alone until it answers again, and what it was asked is asked
of another one: inference changes nothing on a server, so it may be repeated. A study is therefore
lost only when no server is left for longer than the window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hilum.catalog.errors import ConnectionFailed, RepositoryError
from hilum.preprocessing.arrays import Array

from .blocking import Blocking
from .calls import Progress
from .client import Client
from .models import Inference, ModelInfo
from .options import ConnectionOptions
from .servers import Servers

if TYPE_CHECKING:
    from .metrics import Metrics


class ClientPool(Blocking):
    """A client of several servers. Many threads may use one at once.

    Each request goes to the server that has the fewest of this pool's requests, and among
    equals to the one whose last request is longest ago: in turn, as long as all are equally fast.
    A slower server gets fewer.

    Parameters
    ----------
    urls
        ``host:port`` of each server's gRPC endpoint. All serve the same models and weights.
    metrics
        Where requests and studies are counted for Prometheus; None for nowhere.
    **options
        Fields of `ConnectionOptions`, the same for all. `retry_window_s` and `connect_window_s`
        are for how long a request waits while no server is left.

    Raises
    ------
    ConnectionFailed
        For no address, one that is none, or one that is given twice.

    Examples
    --------
    >>> with ClientPool(["gpu1:8001", "gpu2:8001"]) as pool:  # doctest: +SKIP
    ...     for outcome in pool.run_many("cxr-severity", files, in_flight=8):
    ...         print(outcome.name, outcome.result)
    """

    def __init__(
        self, urls: Sequence[str], *, metrics: Metrics | None = None, **options: Any
    ) -> None:
        if not urls or len(set(urls)) < len(urls):
            raise ConnectionFailed(
                f"a pool is of different servers, not of {', '.join(urls) or 'none'}; give each "
                "address once"
            )
        self.options = ConnectionOptions(urls[0], **options)
        self.metrics = metrics
        # Whether to wait for a server is for the pool to decide: another one may be there.
        own = {**options, "retry_window_s": 0.0, "connect_window_s": 0.0}
        self.servers = len(urls)
        with ExitStack() as opened:  # an address that is none must not leave the others open
            clients = [opened.enter_context(Client(url, metrics=metrics, **own)) for url in urls]
            opened.pop_all()
        self._servers = Servers(clients, self.options)
        self.on_progress: Callable[[Progress], None] = lambda _: None
        """Called with the progress of studies, from several threads."""

    @property
    def clients(self) -> tuple[Client, ...]:
        """The client of each server, in the order of the addresses."""
        return tuple(member.client for member in self._servers.members)

    @property
    def away(self) -> dict[str, str]:
        """Why a server gets no requests now, by address."""
        return self._servers.away()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays on one of the servers.

        Parameters
        ----------
        model
            Name of the Triton model.
        inputs
            Arrays by name, with the model's element types and shapes; with the batch axis where it
            has one. Arrays on a GPU travel through CUDA shared memory where the server takes it.
        outputs
            Names of the outputs that are wanted.
        deadline_s
            Seconds for the answer; None for the connection's own.
        output_shapes
            Whole shapes of outputs that the server declares with lengths of -1 and the caller
            knows; without them such outputs come over gRPC.

        Raises
        ------
        ConnectionFailed
            No server, none that is Triton, or it went away for longer than the retry window.
        DeadlineExceeded
            The server had the request and did not answer in time.
        InferenceFailed
            The server answered with an error; an unknown model and wrong inputs are such.
        """
        return self._servers.ask(
            lambda client: client.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    def model(self, name: str) -> ModelInfo:
        """The signature of a model as one of the servers has it.

        Parameters
        ----------
        name
            Name of the Triton model.
        """
        return self._servers.ask(lambda client: client.model(name))

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready on every server that answers."""
        found = [set(names) for names in self._servers.ask_all(Client.models).values()]
        return tuple(sorted(set.intersection(*found)))

    def about(self) -> dict[str, Any] | None:
        """What the servers say about the weights they serve, None when they say nothing.

        Raises
        ------
        RepositoryError
            When they do not serve the same: results would depend on which one was asked.
        """
        found = self._servers.ask_all(Client.about)
        (first, certificates), *others = found.items()
        for other, also in others:
            if differing := _differing(certificates, also):
                raise RepositoryError(
                    f"{first.url} and {other.url} serve different weights of "
                    f"{', '.join(differing)}, or the same in another precision; give all servers "
                    "the same model repository"
                )
        return certificates and {**certificates, "served_by": _served_by(found.values())}

    def describe(self) -> dict[str, str]:
        """Addresses, names and versions of the servers, and how tensors travel, for a report."""
        answers = list(self._servers.ask_all(Client.describe).values())
        found = {key: _joined(one[key] for one in answers) for key in answers[0]}
        if away := self.away:
            found["away"] = ", ".join(away)
        return found

    def ready(self) -> bool:
        """Whether at least one server answers and all its models are ready."""
        return any(member.client.ready() for member in self._servers.members)

    def close(self) -> None:
        """End all requests and close the connections. May be repeated."""
        self._servers.close()

    def __repr__(self) -> str:
        return f"<ClientPool {', '.join(member.url for member in self._servers.members)}>"


def _served_by(answers: Iterable[dict[str, Any] | None]) -> dict[str, str]:
    """By model, what serves it: two names where an engine failed on one of the servers alone."""
    found: dict[str, set[str]] = {}
    for one in answers:
        for model, backend in (one or {}).get("served_by", {}).items():
            found.setdefault(model, set()).add(backend)
    return {model: ", ".join(sorted(names)) for model, names in found.items()}


def _differing(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    """Models that both servers have, with weights or precision that differ.

    Where only one of them says, all of its models may differ.
    """
    ours, theirs = _weights(one), _weights(other)
    both = {*ours} & {*theirs} if one and other else {*ours, *theirs}
    return sorted(m for m in both if ours.get(m) != theirs.get(m))


def _weights(about: dict[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    """By model, its weights' source, checksum and precision; None where a server is silent."""
    found: dict[str, tuple[Any, ...]] = {}
    for model, certificate in (about or {"models": {}})["models"].items():
        weights = certificate.get("weights", {})
        precision = certificate.get("precision")
        found[model] = (weights.get("source"), weights.get("sha256"), precision)
    return found


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
