"""What a client makes of the death of a model's process: never an error of an innocent request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import ConnectionFailed, InferenceFailed
from hilum.client import Client, ClientPool
from hilum.client.errors import is_dead_part
from hilum.client.retry import Deaths
from hilum.server import stubs
from hilum.server.launcher import free_ports

HILUM = Path(sys.executable).with_name("hilum")

_DEADLY = """
import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if x[0] == 1:
                os._exit(1)
            if x[0] == 2:
                error = pb_utils.TritonError("the stub process is not healthy, says the model")
                answers.append(pb_utils.InferenceResponse([], error))
                continue
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
        return answers
"""

_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def x_of(value: float) -> dict[str, np.ndarray]:
    return {"x": np.array([value], np.float32)}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two `hilum serve` of a model that dies of the request 1, and refuses the request 2."""
    repository = tmp_path_factory.mktemp("deadly")
    (repository / "deadly" / "1").mkdir(parents=True)
    (repository / "deadly" / "1" / "model.py").write_text(_DEADLY)
    (repository / "deadly" / "config.pbtxt").write_text(_CONFIG)
    started, found = [], []
    for _ in range(2):
        grpc, metrics = free_ports(2)
        process = subprocess.Popen(
            [HILUM, "serve", f"--repository={repository}", f"--grpc-port={grpc}",
             f"--metrics-port={metrics}", "--grace=0.5"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert str(grpc) in process.stdout.readline()
        found.append(f"127.0.0.1:{grpc}")
    yield found
    for process in started:
        process.terminate()
        assert process.wait(20) == 0


def test_a_request_that_kills_processes_is_given_up_after_three(urls: list[str]) -> None:
    with Client(urls[0], retry_window_s=120) as client:
        assert client.infer("deadly", x_of(0), ["y"]).outputs["y"].tolist() == [0]
        with pytest.raises(InferenceFailed, match=r"'deadly' .* died 3 times .* may be the cause"):
            client.infer("deadly", x_of(1), ["y"])
        assert client.infer("deadly", x_of(5), ["y"]).outputs["y"].tolist() == [5]


@pytest.mark.load
def test_a_pool_gives_such_a_request_up_too_and_goes_on(urls: list[str]) -> None:
    with ClientPool(urls, retry_window_s=120) as pool:
        with pytest.raises(InferenceFailed, match=r"died 3 times .* may be the cause"):
            pool.infer("deadly", x_of(1), ["y"])
        assert pool.infer("deadly", x_of(5), ["y"]).outputs["y"].tolist() == [5]


def test_an_error_of_the_model_itself_is_reported_at_once(urls: list[str]) -> None:
    with Client(urls[0]) as client:
        client.infer("deadly", x_of(0), ["y"])
        start = time.monotonic()
        with pytest.raises(InferenceFailed, match="says the model"):
            client.infer("deadly", x_of(2), ["y"])
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("message", "dead"),
    [
        ("Stub process 'a_0_0' is not healthy.", True),
        ("in ensemble 'b', Stub process 'a_0_0' is not healthy.", True),
        ("[request id: 7] in ensemble 'b', Stub process 'a_0_0' is not healthy.", True),
        ("Failed to process the request(s) for model 'a_0_0', message: Stub process 'a_0_0' is not "
         "healthy.", True),
        ("Failed to process the request(s) for model 'a_0_0', message: ValueError: Stub process "
         "'a' is not healthy", False),
        ("hilum.x:step: ZeroDivisionError: Stub process 'a_0_0' is not healthy.", False),
        ("", False),
    ],
)  # fmt: skip
def test_only_tritons_own_sentence_counts(message: str, dead: bool) -> None:
    assert is_dead_part("INTERNAL", InferenceServerException(message)) is dead
    assert not is_dead_part("INVALID_ARGUMENT", InferenceServerException(message))


def test_answers_of_one_death_count_once() -> None:
    deaths = Deaths()
    assert not any(deaths.died() for _ in range(5))
    deaths.other()
    assert not deaths.died()
    deaths.other()
    assert deaths.died()


def test_a_process_that_stays_dead_is_named(make_server) -> None:
    """A server without `hilum serve` ends with its part, and does not come back."""
    server = make_server(models=("slow",))
    with Client(server.grpc_url, retry_window_s=1) as client:
        client.infer("slow", {"seconds": np.zeros(1, np.float32)}, ["done"])
        (pid,) = [pid for pid, model in stubs.children(server.pid) if model == "slow"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionFailed, match=r"went away|died and was not back"):
            client.infer("slow", {"seconds": np.zeros(1, np.float32)}, ["done"])
