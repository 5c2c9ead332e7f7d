"""One client of several servers that serve the same: requests go to the least busy of them.

A server that is away or busy is left alone until it answers again, and what it was asked is asked
of another one: inference changes nothing on a server, so it may be repeated. A study is therefore
lost only when no server is left for longer than the window.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..catalog.errors import ConnectionFailed, RepositoryError
from ..preprocessing.arrays import Array
from .batch import Batch, Outcome, at_once, choose
from .client import Client
from .options import ConnectionOptions
from .pipelines import Pipeline, Source
from .servers import Servers
from .session import Inference
from .steps import Action, Ask, Compute, Each, Rpc, Sleep, Steps, Tell, run_steps
from .window import in_order

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class ClientPool:
    """A client of several servers. Many threads may use one at once.

    Each request goes to the server that has the fewest of this pool's requests in work, and among
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
        self._servers = Servers([Client(url, metrics=metrics, **own) for url in urls], self.options)
        self.on_progress: Callable[[Tell], None] = lambda _told: None
        """Called with what studies tell of their progress, from several threads."""

    @property
    def clients(self) -> tuple[Client, ...]:
        """The client of each server, in the order of the addresses."""
        return tuple(member.client for member in self._servers.members)

    @property
    def away(self) -> dict[str, str]:
        """Why a server gets no requests now, by address."""
        return self._servers.away()

    def study(self, pipeline: Pipeline, source: Source, options: Any) -> Steps[Any]:
        """The steps of one study, counted where the pool has metrics; `drive` runs them."""
        steps = pipeline.study(source, options)
        return steps if self.metrics is None else self.metrics.study(pipeline.system.name, steps)

    def drive(self, steps: Steps[T], stop: threading.Event | None = None) -> T:
        """Run steps, those of a pipeline for instance, in this thread; see `Client.drive`."""

        def perform(action: Action) -> Any:
            if stop is not None and stop.is_set():
                raise CancelledError
            return self._perform(action)

        return run_steps(steps, perform)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays on one of the servers, see `Session.infer`."""
        options = {"deadline_s": deadline_s, "output_shapes": output_shapes}
        return self._servers.ask(Ask("infer", (model, inputs, outputs), options))

    def run(
        self, system: str, source: Source, *, options: object | None = None, **given: Any
    ) -> Any:
        """Run a system on one study, whose requests may go to several servers.

        See `Client.run`.
        """
        pipeline, chosen = choose(system, options, given)
        return self.drive(self.study(pipeline, source, chosen))

    def run_many(
        self,
        system: str,
        sources: Iterable[Source],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        **given: Any,
    ) -> Generator[Any, None, None]:
        """Run a system on many studies; yields outcomes in input order. See `Client.run_many`.

        Parameters
        ----------
        in_flight
            None: what suits the pipeline, for each server.
        """
        pipeline, chosen = choose(system, options, given)
        at = in_flight or len(self._servers.members) * at_once(pipeline, None)
        batch = Batch(pipeline, chosen, finish or (lambda outcome: outcome), at)
        return batch.run(self, sources)

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready on every server that answers."""
        found = [set(names) for names in self._servers.ask_all("models").values()]
        return tuple(sorted(set.intersection(*found)))

    def about(self) -> dict[str, Any] | None:
        """What the servers say about the weights they serve, None when they say nothing.

        Raises
        ------
        RepositoryError
            When they do not serve the same: results would depend on which one was asked.
        """
        found = self._servers.ask_all("about")
        (first, told), *others = found.items()
        for other, also in others:
            if differing := _differing(told, also):
                raise RepositoryError(
                    f"{first.url} and {other.url} serve different weights of "
                    f"{', '.join(differing)}; give all servers the same model repository"
                )
        return told

    def describe(self) -> dict[str, str]:
        """Addresses, names and versions of the servers, and how tensors travel, for a report."""
        told = list(self._servers.ask_all("describe").values())
        found = {key: _joined(one[key] for one in told) for key in told[0]}
        if away := self.away:
            found["away"] = ", ".join(away)
        return found

    def ready(self) -> bool:
        """Whether at least one server answers and all its models are ready."""
        return any(member.client.ready() for member in self._servers.members)

    def close(self) -> None:
        """End all requests and close the connections. May be repeated."""
        self._servers.close()

    def __enter__(self) -> ClientPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ClientPool {', '.join(member.url for member in self._servers.members)}>"

    def _perform(self, action: Action) -> Any:
        match action:
            case Ask():
                return self._servers.ask(action)
            case Sleep():
                self._servers.closing.wait(action.seconds)
                return None
            case Compute():
                return action.perform()
            case Each():
                make = action.make
                return list(
                    in_order(lambda item: self.drive(make(item)), action.items, action.in_flight)
                )
            case Tell():
                self.on_progress(action)
                return None
            case Rpc():
                raise TypeError(f"{action.method} is for one server; ask one of `clients`")


def _differing(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    """Models that both servers have, with weights that they tell differently.

    Where only one of them tells, all of its models may differ.
    """
    ours, theirs = _weights(one), _weights(other)
    both = {*ours} & {*theirs} if one and other else {*ours, *theirs}
    return sorted(m for m in both if ours.get(m) != theirs.get(m))


def _weights(told: dict[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """By model, where its weights are from and their checksum; None where a server is silent."""
    found: dict[str, tuple[Any, Any]] = {}
    for model, certificate in (told or {"models": {}})["models"].items():
        weights = certificate.get("weights", {})
        found[model] = (weights.get("source"), weights.get("sha256"))
    return found


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
