"""Making load: closed loops, open loops, warm-up, and turns that hit all lanes alike.

A closed loop keeps a number of tasks in flight: the next starts when one ends, so nothing is sent
while a server stalls and its latencies hide the stall. An open loop starts each task at a time that
was set beforehand, as patients and scanners do; a task that cannot start then, because all workers
are busy, waits in a backlog, and its latency counts from the time at which it should have started.
That accounts for coordinated omission.

Failures never end a loop: they are recorded by reason, in the class of the error and its gRPC
status, never in its message, which may name a file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import numpy as np

from hilum.catalog.errors import InputError

from .record import Round

Task = Callable[[int], Any]
"""One unit of work, called with its number."""

Tags = Callable[[int], str]
"""The system of a task of mixed traffic, by its place in the round."""

Way = Callable[[int], Round]
"""Measures one round, whose number from 0 it is given: for seeds and for the inputs' turn."""

NOT_STARTED = "not started"
"""Reason of a task that was still in the backlog when an open loop gave up."""


@dataclass(slots=True)
class _Log:
    """What the workers note; one entry a task. Thread-safe, since appending is."""

    origin: float = field(default_factory=time.perf_counter)
    entries: list[tuple[int, float, float, float, str | None]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        return time.perf_counter() - self.origin

    def wait(self, until: float) -> float:
        """Sleep until a time, if it is not over yet, or an interrupt; what time it is then."""
        if (left := until - self.now()) > 0:
            self.stopped.wait(left)
        return self.now()

    def do(self, task: Task, place: int, number: int, intended: float | None) -> None:
        """Run a task and note it."""
        failure = None
        started = self.now()
        try:
            task(number)
        except Exception as error:  # noqa: BLE001 - a task may fail in any way, the loop goes on
            failure = reason(error)
        finished = self.now()
        due = started if intended is None else intended
        self.entries.append((place, due, started, finished, failure))

    def run(self, worker: Callable[[], None], workers: int) -> None:
        """Run a worker in several threads until all return; an interrupt ends them soon."""
        with ThreadPoolExecutor(workers, thread_name_prefix="hilum-load") as pool:
            futures = [pool.submit(worker) for _ in range(workers)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stopped.set()
                raise

    def round(self, tags: Tags | None) -> Round:
        ordered = sorted(self.entries)
        intended = tuple(e[1] for e in ordered)
        finished = tuple(e[3] for e in ordered)
        return Round(
            seconds=max(finished, default=0.0) - min(intended, default=0.0),
            intended=intended,
            started=tuple(e[2] for e in ordered),
            finished=finished,
            failures={i: e[4] for i, e in enumerate(ordered) if e[4] is not None},
            tags=() if tags is None else tuple(tags(e[0]) for e in ordered),
        )


def closed_loop(
    task: Task,
    *,
    concurrency: int,
    tasks: int | None = None,
    seconds: float | None = None,
    first: int = 0,
    tags: Tags | None = None,
) -> Round:
    """Keep `concurrency` tasks in flight; the next starts when one ends.

    Parameters
    ----------
    tasks, seconds
        When to stop starting tasks, whichever comes first; one of them is needed.
    first
        Number of the first task, so that rounds go on with the inputs where the last one ended.

    Raises
    ------
    InputError
        Without an end, or with a concurrency below 1.
    """
    _check(concurrency)
    if tasks is None and seconds is None:
        raise InputError("a closed loop needs an end: give tasks or seconds")
    places, log = count(), _Log()

    def worker() -> None:
        while not log.stopped.is_set():
            if seconds is not None and log.now() >= seconds:
                return
            place = next(places)
            if tasks is not None and place >= tasks:
                return
            log.do(task, place, first + place, None)

    log.run(worker, concurrency)
    return log.round(tags)


def open_loop(
    task: Task,
    arrivals: Sequence[float],
    *,
    concurrency: int,
    first: int = 0,
    tags: Tags | None = None,
    give_up_after: float | None = None,
) -> Round:
    """Start each task at its time, or as soon after as one of `concurrency` workers is free.

    The backlog is served in the order of arrival. `started - intended` is the time a task waited
    for a worker of this client; that, and how late a thread wakes, belongs to its latency. An idle
    worker sleeps until its task is due, and wakes 0.1 ms late on a machine with an idle core and
    some milliseconds late on a busy one. It does not spin: that would take the time, and Python's
    global lock, from the tasks that are in flight.

    Parameters
    ----------
    arrivals
        Intended starts in seconds from the start of the round, ascending.
    concurrency
        Tasks in flight at most. Choose it above what the server can work on at once: workers are
        the requests that the server may queue.
    first
        Number of the first task.
    give_up_after
        Seconds from the start of the round after which the backlog is given up; its tasks fail as
        `NOT_STARTED`. None: the round ends when the last task does, however long an overload takes.

    Raises
    ------
    InputError
        For arrivals that are not ascending, or a concurrency below 1.
    """
    _check(concurrency)
    if any(b < a for a, b in pairwise(arrivals)):
        raise InputError("the arrivals of an open loop must ascend; sort them by time")
    places, log = count(), _Log()
    end = float("inf") if give_up_after is None else give_up_after

    def worker() -> None:
        while not log.stopped.is_set() and (place := next(places)) < len(arrivals):
            intended = arrivals[place]
            now = log.wait(min(intended, end))
            if now >= end:
                late = max(now, intended)
                log.entries.append((place, intended, late, late, NOT_STARTED))
            elif not log.stopped.is_set():
                log.do(task, place, first + place, intended)

    log.run(worker, min(concurrency, max(len(arrivals), 1)))
    return log.round(tags)


def interleave(
    ways: Mapping[str, Way], rounds: int, progress: Callable[[str], None]
) -> dict[str, tuple[Round, ...]]:
    """Measure all ways in turn, `rounds` times; each round begins with another way.

    A slow spell of the machine meets all ways of a round alike, and none is always the first, so
    ratios within rounds hold where absolute figures do not.
    """
    names = list(ways)
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            progress(f"round {number + 1}/{rounds}: {name}")
            found[name].append(ways[name](number))
    return {name: tuple(measured) for name, measured in found.items()}


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What a warm-up took.

    Attributes
    ----------
    tasks
        That were done and are in no figure; those that failed included.
    steady
        Whether the rule held before the bound was reached.
    per_second
        Tasks per second of the steady part: a first estimate of what the server sustains.
    """

    tasks: int
    seconds: float
    steady: bool
    per_second: float


BATCH = 5
"""Of MSER-5: latencies that are averaged before the rule looks at them."""

_LEAST_BATCHES = 4


def warmed(
    task: Task,
    *,
    concurrency: int,
    first: int = 0,
    most_tasks: int = 400,
    most_seconds: float = 60.0,
) -> WarmUp:
    """Run a closed loop until its latencies are steady by the rule MSER-5.

    The latencies, in the order of their starts, are averaged by fives. The rule cuts off the first
    of these averages such that the standard error of the mean of the rest is least. Where it would
    cut off half or more, the beginning still weighs, and the loop goes on with as many tasks again
    (K. P. White Jr., *Simulation* 69, 1997; the half is the usual guard of the rule). It is run on
    20 tasks at least, unless those take longer than `most_seconds`.

    Parameters
    ----------
    most_tasks, most_seconds
        Bound after which it is taken as it is, `steady` being False.
    """
    origin = time.perf_counter()
    latencies: list[float] = []
    tasks = 0
    while True:
        left = most_seconds - (time.perf_counter() - origin)
        wanted = min(max(tasks, _LEAST_BATCHES * BATCH, concurrency), most_tasks - tasks)
        if left <= 0 or wanted <= 0:
            break
        measured = closed_loop(
            task, concurrency=concurrency, tasks=wanted, seconds=left, first=first + tasks
        )
        tasks += len(measured.started)
        latencies += (b - a for a, b in zip(measured.started, measured.finished, strict=True))
        if (cut := steady_from(latencies)) is not None:
            mean = float(np.mean(latencies[cut:]))
            return WarmUp(tasks, time.perf_counter() - origin, True, concurrency / mean)
    rest = latencies[len(latencies) // 2 :]
    per_second = concurrency / float(np.mean(rest)) if rest else 0.0
    return WarmUp(tasks, time.perf_counter() - origin, False, per_second)


def steady_from(values: Sequence[float]) -> int | None:
    """The first of `values` that MSER-5 keeps; None where it is not known yet."""
    batches = len(values) // BATCH
    if batches < _LEAST_BATCHES:
        return None
    means = np.asarray(values[: batches * BATCH], np.float64).reshape(batches, BATCH).mean(axis=1)
    half = batches // 2
    errors = [float(means[cut:].var()) / (batches - cut) for cut in range(half + 1)]
    cut = int(np.argmin(errors))
    return cut * BATCH if cut < half else None


def reason(error: BaseException) -> str:
    """Why a task failed, without anything that could name a patient: class and gRPC status."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(cause, "status", None)
        code = str(status() or "") if callable(status) else ""
        if code:
            return f"{type(error).__name__} ({code.removeprefix('StatusCode.')})"
        cause = cause.__cause__
    return type(error).__name__


def _check(concurrency: int) -> None:
    if concurrency < 1:
        raise InputError(f"a concurrency of {concurrency}: give 1 or more")
