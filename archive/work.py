"""What a worker does with a study: fetch, compute, commit. One client for each process."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.protocols import AnySystem
from hilum.results.report import reason
from hilum.systems.study_folder import head_of, write_study

from .outcomes import OtherWeights, Outcome, Task, kind_of
from .places import store_at
from .plan import Plan
from .sources import fetched
from .store import agree, marker_of

URL = "HILUM_BATCH_URL"
"""Variable of a node's environment with its own servers, with commas between them."""

_WINDOW_S = 20.0
"""How long a request waits for a server that went away, before another node is asked."""


@dataclass(slots=True)
class _Session:
    """What a process keeps from one study to the next."""

    made_for: tuple[str, tuple[str, ...], str]
    plan: Plan
    system: AnySystem
    options: Any
    client: Client | ClientPool
    head: Mapping[str, Any]

    @property
    def weights(self) -> str:
        """The weights of the servers, as the ledger keeps them."""
        entries = self.head["weights"]
        return json.dumps({w["network"]: [w["sha256"], w["precision"]] for w in entries})


_KEPT: list[_Session] = []


def perform(task: Task) -> Outcome:
    """Do a task; every error becomes an outcome."""
    began, worker = time.monotonic(), f"{socket.gethostname()}-{os.getpid()}"
    try:
        session = _session(task)
        if not task.source:
            return Outcome(task.key, worker=worker, weights=session.weights)
        marker = _compute(session, task)
    except Exception as failure:  # noqa: BLE001 - the batch goes on, the ledger has it
        if kind_of(failure) == "lost":
            _forget()  # the next study asks again whether the server is there
        seconds = time.monotonic() - began
        return Outcome(task.key, kind_of(failure), reason(failure), seconds=seconds, worker=worker)
    seconds = time.monotonic() - began
    return Outcome(
        task.key, sha256=marker["sha256"], bytes=marker["bytes"], seconds=seconds, worker=worker
    )


def _compute(session: _Session, task: Task) -> dict[str, Any]:
    store = store_at(task.out)
    with (
        fetched(task.source, task.identity, session.plan) as study,
        store.workspace(task.name) as work,
    ):
        place = work / task.name
        system, options = session.system, session.options
        _, whole = write_study(
            system, options, study, place, session.head,
            partial(session.client.run, system, study, options=options),
            files=session.plan.files,
        )  # fmt: skip
        marker = marker_of(task.name, place, whole)
        there = store.marker(task.name)
        if there is not None:
            return agree(task.name, there, marker)
        return store.commit(task.name, place, marker)


def _session(task: Task) -> _Session:
    """The session of this process, made once; its servers have the weights of the batch.

    Raises
    ------
    ConnectionFailed
        When no server answers.
    OtherWeights
        When they have others.
    """
    own = [url for url in os.environ.get(URL, "").split(",") if url]
    urls = tuple(own) or task.urls
    wanted = (task.plan, urls, task.weights)
    if _KEPT and _KEPT[0].made_for == wanted:
        return _KEPT[0]
    _forget()
    plan = Plan.of_json(task.plan)
    system, options = plan.found_system(), plan.chosen_options()
    settings: dict[str, Any] = {"retry_window_s": _WINDOW_S, "connect_window_s": _WINDOW_S}
    client = ClientPool(urls, **settings) if urls[1:] else Client(next(iter(urls)), **settings)
    try:
        head = head_of(system, options, client.about())
        session = _Session(wanted, plan, system, options, client, head)
        _check(session, task)
    except BaseException:
        client.close()
        raise
    _KEPT[:] = [session]
    return session


def _check(session: _Session, task: Task) -> None:
    there = session.client.models()
    if lacking := [m for m in session.system.models(session.options) if m not in there]:
        raise OtherWeights(f"the server does not serve {', '.join(lacking)}")
    if task.weights and session.weights != task.weights:
        raise OtherWeights("the server has other weights than those that the batch began with")


def _forget() -> None:
    for session in _KEPT:
        session.client.close()
    _KEPT.clear()
