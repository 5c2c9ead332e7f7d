"""What a client asks of a server, written once for the blocking and the asyncio client.

Everything here is `Steps`: it waits only by yielding, see `hilum.client.steps`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from tritonclient.utils import InferenceServerException

from hilum.catalog import ABOUT
from hilum.catalog.errors import DeadlineExceeded, HilumError
from hilum.preprocessing.arrays import Array

from . import errors as failures
from .models import (
    Inference,
    ModelInfo,
    ModelState,
    ModelStatistics,
    output_specs,
    read_index,
    read_model,
    read_statistics,
)
from .options import ConnectionOptions
from .probe import Listener, identify, unverified
from .retry import Deaths, Outage, pauses
from .steps import Compute, Method, Rpc, Sleep, Steps, Stub
from .trace import span
from .transport import CONTROL_TIMEOUT_S, Answer, Request, Transport, status_of
from .transport.request import checked_input

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")

_DEAD_PART = "DEAD_PART"
"""What `Session` makes of the status of an error that comes from the death of a model's process."""


class Session:
    """The calls of one client, with what they share: outage, transport, known models.

    Thread-safe. Every method but the properties returns `Steps`.
    """

    def __init__(self, options: ConnectionOptions, metrics: Metrics | None = None) -> None:
        self.options = options
        self.metrics = metrics
        self.transport = Transport(options)
        self._outage = Outage(options)
        self._models: dict[str, ModelInfo] = {}
        self._seen: set[str] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Steps[Inference]:
        """Run a model on arrays.

        Parameters
        ----------
        inputs
            Arrays by name, with the element types and shapes of the model; the batch axis
            included where it has one. Arrays on a GPU (CuPy's, or any that speak DLPack) travel
            through CUDA shared memory where the server takes it.
        outputs
            Names of the outputs wanted.
        deadline_s
            Seconds for the answer; the client's own when None.
        output_shapes
            Whole shapes of outputs that the server declares with lengths of -1 and the caller
            knows better; without them such outputs come over gRPC.

        Raises
        ------
        ConnectionFailed
            No server, none that is Triton, or it went away for longer than the retry window.
        DeadlineExceeded
            The server had the request and did not answer in time.
        InferenceFailed
            The server answered with an error; an unknown model and wrong inputs are such.
        """
        steps = self._infer(model, inputs, outputs, deadline_s, output_shapes or {})
        return steps if self.metrics is None else self.metrics.request(model, inputs, steps)

    def _infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        deadline_s: float | None,
        output_shapes: Mapping[str, tuple[int, ...]],
    ) -> Steps[Inference]:
        deadline_s = self.options.deadline_s if deadline_s is None else deadline_s
        inputs = {name: checked_input(model, name, array) for name, array in inputs.items()}
        attempts = 0

        def attempt() -> Steps[Answer]:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and self.metrics is not None:
                self.metrics.retried(model)
            specs: dict[str, tuple[str, tuple[int, ...]]] = {}
            if (yield from self.transport.may_share(inputs)):
                info = yield from self._fetch_model(model)
                specs = output_specs(info, inputs, output_shapes)
            request = Request(model, inputs, tuple(outputs), deadline_s, specs)
            return (yield from self.transport.send(request))

        started = time.perf_counter()
        with span("request", whole=True, model=model):
            answer = yield from self._retried(attempt, model, deadline_s)
        self._seen.add(model)
        return Inference(answer.outputs, answer.transport, time.perf_counter() - started, attempts)

    def model(self, name: str) -> Steps[ModelInfo]:
        """The signature of a model as the server has it; asked once until the server goes away."""
        return (yield from self._retried(lambda: self._fetch_model(name), name))

    def models(self) -> Steps[tuple[str, ...]]:
        """Names of the models that are ready, in alphabetical order."""
        states = yield from self.repository()
        return tuple(sorted({s.name for s in states if s.state == "READY"}))

    def repository(self) -> Steps[tuple[ModelState, ...]]:
        """Every model in the server's repository, with its state."""
        index = yield from self._control(lambda stub: stub.get_model_repository_index)
        return read_index(index)

    def statistics(self, model: str) -> Steps[ModelStatistics]:
        """What the server counted for a model since it started."""
        response = yield from self._control(
            lambda stub: stub.get_inference_statistics, model, model_name=model
        )
        return read_statistics(response)

    def describe(self) -> Steps[dict[str, str]]:
        """Address, name and version of the server, and how tensors travel, for a report."""
        metadata = yield from self._control(lambda stub: stub.get_server_metadata)
        yield from self._retried(self.transport.negotiate)
        return {
            "url": self.options.url,
            "name": metadata.name,
            "version": metadata.version,
            "transport": self.transport.name or "grpc",
            "transport_reason": self.transport.reason,
        }

    def ready(self) -> Steps[bool]:
        """Whether a Triton server answers and all its models are ready; one attempt, no error."""
        if self._closed:
            raise failures.client_closed()
        try:
            ready = yield Rpc(lambda stub: stub.is_server_ready, CONTROL_TIMEOUT_S)
        except InferenceServerException:
            return False
        return bool(ready)

    def about(self) -> Steps[dict[str, Any] | None]:
        """What the server says about its weights (`catalog.ABOUT`), None when it has no such model.

        Returns
        -------
        dict
            Hilum's version and, by model, the parity certificate and the backend that serves it.
        """
        name, output = ABOUT.model, ABOUT.outputs[0].name
        if not (yield from self._control(lambda stub: stub.is_model_ready, name, model_name=name)):
            return None
        query = {ABOUT.inputs[0].name: np.zeros(1, np.uint8)}
        answer = yield from self.infer(name, query, [output], deadline_s=CONTROL_TIMEOUT_S)
        return json.loads(answer.outputs[output].tobytes())

    def close(self) -> Steps[None]:
        """Refuse further calls and give all shared memory back."""
        if not self._closed:
            self._closed = True
            yield from self.transport.close()

    def _control(
        self, method: Callable[[Stub], Method], model: str | None = None, **arguments: str
    ) -> Steps[Any]:
        def attempt() -> Steps[Any]:
            return (yield Rpc(method, CONTROL_TIMEOUT_S, arguments))

        return (yield from self._retried(attempt, model))

    def _fetch_model(self, name: str) -> Steps[ModelInfo]:
        known = self._models.get(name)
        if known is None:
            arguments = {"model_name": name}
            metadata = yield Rpc(lambda stub: stub.get_model_metadata, CONTROL_TIMEOUT_S, arguments)
            config = yield Rpc(lambda stub: stub.get_model_config, CONTROL_TIMEOUT_S, arguments)
            self._outage.seen()
            known = self._models[name] = read_model(metadata, config)
            self._seen.add(name)
        return known

    def _retried(
        self,
        attempt: Callable[[], Steps[T]],
        model: str | None = None,
        deadline_s: float = CONTROL_TIMEOUT_S,
    ) -> Steps[T]:
        first: float | None = None
        deaths = Deaths()
        for pause in pauses(self.options):
            if self._closed:
                raise failures.client_closed()
            try:
                result = yield from attempt()
            except InferenceServerException as error:
                status = yield from self._judge(error, model, deadline_s)
                if status != _DEAD_PART:
                    deaths.other()
                elif deaths.died():
                    detail = error.message() or status
                    url = self.options.url
                    raise failures.kills_parts(url, model, deaths.count, detail) from error
                now = time.monotonic()
                since = self._outage.failed(now)
                first = since if first is None else min(first, since)
                left = first + self._outage.window_s - now
                if left <= 0 and not self._closed:
                    raise (yield from self._given_up(error, status, model, now - first)) from error
                yield Sleep(min(pause, left))
            else:
                self._answered()
                return result
        raise AssertionError("pauses never end")

    def _answered(self) -> None:
        if self._outage.over():
            self._models.clear()  # what came back may be another server

    def _judge(
        self, error: InferenceServerException, model: str | None, deadline_s: float
    ) -> Steps[str]:
        """The status of an error after which the request is sent again; raises any other."""
        if self._closed:
            raise failures.client_closed() from error
        status = status_of(error)
        if failures.is_dead_part(status, error):
            self._outage.seen()
            return _DEAD_PART
        if (yield from self._is_stopping(status, model)):
            return "UNAVAILABLE"
        if failures.is_retried(status, error):
            if status == "UNAVAILABLE" and not self._outage.answered:
                listener = yield from self._identify()
                if listener is not None and listener.is_foreign:
                    raise failures.foreign(self.options, listener) from error
            return status
        raise (yield from self._final(error, status, model, deadline_s)) from error

    def _is_stopping(self, status: str, model: str | None) -> Steps[bool]:
        """Whether an error comes from a server on its way down.

        Triton unloads its models first and answers NOT_FOUND for them on the still open port, then
        ends what is under way with CANCELLED.
        """
        if status == "CANCELLED" or (status == "NOT_FOUND" and model in self._seen):
            return not (yield from self.ready())
        return False

    def _identify(self) -> Steps[Listener | None]:
        endpoint, options = self.options.endpoint, self.options
        if endpoint is None:
            return None
        own = options.tls_client_certificate, options.tls_client_key
        tls = unverified(*own) if options.secure else None
        return cast(Listener, (yield Compute(lambda: identify(*endpoint, tls=tls))))

    def _final(
        self,
        error: InferenceServerException,
        status: str,
        model: str | None,
        deadline_s: float,
    ) -> Steps[HilumError]:
        if status == "DEADLINE_EXCEEDED":
            listener = None
            if not self._outage.answered:
                listener = yield from self._identify()
            if listener in (None, Listener.GRPC, Listener.TLS, Listener.HTTP2_OVER_TLS):
                what = f"model {model!r}" if model else "the server"
                return DeadlineExceeded(
                    f"{what} at {self.options.url} did not answer within {deadline_s:g} s; allow "
                    "more with `deadline_s`, or look at what keeps the server busy"
                )
            return failures.never_answered(self.options, listener, status, deadline_s)
        if status == "UNIMPLEMENTED":
            return failures.not_triton(self.options)
        if status in ("INVALID_ARGUMENT", "NOT_FOUND"):
            self._answered()
        if model is not None:
            self._models.pop(model, None)
        if status == "NOT_FOUND" and model is not None and "unknown model" in error.message():
            try:
                index = yield Rpc(lambda stub: stub.get_model_repository_index, CONTROL_TIMEOUT_S)
            except InferenceServerException:
                return failures.unknown_model(self.options, model, ())
            return failures.unknown_model(self.options, model, read_index(index))
        return failures.refused(self.options, model, status, error)

    def _given_up(
        self, error: InferenceServerException, status: str, model: str | None, waited_s: float
    ) -> Steps[HilumError]:
        detail = (error.message() or status).strip()
        if status == _DEAD_PART:
            return failures.part_stayed_dead(self.options, model, detail, waited_s)
        if status == "RESOURCE_EXHAUSTED":
            return failures.busy(self.options, detail, waited_s)
        if self._outage.answered:
            return failures.went_away(self.options, detail, waited_s)
        listener = yield from self._identify()
        return failures.never_answered(self.options, listener, detail, waited_s)
