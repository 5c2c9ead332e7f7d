"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import tritonclient.grpc.aio

from ..preprocessing.arrays import Array
from . import failures
from .batch import Batch, Outcome, as_it_is, at_once, choose
from .connection import Connection, arguments, connect, counted
from .models import ModelInfo, ModelState, ModelStatistics
from .options import ConnectionOptions
from .pipelines import Pipeline, Source
from .session import Inference
from .steps import Action, Ask, Compute, Each, Rpc, Sleep, Steps, Tell, run_steps_async
from .window import in_order_async

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class AsyncClient(Connection):
    """The same for asyncio: ``await`` its methods, many at once, within one event loop.

    Parameters
    ----------
    url
        ``host:port`` of Triton's gRPC endpoint, or ready options.
    metrics
        Where requests and studies are counted for Prometheus (`hilum.client.metrics`); None for
        nowhere.
    **options
        Fields of `ConnectionOptions`.

    Examples
    --------
    >>> async with AsyncClient("localhost:8001") as client:  # doctest: +SKIP
    ...     answers = await asyncio.gather(*(client.infer(…) for … in …))
    """

    def __init__(
        self,
        url: str | ConnectionOptions = "localhost:8001",
        *,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, metrics=metrics, **options)
        self._stub: tritonclient.grpc.aio.InferenceServerClient | None = None
        self._closing: asyncio.Event | None = None
        self._end = weakref.finalize(self, self.session.transport.abandon)

    def study(self, pipeline: Pipeline, source: Source, options: Any) -> Steps[Any]:
        """The steps of one study, counted where the client has metrics; `drive` runs them."""
        return counted(pipeline, source, options, self.metrics)

    async def drive(self, steps: Steps[T]) -> T:
        """Run steps, those of a pipeline for instance, in this event loop."""
        return await run_steps_async(steps, self._perform)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays, see `Session.infer`."""
        return await self.drive(
            self.session.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    async def run(
        self, system: str, source: Source, *, options: object | None = None, **given: Any
    ) -> Any:
        """Run a system on one study; arguments, result and errors are those of `Client.run`."""
        pipeline, chosen = choose(system, options, given)
        return await self.drive(self.study(pipeline, source, chosen))

    def run_many(
        self,
        system: str,
        sources: Iterable[Source],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        **given: Any,
    ) -> AsyncIterator[Any]:
        """Run a system on many studies, `in_flight` at once, as `Client.run_many` does.

        Parameters
        ----------
        finish
            Called with each `Outcome` in a thread beside the event loop; what it returns is yielded
            in the outcome's place.
        """
        pipeline, chosen = choose(system, options, given)
        return Batch(pipeline, chosen, finish or as_it_is, at_once(pipeline, in_flight)).run_async(
            self, sources
        )

    async def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it."""
        return await self.drive(self.session.model(name))

    async def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        return await self.drive(self.session.models())

    async def repository(self) -> tuple[ModelState, ...]:
        """Every model in the server's repository, with its state."""
        return await self.drive(self.session.repository())

    async def statistics(self, model: str) -> ModelStatistics:
        """What the server counted for a model since it started."""
        return await self.drive(self.session.statistics(model))

    async def describe(self) -> dict[str, str]:
        """Address, name and version of the server, and how tensors travel, for a report."""
        return await self.drive(self.session.describe())

    async def about(self) -> dict[str, Any] | None:
        """What the server says about the weights it serves, None when it says nothing."""
        return await self.drive(self.session.about())

    async def ready(self) -> bool:
        """Whether a Triton server answers and all its models are ready."""
        return await self.drive(self.session.ready())

    async def close(self) -> None:
        """End all requests, give shared memory back, close the connection. May be repeated."""
        if self.session.closed:
            return
        await self.drive(self.session.close())
        if self._closing is not None:
            self._closing.set()
        if self._stub is not None:
            await self._stub.close()
        self._end.detach()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _perform(self, action: Action) -> Any:
        # The channel belongs to the event loop that is running when it is made.
        if self._stub is None or self._closing is None:
            self._stub = connect(tritonclient.grpc.aio.InferenceServerClient, self.options)
            self._closing = asyncio.Event()
        match action:
            case Rpc():
                try:
                    method = getattr(self._stub, action.method)
                    return await method(**arguments(action, self.options))
                except (grpc.aio.UsageError, asyncio.CancelledError) as error:
                    task = asyncio.current_task()
                    if self.session.closed and not (task and task.cancelling()):
                        raise failures.client_closed() from error
                    raise
            case Sleep():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), action.seconds)
                return None
            case Compute():
                return await asyncio.to_thread(action.perform)
            case Ask():
                method = getattr(self.session, action.method)
                return await self.drive(method(*action.arguments, **action.options))
            case Each():
                steps = in_order_async(
                    lambda item: self.drive(action.make(item)), action.items, action.in_flight
                )
                return [result async for result in steps]
            case Tell():
                self.on_progress(action)
                return None
