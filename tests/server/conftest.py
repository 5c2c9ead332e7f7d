"""One server with small models for most tests of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import small_repository
import tritonclient.grpc as triton
from small_repository import tensors

from hilum.server.launcher import TritonServer


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    small_repository.write(folder)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path, state: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, http=True, grace=2) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def infer(client: triton.InferenceServerClient) -> Callable[..., triton.InferResult]:
    def call(model: str, outputs: tuple[str, ...] = (), **arrays: np.ndarray) -> triton.InferResult:
        wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
        return client.infer(model, tensors(**arrays), outputs=wanted, client_timeout=20)

    return call
