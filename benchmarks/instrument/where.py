"""Where the time of a lane's tasks went, and the systems of mixed traffic one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .loops import NOT_STARTED
from .record import Lane, Round
from .statistics import latencies, summarise
from .workloads import is_ensemble


def where(lane: Lane) -> dict[str, Any]:
    """Mean seconds of a task: before it started, on the server, and what is left; for JSON.

    `queue_s`, `copy_s` (into and out of the network) and `infer_s` are the server's sums over the
    models that compute, divided by the tasks that were sent. Where a task's requests overlap each
    other, they add up to more than the task took; `rest_s` (client, transfer, the server's own
    handling) is then None.
    """
    kept = [(r, n) for r in lane.rounds for n in range(len(r.started)) if n not in r.failures]
    sent = sum(len(r.started) - list(r.failures.values()).count(NOT_STARTED) for r in lane.rounds)
    tasks = max(len(kept), 1)
    waiting = sum(r.started[n] - r.intended[n] for r, n in kept) / tasks
    working = sum(r.finished[n] - r.started[n] for r, n in kept) / tasks
    own = [c for model, c in lane.counters.items() if not is_ensemble(model)]
    queue = sum(c.queue_s for c in own) / max(sent, 1)
    copy = sum(c.input_s + c.output_s for c in own) / max(sent, 1)
    infer = sum(c.infer_s for c in own) / max(sent, 1)
    rest = working - queue - copy - infer
    return {
        "lane": lane.name, "tasks": len(kept), "latency_s": waiting + working, "waiting_s": waiting,
        "queue_s": queue if own else None, "copy_s": copy if own else None,
        "infer_s": infer if own else None, "rest_s": rest if own and rest >= 0 else None,
    }  # fmt: skip


def by_system(lane: Lane) -> Iterator[dict[str, Any]]:
    """Figures of each system of mixed traffic; none for a single system."""
    if not any(r.tags for r in lane.rounds):
        return
    for system in lane.systems:
        rounds = [part for r in lane.rounds if latencies(part := _only(r, system))]
        if not rounds:
            continue
        found = summarise(rounds, 1)
        yield {
            "lane": lane.name,
            "system": system,
            "samples": found.samples,
            "failures": dict(found.failures),
            "latency_s": {p: e.value for p, e in found.latency_s.items()},
            "longest_s": found.longest_s,
        }


def _only(whole: Round, system: str) -> Round:
    """The tasks of one system."""
    places = [n for n, tag in enumerate(whole.tags) if tag == system]
    new: Mapping[int, int] = {old: n for n, old in enumerate(places)}
    return replace(
        whole,
        intended=tuple(whole.intended[n] for n in places),
        started=tuple(whole.started[n] for n in places),
        finished=tuple(whole.finished[n] for n in places),
        failures={new[n]: why for n, why in whole.failures.items() if n in new},
        tags=tuple(whole.tags[n] for n in places),
    )
