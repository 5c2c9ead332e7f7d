"""How tensors travel: inside gRPC messages, or through shared memory where the server takes it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

from ..catalog.errors import ConnectionFailed, InferenceFailed
from . import shared_memory
from .failures import is_restricted
from .options import ConnectionOptions
from .shared_memory import Pool, Region, aligned
from .steps import Compute, Rpc, Sleep, Steps

TransportName = Literal["grpc", "shm"]

CONTROL_TIMEOUT_S = 10.0
"""Time for a call that computes nothing: metadata, readiness, registration of a region."""

_ANSWERED = ("INVALID_ARGUMENT", "NOT_FOUND")
"""Errors with which the server says that it did not start on a request."""

_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""Errors that tell nothing about what was asked."""


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request.

    Attributes
    ----------
    inputs
        Arrays as the model takes them, the batch axis included where it has one.
    output_specs
        Triton's element type and the whole shape of every output whose shape is known beforehand;
        only these can come back through shared memory.
    """

    model: str
    inputs: Mapping[str, NDArray]
    outputs: Sequence[str]
    deadline_s: float
    output_specs: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Output arrays, which are read-only and belong to the caller, and how they travelled."""

    outputs: Mapping[str, NDArray]
    transport: TransportName


def status_of(error: InferenceServerException) -> str:
    """The gRPC status of an error, for instance ``UNAVAILABLE``; empty for one made locally."""
    return str(error.status() or "").removeprefix("StatusCode.")


class Transport:
    """Sends requests one way or the other and knows why. Thread-safe."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._pool = Pool(options.shared_memory_bytes)
        self._lock = threading.Lock()
        self._obstacle: str | None = "it was asked for" if options.transport == "grpc" else None
        self._accepted = False
        self._checked = options.transport == "grpc"

    @property
    def name(self) -> TransportName | None:
        """What was negotiated; None before the first request."""
        if self._obstacle is not None:
            return "grpc"
        return "shm" if self._accepted else None

    @property
    def reason(self) -> str:
        """Why it is what it is, for a report: "shared memory: …" or "gRPC: …"."""
        if self._obstacle is not None:
            return f"gRPC: {self._obstacle}"
        if self._accepted:
            return "shared memory: the server is on this host and opened a region"
        return "not negotiated yet"

    @property
    def regions(self) -> int:
        """How many shared memory regions there are."""
        return len(self._pool)

    def shares_memory(self) -> Steps[bool]:
        """Whether shared memory may be tried, as far as this side can tell."""
        if not self._checked:
            obstacle = yield Compute(self._find_obstacle)
            self._checked = True
            if obstacle is not None:
                self._obstacle = obstacle
        if self._obstacle is not None and self._options.transport == "shm":
            raise ConnectionFailed(
                f"shared memory was asked for but cannot be used: {self._obstacle}; start the "
                "server on this host with access to its /dev/shm (Triton 26.05 and later: "
                "--allow-client-shm=true), or choose the transport 'auto'"
            )
        return self._obstacle is None

    def send(self, request: Request) -> Steps[Answer]:
        """Make one attempt.

        Raises
        ------
        InferenceServerException
            As the server or gRPC reports it.
        ConnectionFailed
            Shared memory was demanded and is not to be had.
        """
        shared = (yield from self.shares_memory()) and _fits_shared_memory(request)
        if shared:
            yield from self._unregister_retired()
            answer = yield from self._send_shared(request)
            if answer is not None:
                return answer
        return (yield from self._send_inline(request))

    def negotiate(self) -> Steps[None]:
        """Find out how tensors will travel, if no request has shown it yet."""
        if (yield from self.shares_memory()) and not self._accepted:
            region = self._pool.acquire(1)
            if region is not None:
                yield from self._settle(region)

    def close(self) -> Steps[None]:
        """Unlink every region and have the server forget them, as far as it still answers."""
        names = self._pool.close()
        for pause in (0.01, 0.03, 0.1, 0.0):
            refused = []
            for name in names:
                try:
                    yield Rpc("unregister_system_shared_memory", 1.0, {"name": name})
                except InferenceServerException as error:
                    if status_of(error) in _AWAY:
                        return
                    refused.append(name)
            if not refused:
                return
            # Triton lets go of a region a moment after it has answered. What a request is still
            # computed for is left to the next client (`_unregister_leftovers`).
            names = refused
            yield Sleep(pause)

    def abandon(self) -> None:
        """Unlink every region without a word to the server, whose next client tells it."""
        self._pool.close()

    def _find_obstacle(self) -> str | None:
        if not shared_memory.is_available():
            return "this system has no /dev/shm"
        if not self._options.is_on_this_host():
            return f"{self._options.url} is not on this host"
        shared_memory.remove_leftovers()
        return None

    def _send_inline(self, request: Request) -> Steps[Answer]:
        inputs = [_inline(name, array) for name, array in request.inputs.items()]
        outputs = [InferRequestedOutput(name) for name in request.outputs]
        result = yield _infer(request, inputs, outputs)
        return Answer({n: _received(result, n) for n in request.outputs}, "grpc")

    def _send_shared(self, request: Request) -> Steps[Answer | None]:
        layout = _Layout.of(request)
        region = self._pool.acquire(layout.size)
        if region is None:  # what made room may have to be unregistered first
            yield from self._unregister_retired()
            region = self._pool.acquire(layout.size)
        if region is None:
            return None
        try:
            if not (region.registered or (yield from self._register(region))):
                self._pool.drop(region)
                return None
            inputs, outputs = layout.describe(request, region)
            try:
                result = yield _infer(request, inputs, outputs)
            except InferenceServerException as error:
                if not _is_forgotten(error, region):
                    raise
                # The server was started anew since; it has to be told of the region again.
                region.registered = False
                if not (yield from self._register(region)):
                    self._pool.drop(region)
                    return None
                result = yield _infer(request, inputs, outputs)
            arrays = layout.collect(request, region, result)
        except BaseException as error:
            if isinstance(error, InferenceServerException) and status_of(error) in _ANSWERED:
                self._pool.release(region)
            else:
                self._pool.drop(region)
            raise
        self._pool.release(region)
        return Answer(arrays, "shm")

    def _settle(self, region: Region) -> Steps[None]:
        try:
            accepted = yield from self._register(region)
        except BaseException:
            self._pool.drop(region)
            raise
        (self._pool.release if accepted else self._pool.drop)(region)

    def _register(self, region: Region) -> Steps[bool]:
        where = {"name": region.name, "key": region.key, "byte_size": region.size}
        region.registered = True  # whatever comes of it, the server may know the name
        try:
            yield Rpc("register_system_shared_memory", CONTROL_TIMEOUT_S, where)
        except InferenceServerException as error:
            if status_of(error) in _AWAY and not is_restricted(error):
                raise
            if status_of(error) != "ALREADY_EXISTS":
                region.registered = False
                self._obstacle = f"the server does not take shared memory: {error.message()}"
                return (yield from self.shares_memory())
        with self._lock:
            first, self._accepted = not self._accepted, True
        if first:
            yield from self._unregister_leftovers()
        return True

    def _unregister_leftovers(self) -> Steps[None]:
        """Have the server forget the regions of clients that died.

        Only called once a region was accepted: the server then has the same ``/dev/shm`` as we,
        and a region whose file is not there is nobody's.
        """
        try:
            status = yield Rpc("get_system_shared_memory_status", CONTROL_TIMEOUT_S)
            for name in shared_memory.ownerless(status.regions):
                yield Rpc("unregister_system_shared_memory", CONTROL_TIMEOUT_S, {"name": name})
        except InferenceServerException as error:
            shared_memory.logger.debug("leftovers stay registered: %s", error.message())

    def _unregister_retired(self) -> Steps[None]:
        for name, size in self._pool.take_retired().items():
            try:
                yield Rpc("unregister_system_shared_memory", 1.0, {"name": name})
            except InferenceServerException:
                self._pool.keep_retired(name, size)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the tensors of one request lie in a region."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, request: Request) -> _Layout:
        inputs: dict[str, int] = {}
        outputs: dict[str, int] = {}
        end = 0
        for name, array in request.inputs.items():
            inputs[name] = end
            end += aligned(array.nbytes)
        for name in request.outputs:
            size = _byte_size(*request.output_specs.get(name, ("UINT8", (0,))))
            if size > 0:
                outputs[name] = end
                end += aligned(size)
        return cls(inputs, outputs, end)

    def describe(
        self, request: Request, region: Region
    ) -> tuple[list[InferInput], list[InferRequestedOutput]]:
        """Write the inputs; return what tells the server where everything is."""
        inputs, outputs = [], []
        for name, array in request.inputs.items():
            offset = self.inputs[name]
            np.copyto(region.array(offset, array.shape, array.dtype), array)
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_shared_memory(region.name, array.nbytes, offset)
            inputs.append(tensor)
        for name in request.outputs:
            wanted = InferRequestedOutput(name)
            if name in self.outputs:
                size = _byte_size(*request.output_specs[name])
                wanted.set_shared_memory(region.name, size, self.outputs[name])
            outputs.append(wanted)
        return inputs, outputs

    def collect(self, request: Request, region: Region, result: Any) -> dict[str, NDArray]:
        """Copy the outputs out of the region; the response says what shape they really have."""
        arrays = {}
        for name in request.outputs:
            if name not in self.outputs:
                arrays[name] = _received(result, name)
                continue
            told = result.get_output(name)
            shape, dtype = tuple(told.shape), np.dtype(triton_to_np_dtype(told.datatype))
            room = _byte_size(*request.output_specs[name])
            if prod(shape) * dtype.itemsize > room:
                raise InferenceFailed(
                    f"model {request.model}: output {name!r} came as {told.datatype} "
                    f"{list(shape)}, more than the {room} bytes it was given; the server's model "
                    "is not the one that was described"
                )
            arrays[name] = region.array(self.outputs[name], shape, dtype).copy()
            arrays[name].flags.writeable = False
        return arrays


def _byte_size(dtype: str, shape: tuple[int, ...]) -> int:
    return prod(shape) * np.dtype(triton_to_np_dtype(dtype)).itemsize


def _fits_shared_memory(request: Request) -> bool:
    # Strings have no fixed size, and Triton takes no empty range of a region.
    return all(a.nbytes > 0 and a.dtype.kind not in "OSU" for a in request.inputs.values())


def _is_forgotten(error: InferenceServerException, region: Region) -> bool:
    message = error.message()
    return "Unable to find shared memory region" in message and region.name in message


def _infer(request: Request, inputs: list[InferInput], outputs: list[InferRequestedOutput]) -> Rpc:
    arguments = {"model_name": request.model, "inputs": inputs, "outputs": outputs}
    return Rpc("infer", request.deadline_s, arguments)


def _inline(name: str, array: NDArray) -> InferInput:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def _received(result: Any, name: str) -> NDArray:
    array = result.as_numpy(name)
    if array is None:
        raise InferenceFailed(f"the server's answer has no output {name!r}")
    array.flags.writeable = False
    return array
