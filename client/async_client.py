"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import tritonclient.grpc.aio

from hilum.catalog.errors import InputError
from hilum.preprocessing.arrays import Array

from . import errors as failures
from .batch import Batch, identity, run_study
from .calls import Calls
from .concurrent import in_order_async
from .connection import Connection, arguments, connect
from .models import Inference, ModelInfo, ModelState, ModelStatistics
from .options import ConnectionOptions
from .protocols import AnySystem, Outcome
from .registry import resolve
from .steps import Action, Compute, Rpc, Sleep, Steps, run_steps, run_steps_async

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

    async def drive(self, steps: Steps[T]) -> T:
        """Run steps of the wire in this event loop.

        Parameters
        ----------
        steps
            What to send and wait for, see `hilum.client.steps`.

        Returns
        -------
        T
            What the steps return.
        """
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
        """Run a model on arrays.

        Parameters
        ----------
        model
            Name of the Triton model.
        inputs
            Arrays by name, with the model's element types and shapes; with the batch axis where it
            has one. Arrays on a GPU travel through CUDA shared memory where the server takes it.
        outputs
            Names of the outputs that are wanted.
        deadline_s
            Seconds for the answer; None for the connection's own.
        output_shapes
            Whole shapes of outputs that the server declares with lengths of -1 and the caller
            knows; without them such outputs come over gRPC.

        Raises
        ------
        ConnectionFailed
            No server, none that is Triton, or it went away for longer than the retry window.
        DeadlineExceeded
            The server had the request and did not answer in time.
        InferenceFailed
            The server answered with an error; an unknown model and wrong inputs are such.
        """
        return await self.drive(
            self.session.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    async def run(
        self,
        system: str | AnySystem,
        study: Any,
        *,
        options: object | None = None,
        **given: Any,
    ) -> Any:
        """Run a system on one study, as `Client.run` does.

        The study has a thread of its own; when the task is cancelled, it ends at its next call.

        Parameters
        ----------
        system
            Its name, for instance ``"cxr-severity"``, or a system object.
        study
            A file or folder, the bytes of a file, an array, or what else the system takes.
        options
            The system's options as an object, instead of keywords.
        **given
            Fields of the system's options, and for an array of a CT ``spacing`` or ``affine``.

        Returns
        -------
        Result
            Of the system's own type, for instance `CxrResult`.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """
        found, chosen, placed = resolve(system, options, given)
        return await in_thread(
            self, lambda calls: run_study(found, placed(study), chosen, calls, self.metrics)
        )

    def run_many(
        self,
        system: str | AnySystem,
        studies: Iterable[Any],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        **given: Any,
    ) -> AsyncIterator[Any]:
        """Run a system on many studies, `in_flight` at once, as `Client.run_many` does.

        Parameters
        ----------
        system
            Its name, or a system object.
        studies
            The studies, which may be lazy.
        in_flight
            None: as many as suit the system.
        finish
            Called with each `Outcome` in the thread that computed it; what it returns is yielded
            in the outcome's place.
        options
            The system's options as an object, instead of keywords.
        **given
            Fields of the system's options, and for arrays of a CT ``spacing`` or ``affine``.
        """
        found, chosen, placed = resolve(system, options, given)
        at_once = found.studies_in_flight if in_flight is None else in_flight
        batch = Batch(found, chosen, finish or identity, at_once, self.metrics)
        return in_order_async(
            lambda numbered: in_thread(self, lambda calls: batch.run(*numbered, calls)),
            enumerate(map(placed, studies)),
            at_once,
        )

    async def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it.

        Parameters
        ----------
        name
            Name of the Triton model.
        """
        return await self.drive(self.session.model(name))

    async def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        return await self.drive(self.session.models())

    async def repository(self) -> tuple[ModelState, ...]:
        """Every model in the server's repository, with its state."""
        return await self.drive(self.session.repository())

    async def statistics(self, model: str) -> ModelStatistics:
        """What the server counted for a model since it started.

        Parameters
        ----------
        model
            Name of the Triton model.
        """
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
                    return await action.method(self._stub)(**arguments(action, self.options))
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
                if action.is_short:
                    return action.function()
                return await asyncio.to_thread(action.function)


async def in_thread(client: AsyncClient, function: Callable[[Calls], T]) -> T:
    """Call a function that waits in a thread of its own; what it asks goes through the event loop.

    When the task is cancelled, the thread's requests are, and it ends at its next call.
    """
    server = _FromThread(client, asyncio.get_running_loop())
    calls = Calls(server, lambda progress: client.on_progress(progress), server.stop)
    thread = ThreadPoolExecutor(1, thread_name_prefix="hilum-study")
    work = asyncio.wrap_future(thread.submit(copy_context().run, function, calls))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        server.end()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # it says no more than that the study ended
        raise
    finally:
        thread.shutdown(wait=False)


class _FromThread:
    """The server as a study's threads see it: copies are made there, RPCs in the event loop."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = threading.Event()
        self._client, self._loop = client, loop
        self._waiting: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def end(self) -> None:
        """End the study: cancel what it waits for."""
        with self._lock:
            self.stop.set()
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays."""
        session = self._client.session
        return self._drive(
            session.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    def model(self, name: str) -> ModelInfo:
        """The signature of a model."""
        return self._drive(self._client.session.model(name))

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        return self._drive(self._client.session.models())

    def about(self) -> dict[str, Any] | None:
        """What is known of the weights that are served."""
        return self._drive(self._client.session.about())

    def _drive(self, steps: Steps[T]) -> T:
        return run_steps(steps, self._perform)

    def _refuse_loop(self) -> None:
        """Refuse what would wait for ever: the loop is at an end, or is what waits."""
        try:
            waits = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            waits = False
        if waits or self._loop.is_closed():
            raise InputError(
                "the event loop of this client cannot answer: call what waits in a thread of its "
                "own while the client is open (await asyncio.to_thread(...))"
            )

    def _perform(self, action: Action) -> Any:
        if isinstance(action, Compute):
            return action.function()
        self._refuse_loop()
        with self._lock:
            if self.stop.is_set():
                raise CancelledError
            future = asyncio.run_coroutine_threadsafe(self._client._perform(action), self._loop)
            self._waiting.add(future)
        try:
            return future.result()
        finally:
            with self._lock:
                self._waiting.discard(future)
