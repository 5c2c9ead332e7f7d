"""How tensors travel: inside gRPC messages, or through shared memory where the server takes it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping

from tritonclient.grpc import InferInput, InferRequestedOutput

from hilum.preprocessing.arrays import Array

from ..options import ConnectionOptions
from ..steps import Compute, Steps
from ..trace import span
from .channel import Sharing
from .cuda import CudaMemory, device_of, on_host
from .request import CONTROL_TIMEOUT_S, Answer, Request, TransportName, inline, received, status_of
from .system import SystemMemory

_ASKED_FOR = "it was asked for"


class Transport:
    """Sends requests one way or the other and knows why. Thread-safe.

    Arrays on a GPU go through CUDA shared memory, or else to the host; arrays on the host through
    system shared memory, or else inside the message.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._system = Sharing(SystemMemory(), options)
        if options.transport == "grpc":
            self._system.obstacle = _ASKED_FOR
        self._devices: dict[int, Sharing] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> TransportName | None:
        """The best way that was negotiated; None before the first request."""
        if any(sharing.accepted for sharing in self._devices.values()):
            return "cuda"
        if self._system.obstacle is not None:
            return "grpc"
        return "shm" if self._system.accepted else None

    @property
    def reason(self) -> str:
        """Why it is what it is, for a report: "shared memory: …" or "gRPC: …"."""
        reasons = []
        for gpu, sharing in sorted(self._devices.items()):
            if sharing.accepted:
                reasons.append(f"CUDA shared memory: the server opened memory of GPU {gpu}")
            elif sharing.obstacle is not None:
                reasons.append(f"no CUDA shared memory of GPU {gpu}: {sharing.obstacle}")
        if self._system.obstacle is not None:
            reasons.append(f"gRPC: {self._system.obstacle}")
        elif self._system.accepted:
            reasons.append("shared memory: the server is on this host and opened a region")
        return "; ".join(reasons) or "not negotiated yet"

    @property
    def regions(self) -> int:
        """How many shared memory regions there are."""
        return len(self._system) + sum(map(len, self._devices.values()))

    def may_share(self, inputs: Mapping[str, Array]) -> Steps[bool]:
        """Whether shared memory may be tried for these inputs, as far as this side knows."""
        sharing = self._on_device(inputs)
        if sharing is not None and (yield from sharing.usable()):
            return True
        return (yield from self._shares_system())

    def send(self, request: Request) -> Steps[Answer]:
        """Make one attempt.

        Raises
        ------
        InferenceServerException
            As the server or gRPC reports it.
        ConnectionFailed
            Shared memory was demanded and is not to be had.
        """
        sharing = self._on_device(request.inputs)
        if sharing is not None:
            answer = yield from sharing.attempt(request)
            if answer is not None:
                return answer
        if sharing is not None or device_of(request.inputs) is not None:
            inputs = yield Compute(lambda: on_host(request.inputs))
            request = dataclasses.replace(request, inputs=inputs)
        if (yield from self._shares_system()):
            answer = yield from self._system.attempt(request)
            if answer is not None:
                return answer
        return (yield from self._send_inline(request))

    def negotiate(self) -> Steps[None]:
        """Find out how tensors on the host will travel, if no request has shown it yet."""
        if (yield from self._shares_system()):
            yield from self._system.negotiate()

    def close(self) -> Steps[None]:
        """Give all shared memory back and have the server forget it, as far as it answers."""
        for sharing in (self._system, *self._devices.values()):
            yield from sharing.close()

    def abandon(self) -> None:
        """Give all shared memory back without a word to the server; its next client says so."""
        for sharing in (self._system, *self._devices.values()):
            sharing.abandon()

    def _shares_system(self) -> Steps[bool]:
        if self._system.obstacle is _ASKED_FOR:
            return False
        return (yield from self._system.usable())

    def _on_device(self, inputs: Mapping[str, Array]) -> Sharing | None:
        """The sharing of the GPU on which inputs lie; None for the host, and where not wanted."""
        gpu = device_of(inputs)
        if gpu is None or self._options.transport not in ("auto", "cuda"):
            return None
        with self._lock:
            if gpu not in self._devices:
                self._devices[gpu] = Sharing(CudaMemory(gpu), self._options)
            return self._devices[gpu]

    def _send_inline(self, request: Request) -> Steps[Answer]:
        size = sum(array.nbytes for array in request.inputs.values())
        inputs, outputs = yield Compute(lambda: _encoded(request), size)
        with span("wait", transport="grpc"):
            result = yield request.rpc(inputs, outputs)
        with span("decode", transport="grpc"):  # views of the message: nothing is copied
            return Answer({n: received(result, n) for n in request.outputs}, "grpc")


def _encoded(request: Request) -> tuple[list[InferInput], list[InferRequestedOutput]]:
    with span("encode", transport="grpc"):
        inputs = [inline(name, array) for name, array in request.inputs.items()]
        return inputs, [InferRequestedOutput(name) for name in request.outputs]


__all__ = [
    "CONTROL_TIMEOUT_S",
    "Answer",
    "Request",
    "Transport",
    "TransportName",
    "status_of",
]
