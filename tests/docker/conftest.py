"""The production files, and small models for a real server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hilum.client import Client
from hilum.server.launcher import TritonServer

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "server"))  # for small_repository


@pytest.fixture(scope="session")
def docker() -> Path:
    """The folder with image, compose files and monitoring."""
    return ROOT / "docker"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import small_repository

    folder = tmp_path_factory.mktemp("repository")
    small_repository.write(folder)
    return folder


@pytest.fixture(scope="session")
def open_server(repository: Path) -> Iterator[TritonServer]:
    """A server as in the container: gRPC for the network, HTTP for its own health check."""
    with TritonServer(
        repository,
        host="0.0.0.0",  # noqa: S104
        models=["double", "probe"],
        http=True,
        http_host="127.0.0.1",
        grace=2,
    ) as server:
        with Client(server.grpc_url) as client:
            client.infer("double", {"x": np.ones((2, 3), np.float32)}, ["y"])
            with pytest.raises(Exception, match="no chest"):
                task = np.array([[1]], np.int32)
                client.infer(
                    "probe", {"task": task, "image": np.zeros((1, 3, 4), np.uint8)}, ["sum"]
                )
        yield server
