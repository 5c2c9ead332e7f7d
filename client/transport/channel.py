"""Requests through one kind of shared memory: tried, taken or refused by the server, cleaned up."""

from __future__ import annotations

import threading
from typing import Any

from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import ConnectionFailed

from ..errors import is_restricted
from ..options import ConnectionOptions
from ..steps import Compute, Rpc, Sleep, Steps
from ..trace import span
from . import system as shared_memory
from .regions import Memory, Pool, Region
from .request import CONTROL_TIMEOUT_S, Answer, Layout, Request, status_of

_ANSWERED = ("INVALID_ARGUMENT", "NOT_FOUND")
"""Errors with which the server says that it did not start on a request."""

_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""Errors that say nothing about what was asked."""

_REMEDIES = {
    "shm": "start the server on this host with access to its /dev/shm (Triton 26.05 and later: "
    "--allow-client-shm=true)",
    "cuda": "start the server on this host, with the same GPUs as this process and built for CUDA "
    "(Triton 26.05 and later: --allow-client-shm=true)",
}


class Sharing:
    """The regions of one client in one kind of memory, and what the server made of them.

    Thread-safe.

    Attributes
    ----------
    memory
        The kind.
    obstacle
        Why it is not used; None while it is, or may be.
    accepted
        Whether the server has opened a region.
    """

    def __init__(self, memory: Memory, options: ConnectionOptions) -> None:
        self.memory = memory
        self.obstacle: str | None = None
        self.accepted = False
        self._options = options
        self._demanded = options.transport == memory.name
        self._checked = False
        self._pool = Pool(memory, options.shared_memory_bytes)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many regions there are."""
        return len(self._pool)

    def usable(self) -> Steps[bool]:
        """Whether it may be tried, as far as this side knows.

        Raises
        ------
        ConnectionFailed
            When it was demanded and is not to be had.
        """
        if not self._checked:
            obstacle = yield Compute(self._find_obstacle)
            self._checked = True
            if obstacle is not None:
                self.obstacle = obstacle
        if self.obstacle is not None and self._demanded:
            raise ConnectionFailed(
                f"{self.memory.noun} was asked for but cannot be used: {self.obstacle}; "
                f"{_REMEDIES[self.memory.name]}, or choose the transport 'auto'"
            )
        return self.obstacle is None

    def attempt(self, request: Request) -> Steps[Answer | None]:
        """Send a request this way; None when it has to go another way.

        Raises
        ------
        InferenceServerException
            As the server or gRPC reports it.
        ConnectionFailed
            As `usable`.
        """
        if not ((yield from self.usable()) and request.fits_shared_memory):
            return None
        yield from self._unregister_retired()
        layout = Layout.of(request)
        region: Region | None = yield self._acquire(layout.size)
        if region is None:  # what made room may have to be unregistered first
            yield from self._unregister_retired()
            region = yield self._acquire(layout.size)
        if region is None:
            return None
        try:
            answer = yield from self._send(request, layout, region)
        except BaseException as error:
            if isinstance(error, InferenceServerException) and status_of(error) in _ANSWERED:
                self._pool.release(region)
            else:
                self._pool.drop(region)
            raise
        (self._pool.drop if answer is None else self._pool.release)(region)
        return answer

    def negotiate(self) -> Steps[None]:
        """Have the server open a region, if none has been yet."""
        if not ((yield from self.usable()) and not self.accepted):
            return
        region = self._pool.acquire(1)
        if region is None:
            return
        try:
            accepted = yield from self._register(region)
        except BaseException:
            self._pool.drop(region)
            raise
        (self._pool.release if accepted else self._pool.drop)(region)

    def close(self) -> Steps[None]:
        """Give every region up and have the server forget them, as far as it still answers."""
        regions = self._pool.close()
        for pause in (0.01, 0.03, 0.1, 0.0):
            refused = []
            for region in regions:
                try:
                    yield self._unregister(region.name, 1.0)
                except InferenceServerException as error:
                    if status_of(error) in _AWAY:
                        return
                    refused.append(region)
                else:
                    region.free()
            if not refused:
                return
            # Triton lets go of a region a moment after it has answered. What a request is still
            # computed for is left to the next client (`_unregister_leftovers`).
            regions = refused
            yield Sleep(pause)

    def abandon(self) -> None:
        """Give every region up without a word to the server; its next client says so."""
        self._pool.close()

    def _acquire(self, size: int) -> Compute:
        """Take a region; a new and large one takes its pages, which takes time."""
        return Compute(lambda: self._pool.acquire(size), size)

    def _find_obstacle(self) -> str | None:
        obstacle = self.memory.obstacle()
        if obstacle is None and not self._options.is_on_this_host():
            obstacle = f"{self._options.url} is not on this host"
        if obstacle is None:
            shared_memory.remove_leftovers()
        return obstacle

    def _send(self, request: Request, layout: Layout, region: Region) -> Steps[Answer | None]:
        if not (region.registered or (yield from self._register(region))):
            return None
        way = self.memory.name
        inputs, outputs = yield Compute(lambda: self._encoded(request, layout, region), layout.size)
        try:
            with span("wait", transport=way):
                result = yield request.rpc(inputs, outputs)
        except InferenceServerException as error:
            if not _is_forgotten(error, region):
                raise
            # The server was restarted since, and has to open the region again.
            region.registered = False
            if not (yield from self._register(region)):
                return None
            with span("wait", transport=way):
                result = yield request.rpc(inputs, outputs)
        return (yield Compute(lambda: self._decoded(request, layout, region, result), layout.size))

    def _encoded(
        self, request: Request, layout: Layout, region: Region
    ) -> tuple[list[InferInput], list[InferRequestedOutput]]:
        with span("encode", transport=self.memory.name):
            return layout.describe(request, region)

    def _decoded(self, request: Request, layout: Layout, region: Region, result: Any) -> Answer:
        with span("decode", transport=self.memory.name):
            return Answer(layout.collect(request, region, result), self.memory.name)

    def _register(self, region: Region) -> Steps[bool]:
        region.registered = True  # whatever comes of it, the server may know the name
        try:
            yield Rpc(self.memory.register, CONTROL_TIMEOUT_S, region.registration())
        except InferenceServerException as error:
            if status_of(error) in _AWAY and not is_restricted(error):
                raise
            if status_of(error) != "ALREADY_EXISTS":
                region.registered = False
                self.obstacle = f"the server does not take {self.memory.noun}: {error.message()}"
                return (yield from self.usable())
        with self._lock:
            first, self.accepted = not self.accepted, True
        if first:
            yield from self._unregister_leftovers()
        return True

    def _unregister_leftovers(self) -> Steps[None]:
        """Have the server forget the regions of clients that died.

        Only called once a region was accepted: for system shared memory the server then has the
        same ``/dev/shm`` as we, and a region whose file is not there is nobody's.
        """
        try:
            status = yield Rpc(self.memory.status, CONTROL_TIMEOUT_S)
            for name in self.memory.ownerless(status.regions):
                yield self._unregister(name, CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            shared_memory.logger.debug("leftovers stay registered: %s", error.message())

    def _unregister_retired(self) -> Steps[None]:
        for region in self._pool.take_retired():
            try:
                yield self._unregister(region.name, 1.0)
            except InferenceServerException:
                self._pool.keep_retired(region)
            else:
                region.free()

    def _unregister(self, name: str, timeout_s: float) -> Rpc:
        return Rpc(self.memory.unregister, timeout_s, {"name": name})


def _is_forgotten(error: InferenceServerException, region: Region) -> bool:
    message = error.message()
    return "Unable to find shared memory region" in message and region.name in message
