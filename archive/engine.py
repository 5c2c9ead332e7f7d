"""What carries studies to workers: a machine's own processes, or a cluster."""

from __future__ import annotations

from typing import Protocol

from .outcomes import Outcome, Task


class Engine(Protocol):
    """Carries tasks and tells what came of them; it keeps nothing that the ledger needs."""

    def slots(self) -> int:
        """How many studies may run at once, now."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task."""
        ...

    def wait(self, timeout: float) -> list[Outcome]:
        """What came of tasks; returns early where something did."""
        ...

    def cancel(self, task: Task) -> None:
        """Kill the worker of a task that takes too long; its outcome is a crash."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
