"""The engine of one machine: a process for each study at once, so that a crash takes one study."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from .outcomes import Outcome, Task
from .work import perform


@dataclass(slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Any
    task: Task | None = None


class LocalEngine:
    """Processes on this machine, see `archive.engine.Engine`."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def slots(self) -> int:
        """How many studies run at once."""
        return self._slots

    def submit(self, task: Task) -> None:
        """Give a task to a worker that is free, or to a new one."""
        worker = next((w for w in self._workers if w.task is None), None) or self._start()
        worker.task = task
        with suppress(OSError):  # it died meanwhile: `wait` sees that
            worker.pipe.send(task)

    def wait(self, timeout: float) -> list[Outcome]:
        """What came of tasks meanwhile; at once where something did."""
        ready = set(wait([w.pipe for w in self._workers], timeout)) if self._workers else set()
        found: list[Outcome] = []
        for worker in [w for w in self._workers if w.pipe in ready]:
            try:
                found.append(worker.pipe.recv())
                worker.task = None
            except (EOFError, OSError):
                found += self._died(worker)
        return found

    def cancel(self, task: Task) -> None:
        """Kill the worker of a task; `wait` tells of it as of a crash."""
        for worker in self._workers:
            if worker.task is task:
                worker.process.kill()

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers:
            worker.process.kill()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5)
        self._workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,), daemon=False)
        process.start()
        theirs.close()  # so that its end is seen here
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _died(self, worker: _Worker) -> list[Outcome]:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(5)
        if worker.task is None:
            return []
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return [Outcome(worker.task.key, "crash", f"its worker died ({how})", crashes=1)]


def _work(pipe: Any) -> None:
    """Work until the driver closes its end, be it by dying."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = perform(task)
        try:
            pipe.send(outcome)
        except OSError:
            return
