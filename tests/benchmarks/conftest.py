"""The stand-in server that the tests of the load instrument share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in

from hilum.client import Client

Send = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def sleeper_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in.write(tmp_path_factory.mktemp("sleepers"))


@pytest.fixture(scope="session")
def sleeper_server(
    sleeper_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[stand_in.Running]:
    with stand_in.serve(sleeper_repository, tmp_path_factory.mktemp("stand-in")) as running:
        yield running


@pytest.fixture(scope="session")
def client(sleeper_server: stand_in.Running) -> Iterator[Client]:
    with Client(sleeper_server.grpc_url, transport="grpc", retry_window_s=0.0) as one:
        yield one


@pytest.fixture(scope="session")
def send(client: Client) -> Send:
    """Ask a sleeper; gives when it began and ended."""

    def one(model: str, seconds: float, **options: Any) -> np.ndarray:
        given = {"seconds": np.array([seconds])}
        return client.infer(model, given, ["times"], **options).outputs["times"]

    return one
