"""Tiny requests to Triton's Python models, to see that their processes still answer.

Triton knows whether a process is there, not whether it ever comes back from what it does. A model
that is asked may be busy with somebody's request for minutes, and the question waits behind it; so
silence counts only while the model's processes compute nothing either.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import triton_to_np_dtype

from .model_config import backend_of, read_config
from .stubs import QUESTION, cpu_seconds

_STEP = b"python_step"
"""In the code of a model that is one of Hilum's steps."""

_COMPUTES_S = 0.1
"""Seconds of processor time by which a model shows that it works: idle processes take a hundredth
of it in the time that a model may be quiet."""

_BYTES = 4 * 2**20
"""After so many bytes at one look the other models wait for the next one."""

_DEAD = "is not healthy"
"""In Triton's answer for a model whose process is gone."""


def askable(
    repository: Path, models: Iterable[str], *, own_backends: Collection[str]
) -> tuple[str, ...]:
    """The models that answer a `QUESTION`: Hilum's steps, and networks that its backend runs.

    Other Python models would take it for a request.

    Parameters
    ----------
    repository
        The staged repository.
    own_backends
        Backends of Hilum's that run networks in Python.
    """
    found: list[str] = []
    for model in models:
        backend = backend_of(read_config(repository / model / "config.pbtxt"))
        codes = (repository / model).glob("*/model.py")
        ours = backend in own_backends
        if ours or (backend == "python" and any(_STEP in code.read_bytes() for code in codes)):
            found.append(model)
    return tuple(found)


@dataclass(slots=True)
class _Asked:
    """A question without an answer as yet."""

    future: Any
    used: float
    """Processor time of the model's processes when it was last seen to compute."""
    quiet: int = 0
    """Looks since then."""


@dataclass(slots=True)
class Questions:
    """One question at a time to each of a server's Python models.

    Attributes
    ----------
    stub
        Of Triton's gRPC service.
    models
        Models that know `QUESTION`.
    pid
        Process id of the server.
    pause
        Looks from one question to the next, where the other models leave room.
    patience
        Looks for which a model may neither answer nor compute. Looks, not seconds: a machine that
        was suspended has not looked either.
    """

    stub: Any
    models: Iterable[str]
    pid: int
    pause: int = 5
    patience: int = 10
    _described: dict[str, Any] = field(default_factory=dict)
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _looks: int = 0

    def look(self, timeout: float) -> str | None:
        """Ask whom it is time to ask; what is wrong, in words that complete "the server …".

        Raises
        ------
        grpc.RpcError
            When the server does not describe a model within `timeout` seconds.
        """
        self._looks += 1
        used = cpu_seconds(self.pid)
        for model in list(self._asked):
            fault = self._judge(model, used.get(model, 0.0))
            if fault is not None:
                return fault
        left = _BYTES
        for model in sorted(self.models, key=self._since, reverse=True):
            if left <= 0 or self._since(model) < self.pause:
                break
            if model not in self._asked:
                request = self._request(model, timeout)
                left -= request.ByteSize()
                future = self.stub.ModelInfer.future(request)
                self._asked[model] = _Asked(future, used.get(model, 0.0))
                self._last[model] = self._looks
        return None

    def _since(self, model: str) -> int:
        """Looks since the last question."""
        return self._looks - self._last.get(model, -self.pause)

    def close(self) -> None:
        """Wait for no answer any more."""
        for asked in self._asked.values():
            asked.future.cancel()
        self._asked.clear()

    def _judge(self, model: str, used: float) -> str | None:
        asked = self._asked[model]
        if asked.future.done():
            del self._asked[model]
            failure = asked.future.exception()
            dead = isinstance(failure, grpc.RpcError) and _DEAD in str(failure.details())
            return f"has lost the process of its model {model!r}" if dead else None
        asked.quiet += 1
        if used - asked.used > _COMPUTES_S:
            asked.used, asked.quiet = used, 0
        if asked.quiet >= self.patience:
            return f"has a model {model!r} that neither answers nor computes"
        return None

    def _request(self, model: str, timeout: float) -> Any:
        """Zeros of the smallest shape that the model takes, and the parameter."""
        if model not in self._described:
            about = _message("ModelMetadataRequest", name=model)
            self._described[model] = self.stub.ModelMetadata(about, timeout)
        request = _message("ModelInferRequest", model_name=model)
        request.parameters[QUESTION].bool_param = True
        for tensor in self._described[model].inputs:
            shape = [max(1, length) for length in tensor.shape]
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
            width = np.dtype(triton_to_np_dtype(tensor.datatype)).itemsize
            # A string is its length, in four bytes, and what it holds.
            size = 4 if tensor.datatype == "BYTES" else width
            request.raw_input_contents.append(bytes(math.prod(shape) * size))
        return request


def _message(kind: str, **fields: str) -> Any:
    return getattr(service_pb2, kind)(**fields)
