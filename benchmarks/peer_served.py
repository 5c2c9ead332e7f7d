"""The same network through Triton, as Hilum serves it: gRPC, shared memory, HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from hilum.catalog.errors import InferenceFailed
from hilum.client import Client
from hilum.export.recipes import Arrays
from hilum.server.backend_folder import networks_use_gpus
from hilum.server.binary import find_server
from hilum.server.launcher import TritonServer
from hilum.server.machine import cores
from hilum.server.runtime_repository import Resources

from .peer_networks import Subject
from .peer_runs import Peer
from .runs import Run

GRPC, SHM, HTTP = "Triton, gRPC", "Triton, shared memory", "Triton, HTTP"
AS_SERVED = "Triton as Hilum sets it, shared memory"

IN_FLIGHT = 4
"""Tasks in flight at once of the lane that shows what a deployment gives."""

DEADLINE_S = 600.0

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Served:
    """Peers of one server.

    Attributes
    ----------
    client
        For the server's statistics.
    on_gpu
        The server computes on a GPU.
    about
        The server in words.
    """

    peers: tuple[Peer, ...]
    client: Client
    on_gpu: bool
    about: Mapping[str, str]


@contextlib.contextmanager
def servers(subject: Subject, repository: Path, shapes: Shapes) -> Iterator[tuple[Served, ...]]:
    """All peers through Triton, from as many servers as that takes.

    One server has one session on all cores, which differs from ONNX Runtime in process by Triton
    alone. Where Hilum would choose other instances and threads, a second server has those.

    Parameters
    ----------
    shapes
        Of the outputs that are asked for, the batch axis included.
    """
    chosen = _chosen(subject)
    with (
        _server(subject, repository, instances=1, threads=cores()) as server,
        _client(server, "grpc") as over_grpc,
        _client(server, "shm") as over_shm,
        _over_http(subject, server.http_url or "") as http_run,
    ):
        runs = {
            GRPC: (_run(subject, over_grpc, shapes), "grpc"),
            SHM: (_run(subject, over_shm, shapes), "shm"),
            HTTP: (http_run, "http"),
        }
        peers = [
            Peer(name, run, transport, subject.precision, _settings(1, cores()))
            for name, (run, transport) in runs.items()
        ]
        about = over_shm.describe()
        if chosen == (1, cores()):
            peers.append(_several(subject, runs[SHM][0], *chosen))
            yield (Served(tuple(peers), over_grpc, _on_gpu(), about),)
            return
        with (
            _server(subject, repository, instances=None, threads=None) as other,
            _client(other, "shm") as client,
        ):
            several = _several(subject, _run(subject, client, shapes), *chosen)
            yield (
                Served(tuple(peers), over_grpc, _on_gpu(), about),
                Served((several,), client, _on_gpu(), client.describe()),
            )


def _chosen(subject: Subject) -> tuple[int, int]:
    """Instances and threads of each that Hilum chooses for the network on this machine."""
    found = Resources.of_machine(gpu=_on_gpu())
    if subject.network.streamed:
        return found.stream_instances, found.stream_threads
    return found.instances, found.threads


def _settings(instances: int, threads: int) -> str:
    return f"{instances} instance{'s' * (instances > 1)} × {threads} threads, no spinning"


def _several(subject: Subject, run: Run, instances: int, threads: int) -> Peer:
    """What a deployment gives: several tasks in flight at once."""
    name = f"{AS_SERVED}, {IN_FLIGHT} in flight"
    settings = _settings(instances, threads)
    return Peer(name, run, "shm", subject.precision, settings, IN_FLIGHT)


def _server(
    subject: Subject, repository: Path, *, instances: int | None, threads: int | None
) -> TritonServer:
    return TritonServer(
        repository, models=[subject.network.model], instances=instances, threads=threads, http=True,
        grace=0,
    )  # fmt: skip


def _client(server: TritonServer, transport: str) -> Client:
    return Client(server.grpc_url, transport=transport, deadline_s=DEADLINE_S)


def _on_gpu() -> bool:
    return networks_use_gpus(find_server())


def _run(subject: Subject, client: Client, shapes: Shapes) -> Run:
    model, outputs = subject.network.model, subject.outputs

    def run(inputs: Arrays) -> Arrays:
        return dict(client.infer(model, inputs, outputs, output_shapes=shapes).outputs)

    return run


@contextlib.contextmanager
def _over_http(subject: Subject, url: str) -> Iterator[Run]:
    """Triton's own HTTP client with binary tensors, one connection for each thread."""
    own, opened = threading.local(), list[tritonclient.http.InferenceServerClient]()

    def run(inputs: Arrays) -> Arrays:
        if not hasattr(own, "client"):  # its connections belong to the thread that opened them
            own.client = tritonclient.http.InferenceServerClient(
                url, connection_timeout=DEADLINE_S, network_timeout=DEADLINE_S
            )
            opened.append(own.client)
        return http_infer(own.client, subject, inputs)

    yield run
    for client in opened:
        client.close()


def http_infer(
    client: tritonclient.http.InferenceServerClient, subject: Subject, inputs: Arrays
) -> Arrays:
    """One request over HTTP, tensors as binary data behind the JSON."""
    given = []
    for name, array in inputs.items():
        tensor = tritonclient.http.InferInput(
            name, list(array.shape), np_to_triton_dtype(array.dtype)
        )
        tensor.set_data_from_numpy(array, binary_data=True)
        given.append(tensor)
    wanted = [
        tritonclient.http.InferRequestedOutput(name, binary_data=True) for name in subject.outputs
    ]
    answer = client.infer(subject.network.model, given, outputs=wanted)
    found = {name: answer.as_numpy(name) for name in subject.outputs}
    missing = [name for name, array in found.items() if array is None]
    if missing:
        raise InferenceFailed(f"the server's answer has no output {missing[0]!r}")
    return {name: array for name, array in found.items() if array is not None}
