"""Whether a server answers, whether it is the one that was meant, and whether its models live."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .questions import Questions


def answers_as(url: str, name: str, timeout: float = 2.0) -> bool:
    """Whether the server at `url` is ready and calls itself `name`.

    The name distinguishes it from another server that took the port first.
    """
    host, _, port = url.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError:
        return False  # still loading: the port is bound when all models are ready
    with grpc.insecure_channel(url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            metadata = stub.ServerMetadata(_message("ServerMetadataRequest"), timeout=timeout)
            ready = stub.ServerReady(_message("ServerReadyRequest"), timeout=timeout)
        except grpc.RpcError:
            return False
    return metadata.name == name and ready.ready


class Probe:
    """Asks a server from time to time, in a thread, whether it and its models are well.

    Triton answers for a model from its own state; newer versions call the model's ``is_ready``. An
    answer of "not ready" is believed at once, silence of the server only after a while, as a
    machine may be busy, and that of a model not at all, as it may be: that is for `Questions`.
    Models whose process died are noticed by the supervisor at once.

    Parameters
    ----------
    models
        Every model that has to be ready.
    asked
        Those of them that get `Questions`.
    pid
        Process id of the server, which must be one of this machine where models are asked.

    Attributes
    ----------
    failure
        What is wrong, in words that complete "the server …"; None as long as all is well.
    """

    every_s: float = 2.0
    answer_s: float = 5.0
    silences: int = 4

    def __init__(
        self, url: str, models: Sequence[str], asked: Sequence[str] = (), pid: int = 0
    ) -> None:
        self.failure: str | None = None
        self._url, self._models, self._to_ask, self._pid = url, models, asked, pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="hilum-probe", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(1.0)  # it may wait for a server that says nothing

    def _ask(self) -> None:
        silent = 0
        with grpc.insecure_channel(self._url, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            questions = Questions(stub, self._to_ask, self._pid)
            while not self._ended.wait(self.every_s):
                try:
                    self.failure = self._obstacle(stub) or questions.look(self.answer_s)
                    silent = 0
                except grpc.RpcError:
                    silent += 1
                    if silent == self.silences:
                        self.failure = "did not answer any more"
                if self.failure is not None:
                    break
            questions.close()

    def _obstacle(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> str | None:
        if not stub.ServerReady(_message("ServerReadyRequest"), timeout=self.answer_s).ready:
            return "is not ready any more"
        for model in self._models:
            asked = _message("ModelReadyRequest", name=model)
            try:
                ready = stub.ModelReady(asked, timeout=self.answer_s).ready
            except grpc.RpcError as silence:
                if silence.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue  # its ``is_ready`` may wait for a request that takes long
                raise
            if not ready:
                return f"says that its model {model!r} is not ready any more"
        return None


def _message(kind: str, **fields: str) -> object:
    return getattr(service_pb2, kind)(**fields)
