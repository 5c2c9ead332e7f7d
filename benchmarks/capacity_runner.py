"""Making the trials of a capacity search: servers are started anew where a setting needs it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from ..catalog.errors import InputError, RepositoryError
from ..export.certificate import read_certificate
from .capacity_rule import Bound
from .capacity_trials import Ask, Served, Setting, Trial
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


@dataclasses.dataclass(slots=True)
class _There:
    """A deployment that is warm."""

    deployment: Deployment
    subject: Subject
    served: Served


class Runner:
    """Makes trials, on one deployment after the other.

    Parameters
    ----------
    repositories
        By precision; one without a name where the networks are exported for the run.
    """

    def __init__(
        self,
        load: Workload,
        bound: Bound,
        choice: Choice,
        repositories: Mapping[str | None, Path | None],
        warm_up_seconds: float,
        progress: Progress,
    ) -> None:
        self._load = dataclasses.replace(load, make=functools.cache(load.make))
        self._bound, self._choice, self._repositories = bound, choice, dict(repositories)
        self._warm_up_seconds, self._progress = warm_up_seconds, progress
        self._kept, self._running = ExitStack(), ExitStack()
        self._server: tuple[Any, ...] | None = None
        self._there: _There | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()
        self._kept.close()

    def make(self, setting: Setting, ask: Ask) -> Trial:
        """Make a trial.

        Raises
        ------
        RepositoryError, ServerError, ConnectionFailed
            When there is no server with the models.
        """
        there = self._deployed(setting)
        task, _ = there.subject.turn(0)
        workers = setting.workers or there.subject.workers
        watch = Watch(there.deployment.client, self._load.counted)
        way = watch.over("trial", lambda _: run(task, ask, self._bound, workers))
        measured = way(0)
        served = dataclasses.replace(there.served, workers=workers)
        return Trial(setting, ask, measured, served, watch.counts_of("trial"))

    def _deployed(self, setting: Setting) -> _There:
        if self._there is not None and self._server == setting.server:
            return self._there
        self._running.close()
        self._there, self._server = None, None
        choice = dataclasses.replace(
            self._choice,
            repository=self._repository(setting.precision),
            transport=cast("Any", setting.transport),
            instances=setting.instances,
            queue_delay_ms=setting.queue_delay_ms,
        )
        self._progress(f"setting: {setting}")
        there = self._running.enter_context(deployed(choice, [self._load], self._progress))
        (subject,) = subjects([self._load], {}, there, self._progress)
        concurrency = min(WARM_CONCURRENCY, subject.workers)
        self._progress(f"warm-up, {concurrency} in work")
        task, _ = subject.turn(0)
        warm = warmed(task, concurrency=concurrency, most_seconds=self._warm_up_seconds)
        self._there = _There(there, subject, _served(there, subject, steady=warm.steady))
        self._server = setting.server
        return self._there

    def _repository(self, precision: str | None) -> Path | None:
        """The repository of a precision; one that is exported stays for the whole search."""
        if self._choice.url is not None:
            return None
        folder = self._repositories[precision]
        if folder is None:
            from .runs import exported_all  # brings PyTorch

            wanted = [(self._load.declared, self._load.networks)]
            made = exported_all(wanted, None, self._choice.weights, self._progress)
            folder = self._repositories[precision] = self._kept.enter_context(made)
        return folder


def by_precision(folders: Sequence[Path], load: Workload) -> dict[str | None, Path | None]:
    """Repositories by the precision of the system's networks in them.

    Raises
    ------
    InputError
        When two are of the same, or one holds networks of several.
    RepositoryError
        When a network or its certificate is missing.
    """
    if len(folders) < 2:
        return {None: folders[0] if folders else None}
    found: dict[str | None, Path | None] = {}
    models = [n.model for n in load.declared.networks if n.name in load.networks]
    for folder in folders:
        told = sorted({_precision(folder / m) for m in models})
        if len(told) != 1 or told[0] in found:
            raise InputError(
                f"the repository {folder.name} holds {' and '.join(told)}; give one for each "
                "precision to be tried"
            )
        found[told[0]] = folder
    return found


def fingerprints(folders: Sequence[Path], load: Workload) -> list[str]:
    """What tells networks in given repositories from others: the beginnings of their SHA-256."""
    models = [n.model for n in load.declared.networks if n.name in load.networks]
    told = [read_certificate(folder / model) for folder in folders for model in models]
    return [str(c["file"]["sha256"])[:12] for c in told if c is not None]


def _precision(model_folder: Path) -> str:
    certificate = read_certificate(model_folder)
    if certificate is None:
        raise RepositoryError(
            f"{model_folder} has no certificate, so its precision is not known; export the network "
            "with `hilum export`"
        )
    return str(certificate["precision"])


def _served(there: Deployment, subject: Subject, *, steady: bool) -> Served:
    moved = subject.moved
    return Served(
        transport=there.client.transport or "grpc",
        weights=there.weights,
        precision=there.precision,
        unit=subject.unit,
        units=subject.units,
        workers=subject.workers,
        sent_bytes=moved and moved.sent_bytes,
        received_bytes=moved and moved.received_bytes,
        steady=steady,
        server=there.server,
    )
