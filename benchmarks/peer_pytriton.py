"""Python serving as pytriton does it: its server, its binding, its client; ONNX Runtime inside.

pytriton runs Triton with a proxy model that hands each request to a Python callable in the
process that bound it. The server lives in a process of its own (`benchmarks.processes.apart`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from ..catalog import Network
from ..export.recipes import Arrays
from ..server.environment import server_environment
from ..server.find import find_server
from ..server.launcher import free_ports
from ..server.machine import cores
from .peer_networks import Subject
from .peer_runs import LeftOut, Peer, open_session, usual_options
from .processes import apart

PYTRITON = "pytriton, Python serving"

MODEL = "peer"

_TIMEOUT_S, _START_S, _STOP_S = 600.0, 60.0, 30.0

Described = Sequence[tuple[str, str, tuple[int, ...]]]
"""Name, element type and shape of tensors, without the batch axis; -1 is any length."""


class PythonServing:
    """A pytriton server with one network.

    Parameters
    ----------
    file
        The ONNX file.
    inputs, outputs
        Tensors of its signature.
    max_batch
        0 for a network without a batch axis.
    """

    def __init__(self, file: str, inputs: Described, outputs: Described, max_batch: int) -> None:
        os.environ.update(server_environment(find_server().binary))
        self._session = open_session(file, usual_options())
        self._signature = inputs, outputs, max_batch
        self._told: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        self._stop = threading.Event()
        # pytriton has the kernel end its server with the thread that started it.
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        first = self._told.get()
        if isinstance(first, Exception):
            raise first
        self._url = first

    def url(self) -> str:
        """Where its client finds it."""
        return self._url

    def stop(self) -> None:
        """End the server."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def _serve(self) -> None:
        from pytriton.triton import Triton, TritonConfig

        logging.getLogger("pytriton").setLevel(logging.ERROR)
        http, grpc, metrics = free_ports(3)
        here = "127.0.0.1"
        options: dict[str, Any] = {
            "http_address": here, "http_port": http, "grpc_address": here, "grpc_port": grpc,
            "metrics_address": here, "metrics_port": metrics,
        }  # fmt: skip
        with (
            tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder,
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),  # pytriton prints its server's log
        ):
            try:
                triton = Triton(config=TritonConfig(**options), workspace=f"{folder}/workspace")
                self._bind(triton)
                triton.run()
            except Exception as error:  # noqa: BLE001 - told to the process that waits
                self._told.put(error)
                return
            self._told.put(f"grpc://{here}:{grpc}")
            self._stop.wait()
            triton.stop()

    def _bind(self, triton: Any) -> None:
        from pytriton.decorators import batch, sample
        from pytriton.model_config import ModelConfig, Tensor

        inputs, outputs, max_batch = self._signature
        names = [name for name, _, _ in outputs]

        def run(**given: Any) -> dict[str, Any]:
            return dict(zip(names, self._session.run(names, given), strict=True))

        def tensors(described: Described) -> list[Tensor]:
            return [
                Tensor(name=name, dtype=np.dtype(triton_to_np_dtype(dtype)), shape=shape)
                for name, dtype, shape in described
            ]

        config = ModelConfig(batching=max_batch > 0, max_batch_size=max(max_batch, 1))
        triton.bind(
            model_name=MODEL,
            infer_func=batch(run) if max_batch else sample(run),
            inputs=tensors(inputs),
            outputs=tensors(outputs),
            config=config,
        )


@contextlib.contextmanager
def python_serving(subject: Subject) -> Iterator[Peer]:
    """A pytriton server with the network, and its own client as a peer.

    Raises
    ------
    LeftOut
        Where pytriton is not installed, or it does not start.
    """
    try:
        from pytriton.client import ModelClient
    except ImportError:
        raise LeftOut(
            "nvidia-pytriton is not installed; `pip install 'hilum[server]'` brings it"
        ) from None
    network = subject.network
    tensors = _described(network, {t.name for t in network.inputs} | set(subject.outputs))
    with contextlib.ExitStack() as stack:
        try:
            serving = stack.enter_context(
                apart(PythonServing, str(subject.file), *tensors, network.max_batch)
            )
        except Exception as error:
            raise LeftOut(f"pytriton did not start: {error}") from error
        stack.callback(serving.stop)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # about timeouts that its gRPC client does not know
        client = stack.enter_context(
            ModelClient(
                serving.url(), MODEL, init_timeout_s=_START_S, inference_timeout_s=_TIMEOUT_S
            )
        )
        infer: Any = client.infer_batch if network.max_batch else client.infer_sample

        def run(inputs: Arrays) -> Arrays:
            return dict(infer(**inputs))

        threads = f"{cores()} threads"
        note = "its own client over gRPC; ONNX Runtime inside its Python callable"
        yield Peer(PYTRITON, run, "grpc", subject.precision, threads, notes=(note,))


def _described(network: Network, names: set[str]) -> tuple[Described, Described]:
    inputs, outputs = (
        [(t.name, t.dtype, t.resolved(network.sizes)) for t in group if t.name in names]
        for group in (network.inputs, network.outputs)
    )
    return inputs, outputs
