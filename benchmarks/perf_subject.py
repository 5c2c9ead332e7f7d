"""The server and the request of `hilum bench perf-analyzer`, and who of ours sends it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
from tritonclient.utils import np_to_triton_dtype

from ..catalog.errors import RepositoryError
from ..client import Client
from ..client.options import ConnectionOptions
from ..server.launcher import TritonServer
from .instrument.deployment import DEADLINE_S, Choice, Progress, deployed
from .instrument.watched import Watched
from .instrument.workloads import Workload, workload
from .perf_tool import Request

IDENTITY = "identity"
"""What is sent comes back: nothing but the way there and back is measured."""

# The output has the input's name, so the very tensor that came in can be sent back.
_MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(request.inputs()) for request in requests]
"""

_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "data" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "data" data_type: TYPE_UINT8 dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that is ready, and what is sent to it."""

    client: Client
    request: Request
    output_bytes: int
    received_bytes: int
    weights: str
    precision: str
    server: dict[str, Any]


@contextmanager
def served(
    system: str, model: str | None, size: int, choice: Choice, progress: Progress, *, quick: bool
) -> Iterator[Subject]:
    """Find or start the server of a system, or of the identity model.

    Raises
    ------
    RepositoryError
        For a model that the system's tasks do not ask for, or that the server lacks.
    """
    if system != IDENTITY:
        load = workload(system, quick=quick)
        with deployed(choice, [load], progress) as there:
            progress("record what one task sends")
            request, answers = _captured(there.client, load, model)
            yield Subject(
                there.client, request, max(answers), sum(answers), there.weights,
                there.precision, there.server,
            )  # fmt: skip
        return
    with tempfile.TemporaryDirectory(prefix="hilum-identity-") as name:
        repository = write_identity(Path(name))
        progress("start the server")
        with (
            TritonServer(repository, models=[IDENTITY], instances=1, grace=0) as server,
            Client(
                ConnectionOptions(
                    server.grpc_url, deadline_s=DEADLINE_S, retry_window_s=0.0,
                    transport=choice.transport,
                )
            ) as client,
        ):  # fmt: skip
            data = np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)
            request = Request(IDENTITY, {"data": data}, ("data",), batched=False)
            told = client.describe()
            about = {k: told[k] for k in ("version", "transport")}
            yield Subject(
                client, request, size, size, "none", "uint8",
                {"name": "Triton", **about, "kind": "started for the run"},
            )  # fmt: skip


def write_identity(repository: Path) -> Path:
    """Write a repository with the identity model; returns it."""
    (repository / IDENTITY / "1").mkdir(parents=True)
    (repository / IDENTITY / "1" / "model.py").write_text(_MODEL)
    (repository / IDENTITY / "config.pbtxt").write_text(_CONFIG)
    return repository


@dataclass(slots=True)
class _Captured(Watched):
    """Keeps the first request to each model, and the bytes of its answers."""

    kept: dict[str, tuple[Any, tuple[str, ...], list[int]]] = field(default_factory=dict)

    def _note(self, model: str, inputs: Any, outputs: Any, *, answer: Any) -> None:
        sizes = [array.nbytes for array in answer.outputs.values()]
        self.kept.setdefault(model, (inputs, tuple(outputs), sizes))


def _captured(client: Client, load: Workload, model: str | None) -> tuple[Request, list[int]]:
    """The first request of a task to a model, and the bytes of its outputs."""
    watched = _Captured(client)
    watched.drive(load.pipeline.study(load.make()[0], load.options))
    if model is None:
        sent = {m: sum(a.nbytes for a in kept[0].values()) for m, kept in watched.kept.items()}
        model = max(sent, key=sent.__getitem__)
    if model not in watched.kept:
        raise RepositoryError(
            f"a task of {load.system} asks for {', '.join(watched.kept)}, not for {model}"
        )
    inputs, outputs, sizes = watched.kept[model]
    batched = client.model(model).max_batch > 0
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    return Request(model, arrays, outputs, batched), sizes


def own_sender(subject: Subject) -> Callable[[int], Any]:
    """A task that sends with Hilum's client."""
    request = subject.request

    def task(_: int) -> None:
        subject.client.infer(request.model, request.inputs, request.outputs)

    return task


@contextmanager
def bare_sender(subject: Subject, transport: str) -> Iterator[Callable[[int], Any] | None]:
    """NVIDIA's Python client with requests that are made beforehand; over gRPC alone."""
    if transport != "grpc":
        yield None
        return
    request, options = subject.request, subject.client.options
    inputs = []
    for name, array in request.inputs.items():
        one = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array)
        inputs.append(one)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in request.outputs]
    client = tritonclient.grpc.InferenceServerClient(
        options.url, channel_args=options.channel_arguments()
    )

    def task(_: int) -> None:
        answer: Any = client.infer(request.model, inputs, outputs=outputs)
        for name in request.outputs:
            answer.as_numpy(name)

    try:
        yield task
    finally:
        client.close()
