"""Making the trials of a capacity search on one deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.export.certificate import read_certificate

from .capacity_rule import Bound
from .capacity_trials import Ask, Served, Trial
from .instrument.arrivals import poisson
from .instrument.counters import Watch
from .instrument.deployment import Choice, Deployment, Progress, deployed
from .instrument.loops import Task, closed_loop, open_loop, warmed
from .instrument.record import Round
from .instrument.subject import Subject, subjects
from .instrument.workloads import Workload

GIVEN_UP = 4.0
"""When the backlog of an open loop is given up: so many times the bound after the last arrival.
What has not started by then is late whatever comes."""

WARM_CONCURRENCY = 4

Make = Callable[[Ask], Trial]


def run(task: Task, ask: Ask, bound: Bound, workers: int) -> Round:
    """Make one trial with a task.

    Parameters
    ----------
    workers
        Tasks at once at most, in an open loop.
    """
    if ask.kind != "open":
        return closed_loop(task, concurrency=int(ask.offered), seconds=ask.seconds, tasks=ask.tasks)
    times = poisson(ask.offered, ask.seconds, ask.seed)
    end = times[-1] + GIVEN_UP * bound.seconds
    return open_loop(task, times, concurrency=workers, give_up_after=end)


@contextmanager
def trials_on(
    choice: Choice, load: Workload, bound: Bound, warm_up_seconds: float, progress: Progress
) -> Iterator[Make]:
    """Start or find a server, warm it up, and give what makes a trial on it.

    Raises
    ------
    RepositoryError, ServerError, ConnectionFailed
        When there is no server with the models.
    """
    with deployed(choice, [load], progress) as there:
        (subject,) = subjects([load], {}, there, progress)
        task, _ = subject.turn(0)
        concurrency = min(WARM_CONCURRENCY, subject.workers)
        progress(f"warm-up, {concurrency} at once")
        warm = warmed(task, concurrency=concurrency, most_seconds=warm_up_seconds)
        served = _served(there, subject, steady=warm.steady)

        def make(ask: Ask) -> Trial:
            watch = Watch(there.client, load.counted)
            way = watch.over("trial", lambda _: run(task, ask, bound, subject.workers))
            measured = way(0)
            return Trial(ask, measured, served, watch.counts_of("trial"))

        yield make


def fingerprints(repository: Path | None, load: Workload) -> list[str]:
    """What distinguishes the networks of a repository: the beginnings of their SHA-256."""
    if repository is None:
        return []
    models = [n.model for n in load.declared.networks if n.name in load.networks]
    found = [read_certificate(repository / model) for model in models]
    return [str(c["file"]["sha256"])[:12] for c in found if c is not None]


def _served(there: Deployment, subject: Subject, *, steady: bool) -> Served:
    moved = subject.moved
    return Served(
        transport=there.client.transport or "grpc", weights=there.weights,
        precision=there.precision, unit=subject.unit, units=subject.units, workers=subject.workers,
        sent_bytes=moved and moved.sent_bytes, received_bytes=moved and moved.received_bytes,
        steady=steady, server=there.server,
    )  # fmt: skip
