"""One client of several servers that serve the same: requests go to the least busy of them.

A server that is away or busy is left alone until it answers again, and what it was asked is asked
of another one: inference changes nothing on a server, so it may be repeated. A study is therefore
lost only when no server is left for longer than the window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ConnectionFailed, RepositoryError
from .blocking import Blocking
from .client import Client
from .options import ConnectionOptions
from .servers import Servers
from .steps import Ask, Rpc, Sleep, Tell

if TYPE_CHECKING:
    from .metrics import Metrics


class ClientPool(Blocking):
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
        self.servers = len(urls)
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
                    f"{', '.join(differing)}, or the same in another precision; give all servers "
                    "the same model repository"
                )
        return told and {**told, "served_by": _served_by(found.values())}

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

    def __repr__(self) -> str:
        return f"<ClientPool {', '.join(member.url for member in self._servers.members)}>"

    def _reach(self, action: Ask | Rpc | Sleep) -> Any:
        match action:
            case Ask():
                return self._servers.ask(action)
            case Sleep():
                self._servers.closing.wait(action.seconds)
                return None
            case Rpc():
                raise TypeError(f"{action.method} is for one server; ask one of `clients`")


def _served_by(told: Iterable[dict[str, Any] | None]) -> dict[str, str]:
    """By model, what serves it: two names where an engine failed on one of the servers alone."""
    found: dict[str, set[str]] = {}
    for one in told:
        for model, backend in (one or {}).get("served_by", {}).items():
            found.setdefault(model, set()).add(backend)
    return {model: ", ".join(sorted(names)) for model, names in found.items()}


def _differing(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    """Models that both servers have, with weights or precision that they tell differently.

    Where only one of them tells, all of its models may differ.
    """
    ours, theirs = _weights(one), _weights(other)
    both = {*ours} & {*theirs} if one and other else {*ours, *theirs}
    return sorted(m for m in both if ours.get(m) != theirs.get(m))


def _weights(told: dict[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    """By model, its weights' source, checksum and precision; None where a server is silent."""
    found: dict[str, tuple[Any, ...]] = {}
    for model, certificate in (told or {"models": {}})["models"].items():
        weights = certificate.get("weights", {})
        precision = certificate.get("precision")
        found[model] = (weights.get("source"), weights.get("sha256"), precision)
    return found


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
