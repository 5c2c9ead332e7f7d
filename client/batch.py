"""Many studies through one client: some in work at once, results in the order of the inputs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..catalog.errors import InputError
from .pipelines import PIPELINES, Pipeline, Result, Source
from .pipelines.base import Heavy
from .trace import study
from .window import in_order, in_order_async

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .blocking import Blocking

T = TypeVar("T")

STUDIES_IN_FLIGHT = 4
"""Studies in work at once, of most systems."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one study of a batch.

    Attributes
    ----------
    index
        Place in the batch, from 0.
    source
        The input as it was given.
    result, error
        Exactly one of them is set.
    seconds
        From the start of reading to the result.
    """

    index: int
    source: Any
    result: Result | None
    error: Exception | None
    seconds: float

    @property
    def name(self) -> str:
        """Name of the files that are written for this study: its number, never its file's name.

        File names of studies often hold a patient's name or number.
        """
        return f"{self.index + 1:04d}"


def choose(system: str, options: object | None, given: dict[str, Any]) -> tuple[Pipeline, Any]:
    """The pipeline of `system` and its options, from a ready object or from keywords.

    Raises
    ------
    InputError
        For a system or an option that does not exist.
    """
    if system not in PIPELINES:
        raise InputError(f"there is no system {system!r}; there are {', '.join(PIPELINES)}")
    pipeline = PIPELINES[system]
    if options is not None:
        return pipeline, options
    try:
        return pipeline, pipeline.options_type(**given)
    except TypeError as error:
        known = ", ".join(pipeline.options_type.__dataclass_fields__)
        raise InputError(f"{system}: {error}; its options are {known}") from None


def at_once(pipeline: Pipeline, chosen: int | None) -> int:
    """How many studies are in work at once: as chosen, or what suits the pipeline."""
    if chosen is not None:
        return chosen
    return pipeline.studies_in_flight if isinstance(pipeline, Heavy) else STUDIES_IN_FLIGHT


def as_it_is(outcome: Outcome) -> Outcome:
    """What is done with an outcome when nothing else is asked for."""
    return outcome


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """How each study of a batch is run, and what is done with its outcome at once.

    Attributes
    ----------
    finish
        Called with each outcome where it was computed, several at once, in any order: the place
        to draw and write, since what it returns is all that is kept.
    in_flight
        Studies in work at once. As many finished ones wait, at most, for a slower one before them.
    """

    pipeline: Pipeline
    options: Any
    finish: Callable[[Outcome], T]
    in_flight: int

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise InputError(f"{self.in_flight} studies in flight; it takes one or more")

    def run(self, client: Blocking, sources: Iterable[Source]) -> Generator[T, None, None]:
        """Run in threads; yields in input order what `finish` returns.

        When the iteration is ended, by Ctrl-C for instance, studies in work end, too.
        """
        stop = threading.Event()

        def work(numbered: tuple[int, Source]) -> T:
            index, source = numbered
            start = time.perf_counter()
            result, error = None, None
            with study(index + 1):
                try:
                    result = client.drive(client.study(self.pipeline, source, self.options), stop)
                except Exception as failure:  # noqa: BLE001 - the batch goes on, the outcome tells
                    error = failure
                seconds = time.perf_counter() - start
                return self.finish(Outcome(index, source, result, error, seconds))

        return in_order(work, enumerate(sources), self.in_flight, stop.set)

    def run_async(self, client: AsyncClient, sources: Iterable[Source]) -> AsyncIterator[T]:
        """Run in the event loop; yields in input order what `finish` returns."""

        async def work(numbered: tuple[int, Source]) -> T:
            index, source = numbered
            start = time.perf_counter()
            result, error = None, None
            with study(index + 1):
                try:
                    result = await client.drive(client.study(self.pipeline, source, self.options))
                except Exception as failure:  # noqa: BLE001 - the batch goes on, the outcome tells
                    error = failure
                outcome = Outcome(index, source, result, error, time.perf_counter() - start)
                return await asyncio.to_thread(self.finish, outcome)

        return in_order_async(work, enumerate(sources), self.in_flight)
