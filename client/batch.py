"""One study or many through a client: counted, timed, and results in the order of the inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hilum.catalog.errors import BadOption

from .calls import Calls
from .protocols import AnySystem, Outcome
from .trace import study as study_span

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


def run_study(
    system: AnySystem, study: Any, options: Any, calls: Calls, metrics: Metrics | None
) -> Any:
    """Run one study in this thread, counted where there are metrics."""
    device = system.device(options)
    with nullcontext() if metrics is None else metrics.study(system.name), device:
        result = system.run(study, options, calls.on(device))
    system.remember(result, study, options, calls.about_later)
    return result


def identity(outcome: Outcome) -> Outcome:
    """What is done with an outcome when nothing else is asked for."""
    return outcome


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """How each study of a batch is run, and what is done with its outcome at once.

    Attributes
    ----------
    finish
        Called with each outcome in the thread that computed it, several at once, in any order: the
        place to draw and write, since what it returns is all that is kept.
    in_flight
        Studies that run at once. As many finished ones wait, at most, for a slower one before them.
    """

    system: AnySystem
    options: Any
    finish: Callable[[Outcome], T]
    in_flight: int
    metrics: Metrics | None

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise BadOption(f"{self.in_flight} studies in flight; it takes one or more")

    def run(self, index: int, study: Any, calls: Calls) -> T:
        """Run one study of the batch in this thread; gives what `finish` returns."""
        start = time.perf_counter()
        result, error = None, None
        with study_span(index + 1):
            try:
                result = run_study(self.system, study, self.options, calls, self.metrics)
            except Exception as failure:  # noqa: BLE001 - the batch goes on, the outcome has it
                error = failure
            seconds = time.perf_counter() - start
            return self.finish(Outcome(index, study, result, error, seconds))
