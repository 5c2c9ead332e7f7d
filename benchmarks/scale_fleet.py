"""Several Tritons on one machine, each on cores and GPUs of its own, and ways to share work out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..client import Client, ClientPool
from ..client.options import TransportChoice
from ..server.launcher import TritonServer
from ..server.machine import gpus
from .haproxy import HAProxy, Server
from .instrument.deployment import DEADLINE_S

Balance = Literal["round-robin", "haproxy"]

WORDS: dict[Balance, str] = {"round-robin": "round robin", "haproxy": "HAProxy"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """A deployment that is ready: so many servers of so many instances each.

    Attributes
    ----------
    client
        Shares requests out over the servers, or sends them to the balancer.
    each
        One client for each server, to read its counts with.
    """

    servers: int
    instances: int
    balance: Balance
    client: Client | ClientPool
    each: tuple[Client, ...]

    @property
    def name(self) -> str:
        """In words, for lanes."""
        counted = f"{self.servers} server{'s' * (self.servers > 1)}"
        return (
            f"{counted} × {self.instances} instance{'s' * (self.instances > 1)}, "
            f"{WORDS[self.balance]}"
        )


@dataclass(frozen=True, slots=True)
class Places:
    """What each server has to itself.

    Attributes
    ----------
    cores
        Of each server.
    rest
        Cores that no server has, for the client; empty: it shares theirs.
    gpus
        Of each server; empty without GPUs, or where there are fewer than servers.
    """

    cores: tuple[frozenset[int], ...]
    rest: frozenset[int]
    gpus: tuple[str, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether no two servers share a core."""
        return len(self.cores) < 2 or not self.cores[0] & self.cores[1]

    @property
    def words(self) -> str:
        """For a report."""
        size = len(self.cores[0])
        cores = f"{size} core{'s' * (size > 1)}"
        told = [f"each server has {cores} of its own" if self.pinned else "servers share all cores"]
        if self.pinned:
            told.append(
                f"the client has {len(self.rest)} of its own"
                if self.rest
                else "the client shares the servers' cores, as no core is left for it"
            )
        if self.gpus:
            told.append("each server has a GPU of its own")
        elif gpus():
            told.append("all servers share the GPU")
        return "; ".join(told)


def places(servers: int, cores: frozenset[int], devices: int) -> Places:
    """Share cores and GPUs out evenly; one core at least is the client's where there are enough."""
    ordered = sorted(cores)
    each = max((len(ordered) - 1) // servers, len(ordered) // servers if len(ordered) < 8 else 0)
    if each == 0:
        return Places((cores,) * servers, frozenset())
    parts = tuple(frozenset(ordered[i * each : (i + 1) * each]) for i in range(servers))
    visible = tuple(str(i) for i in range(servers)) if devices >= servers > 1 else ()
    return Places(parts, cores.difference(*parts), visible)


@contextmanager
def fleets(
    repository: Path,
    models: Sequence[str],
    deployments: Sequence[tuple[int, int]],
    balances: Sequence[Balance],
    transport: TransportChoice,
    there: Places,
) -> Iterator[list[Fleet]]:
    """Start what some deployments need, all at once: they are measured in turns.

    The servers of a deployment of fewer are the first of those of one of more.

    Parameters
    ----------
    deployments
        Servers, and instances of each.
    """
    options: dict[str, Any] = {"deadline_s": DEADLINE_S, "retry_window_s": 0.0}
    needed: dict[int, int] = {}
    for servers, instances in deployments:
        needed[instances] = max(servers, needed.get(instances, 0))
    with ExitStack() as stack:
        running: dict[int, list[TritonServer]] = {}
        for instances, count in needed.items():
            running[instances] = [
                stack.enter_context(_started(repository, models, instances, there, number))
                for number in range(count)
            ]
        if there.rest:
            stack.enter_context(on_cores(there.rest))
        each = {
            server.grpc_url: stack.enter_context(
                Client(server.grpc_url, transport=transport, **options)
            )
            for own in running.values()
            for server in own
        }
        found = []
        least = min(instances for _, instances in deployments)
        for balance in balances:
            for servers, instances in deployments:
                if balance != balances[0] and instances != least:
                    continue  # what instances bring does not depend on the balancer
                own = running[instances][:servers]
                urls = [server.grpc_url for server in own]
                if balance == "haproxy":
                    front = stack.enter_context(HAProxy([_behind(s, i) for i, s in enumerate(own)]))
                    client = Client(front.url, transport="grpc", **options)
                else:
                    client = ClientPool(urls, transport=transport, **options)
                stack.enter_context(client)
                counted = tuple(each[url] for url in urls)
                found.append(Fleet(servers, instances, balance, client, counted))
        yield found


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _started(
    repository: Path, models: Sequence[str], instances: int, there: Places, number: int
) -> Iterator[TritonServer]:
    """One server in its place."""
    with ExitStack() as stack:
        with on_cores(there.cores[number]), _seeing(there.gpus[number : number + 1]):
            server = TritonServer(
                repository, models=models, instances=instances, http=True, grace=0
            )
            stack.enter_context(server)
        yield server


@contextmanager
def _seeing(devices: Sequence[str]) -> Iterator[None]:
    """Let processes that are started see these GPUs only; none: leave them all."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if devices:
        os.environ[name] = ",".join(devices)
    try:
        yield
    finally:
        if devices and before is None:
            del os.environ[name]
        elif before is not None:
            os.environ[name] = before


def _behind(server: TritonServer, number: int) -> Server:
    if server.http_url is None:
        raise AssertionError("servers of a fleet are started with HTTP")
    return Server(f"triton{number}", server.grpc_url, server.http_url)
