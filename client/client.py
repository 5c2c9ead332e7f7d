"""The two clients: one that blocks, for threads, and one for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import tritonclient.grpc
import tritonclient.grpc.aio

from ..catalog.errors import ConnectionFailed
from ..preprocessing.arrays import Array
from . import failures
from .batch import Batch, Outcome, at_once, choose
from .models import ModelInfo, ModelState, ModelStatistics
from .options import ConnectionOptions
from .pipelines import Pipeline, Source
from .session import Inference, Session
from .steps import (
    Action,
    Ask,
    Compute,
    Each,
    Rpc,
    Sleep,
    Steps,
    Tell,
    run_steps,
    run_steps_async,
)
from .transport import TransportName
from .window import in_order, in_order_async

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class _Common:
    """What both clients have: options, calls and what they tell without asking the server."""

    def __init__(
        self,
        url: str | ConnectionOptions = "localhost:8001",
        *,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        given = url if isinstance(url, ConnectionOptions) else ConnectionOptions(url)
        self.options = dataclasses.replace(given, **options)
        self.session = Session(self.options, metrics)
        self.on_progress: Callable[[Tell], None] = lambda _told: None
        """Called with what studies tell of their progress, from several threads."""

    @property
    def transport(self) -> TransportName | None:
        """How tensors travel, as negotiated; None before the first request."""
        return self.session.transport.name

    @property
    def transport_reason(self) -> str:
        """Why tensors travel the way they do, in words for a report."""
        return self.session.transport.reason

    def study(self, pipeline: Pipeline, source: Source, options: Any) -> Steps[Any]:
        """The steps of one study, counted where the client has metrics; `drive` runs them."""
        steps = pipeline.study(source, options)
        metrics = self.session.metrics
        return steps if metrics is None else metrics.study(pipeline.system.name, steps)

    def __repr__(self) -> str:
        state = "closed" if self.session.closed else self.transport or "not connected"
        return f"<{type(self).__name__} {self.options.url} ({state})>"


class Client(_Common):
    """A client that blocks. Many threads may use one at once.

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
    >>> with Client("localhost:8001", deadline_s=30) as client:  # doctest: +SKIP
    ...     answer = client.infer("cxr_lung", {"image": pixels}, ["lung"])
    ...     mask = answer.outputs["lung"]
    """

    def __init__(
        self,
        url: str | ConnectionOptions = "localhost:8001",
        *,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, metrics=metrics, **options)
        self._closing = threading.Event()
        self._stub = _connect(tritonclient.grpc.InferenceServerClient, self.options)
        # Also runs when the interpreter ends, while RPCs still work.
        self._end = weakref.finalize(self, _shut, self.session, self._stub, self._closing)

    def drive(self, steps: Steps[T], stop: threading.Event | None = None) -> T:
        """Run steps, those of a pipeline for instance, in this thread.

        Parameters
        ----------
        stop
            Once it is set the steps end with `CancelledError` at their next action.
        """

        def perform(action: Action) -> Any:
            if stop is not None and stop.is_set():
                raise CancelledError
            return self._perform(action)

        return run_steps(steps, perform)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays, see `Session.infer`."""
        return self.drive(
            self.session.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    def run(
        self, system: str, source: Source, *, options: object | None = None, **given: Any
    ) -> Any:
        """Run a system on one study.

        Parameters
        ----------
        system
            Its name, for instance ``"cxr-severity"``.
        source
            A file or folder, the bytes of a file, or an array.
        options
            The pipeline's options as an object, instead of keywords.
        **given
            Fields of the pipeline's options, for instance ``network="pspnet"``.

        Returns
        -------
        The result type of the system's pipeline, for instance `CxrResult`.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """
        pipeline, chosen = choose(system, options, given)
        return self.drive(self.study(pipeline, source, chosen))

    def run_many(
        self,
        system: str,
        sources: Iterable[Source],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        **given: Any,
    ) -> Generator[Any, None, None]:
        """Run a system on many studies, `in_flight` at once; yields outcomes in input order.

        A study that fails is an outcome with an error; the batch goes on. Memory is bounded by
        `in_flight`, however many studies there are.

        Parameters
        ----------
        in_flight
            None: 4, or fewer where one study takes gigabytes (`dlpe`).
        finish
            Called with each `Outcome` in the thread that computed it; what it returns is yielded
            in the outcome's place.
        """
        pipeline, chosen = choose(system, options, given)
        return Batch(pipeline, chosen, finish or _as_is, at_once(pipeline, in_flight)).run(
            self, sources
        )

    def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it."""
        return self.drive(self.session.model(name))

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        return self.drive(self.session.models())

    def repository(self) -> tuple[ModelState, ...]:
        """Every model in the server's repository, with its state."""
        return self.drive(self.session.repository())

    def statistics(self, model: str) -> ModelStatistics:
        """What the server counted for a model since it started."""
        return self.drive(self.session.statistics(model))

    def describe(self) -> dict[str, str]:
        """Address, name and version of the server, and how tensors travel, for a report."""
        return self.drive(self.session.describe())

    def about(self) -> dict[str, Any] | None:
        """What the server says about the weights it serves, None when it says nothing."""
        return self.drive(self.session.about())

    def ready(self) -> bool:
        """Whether a Triton server answers and all its models are ready."""
        return self.drive(self.session.ready())

    def close(self) -> None:
        """End all requests, give shared memory back, close the connection. May be repeated."""
        self._end()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _perform(self, action: Action) -> Any:
        match action:
            case Rpc():
                try:
                    return getattr(self._stub, action.method)(**_arguments(action, self.options))
                except ValueError as error:
                    if self.session.closed:
                        raise failures.client_closed() from error
                    raise
            case Sleep():
                self._closing.wait(action.seconds)
                return None
            case Compute():
                return action.perform()
            case Ask():
                method = getattr(self.session, action.method)
                return self.drive(method(*action.arguments, **action.options))
            case Each():
                steps = in_order(
                    lambda item: self.drive(action.make(item)), action.items, action.in_flight
                )
                return list(steps)
            case Tell():
                self.on_progress(action)
                return None


class AsyncClient(_Common):
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
        """Run a system on one study.

        Parameters
        ----------
        system
            Its name, for instance ``"cxr-severity"``.
        source
            A file or folder, the bytes of a file, or an array.
        options
            The pipeline's options as an object, instead of keywords.
        **given
            Fields of the pipeline's options, for instance ``network="pspnet"``.

        Returns
        -------
        The result type of the system's pipeline, for instance `CxrResult`.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """
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
        """Run a system on many studies, `in_flight` at once; yields outcomes in input order.

        A study that fails is an outcome with an error; the batch goes on. Memory is bounded by
        `in_flight`, however many studies there are.

        Parameters
        ----------
        in_flight
            None: 4, or fewer where one study takes gigabytes (`dlpe`).
        finish
            Called with each `Outcome` in a thread beside the event loop; what it returns is yielded
            in the outcome's place.
        """
        pipeline, chosen = choose(system, options, given)
        return Batch(pipeline, chosen, finish or _as_is, at_once(pipeline, in_flight)).run_async(
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
            self._stub = _connect(tritonclient.grpc.aio.InferenceServerClient, self.options)
            self._closing = asyncio.Event()
        match action:
            case Rpc():
                try:
                    method = getattr(self._stub, action.method)
                    return await method(**_arguments(action, self.options))
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


def _as_is(outcome: Outcome) -> Outcome:
    return outcome


def _connect(kind: type[T], options: ConnectionOptions) -> T:
    make: Any = kind
    return make(
        options.url,
        creds=_credentials(options) if options.secure else None,
        channel_args=options.channel_arguments(),
    )


def _credentials(options: ConnectionOptions) -> grpc.ChannelCredentials:
    def read(file: Path | str | None) -> bytes | None:
        return None if file is None else Path(file).read_bytes()

    try:
        return grpc.ssl_channel_credentials(
            root_certificates=read(options.tls_root_certificates),
            private_key=read(options.tls_client_key),
            certificate_chain=read(options.tls_client_certificate),
        )
    except OSError as error:
        raise ConnectionFailed(f"cannot read a certificate or key: {error}") from error


def _arguments(rpc: Rpc, options: ConnectionOptions) -> dict[str, Any]:
    return {
        **rpc.arguments,
        "headers": dict(options.metadata),
        "client_timeout": rpc.timeout_s,
    }


def _shut(
    session: Session, stub: tritonclient.grpc.InferenceServerClient, closing: threading.Event
) -> None:
    def perform(action: Action) -> Any:
        if isinstance(action, Rpc):
            return getattr(stub, action.method)(**_arguments(action, session.options))
        assert isinstance(action, Sleep)  # noqa: S101 - closing computes nothing
        time.sleep(action.seconds)
        return None

    try:
        run_steps(session.close(), perform)
    finally:
        closing.set()
        stub.close()
