"""The engine of a cluster: Ray Core, one task for each study, where nodes offer the resource."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import replace
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from hilum.catalog.errors import ConnectionFailed, InputError

from .outcomes import Outcome, Task
from .work import perform

RESOURCE = "triton"
"""What a node offers: ``ray start --resources '{"triton": 2}'``, for two studies at once."""

_TRIES_OF_RAY = 1
"""How often Ray itself starts a task again whose worker or node died.

What comes of that is one crash of the study: of a node that died a moment ago Ray says that the
worker did, so that two deaths need not be the study's doing.
"""

_LOST_OF_A_NODE = 3
"""Tasks that found no server on a node in a row, until it gets no more for a while."""

_AWAY_S = 120.0
_LOOK_S = 5.0


def _settings() -> None:
    """What Ray reads from the environment, before it is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it reports home otherwise
    os.environ.setdefault("RAY_task_oom_retries", "1")  # without end otherwise


def check_address(address: str) -> None:
    """Refuse a cluster on a network without a token: everybody who reaches it may run code.

    Raises
    ------
    InputError
        Then.
    """
    host = urlsplit(f"//{address}").hostname or ""
    if host in ("auto", "localhost") or host.startswith("127.") or host == "::1":
        return
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            f"--address {address}: a cluster beyond this machine needs a token; set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) here and on each node"
        )


class RayEngine:
    """Tasks on a cluster of Ray, see `archive.engine.Engine`.

    Raises
    ------
    InputError
        For a cluster beyond this machine without a token.
    ConnectionFailed
        When no cluster answers, or it does not take the token.
    """

    def __init__(self, address: str) -> None:
        check_address(address)
        _settings()
        import ray  # pyright: ignore[reportMissingImports] - of an extra

        # Ray prints messages of nodes on the driver's output, even where `log_to_driver` is off,
        # and has no setting for it; they hold paths.
        vars(import_module("ray._private.worker"))["print_to_stdstream"] = _print_nothing
        self._ray: Any = ray
        try:
            # Logs of workers hold paths; the driver's own log is all that is kept.
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as failure:  # noqa: BLE001 - of many kinds, some of gRPC
            raise ConnectionFailed(
                f"no cluster of Ray at {address}, or another token ({type(failure).__name__})"
            ) from None
        options = {"num_cpus": 0, "resources": {RESOURCE: 1}, "max_retries": _TRIES_OF_RAY}
        self._remote: Any = ray.remote(**options)(_perform)
        self._flight: dict[Any, Task] = {}
        self._lost: Counter[str] = Counter()
        self._away: dict[str, float] = {}
        self._counted, self._slots = -1e9, 0

    def slots(self) -> int:
        """Slots of the nodes that are there, as of some seconds ago."""
        if time.monotonic() - self._counted > _LOOK_S:
            self._counted = time.monotonic()
            away = {node for node, until in self._away.items() if until > self._counted}
            self._slots = sum(
                int(node["Resources"].get(RESOURCE, 0))
                for node in self._ray.nodes()
                if node["Alive"] and node["NodeID"] not in away
            )
        return self._slots

    def submit(self, task: Task) -> None:
        """Start a task on any node, but for those to stay away from."""
        now = time.monotonic()
        away = {*task.away, *(node for node, until in self._away.items() if until > now)}
        here = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]} if away else set()
        remote = self._remote
        if away & here and here - away:
            selector = {"ray.io/node-id": f"!in({','.join(sorted(away & here))})"}
            remote = remote.options(label_selector=selector)
        self._flight[remote.remote(task)] = task

    def wait(self, timeout: float) -> list[Outcome]:
        """What came of tasks."""
        if not self._flight:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(list(self._flight), num_returns=1, timeout=timeout)
        if ready:  # what else is there by now
            ready, _ = self._ray.wait(list(self._flight), num_returns=len(self._flight), timeout=0)
        return [self._outcome(reference, self._flight.pop(reference)) for reference in ready]

    def cancel(self, task: Task) -> None:
        """Kill the worker of a task; without force a study in a library would go on."""
        for reference, running in self._flight.items():
            if running is task:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; what runs is ended by Ray."""
        self._ray.shutdown()

    def _outcome(self, reference: Any, task: Task) -> Outcome:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(reference)
        except errors.OutOfMemoryError:
            return Outcome(task.key, "crash", "the node ran out of memory", crashes=2)
        except errors.NodeDiedError:
            return Outcome(task.key, "lost", "its node died")
        except errors.WorkerCrashedError:
            return Outcome(task.key, "crash", "its worker died", crashes=1)
        except errors.TaskCancelledError:
            return Outcome(task.key, "crash", "its worker was ended", crashes=1)
        except Exception as failure:  # noqa: BLE001 - of Ray; texts of it hold paths
            return Outcome(task.key, "lost", f"Ray: {type(failure).__name__}")
        self._watch(outcome)
        return outcome

    def _watch(self, outcome: Outcome) -> None:
        """Leave a node alone for a while that finds no server again and again."""
        if outcome.kind != "lost":
            self._lost.pop(outcome.node, None)
            return
        self._lost[outcome.node] += 1
        if self._lost[outcome.node] >= _LOST_OF_A_NODE:
            self._away[outcome.node] = time.monotonic() + _AWAY_S
            self._counted = -1e9


def _print_nothing(*_words: object, **_options: object) -> None:
    """What stands in for Ray's printing."""


def _perform(task: Task) -> Outcome:
    """In a worker of the cluster."""
    import ray  # pyright: ignore[reportMissingImports] - of an extra

    return replace(perform(task), node=ray.get_runtime_context().get_node_id())
