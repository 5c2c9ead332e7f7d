"""A stand-in server whose service time is known: Python models that sleep."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum.client import Client
from hilum.server.arguments import Ports, Settings, arguments
from hilum.server.backend_folder import assemble_backends
from hilum.server.binary import find_server
from hilum.server.environment import server_environment
from hilum.server.launcher import free_ports

# perf_counter is the monotonic clock of the whole machine, so the client can read these times.
_SLEEPER = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    served = 0

    def execute(self, requests):
        answers = []
        for request in requests:
            began = time.perf_counter()
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()[0]
            if seconds < 0:
                raise ValueError("refused")
            self.served += 1
            time.sleep({first_s} if self.served <= {first} else float(seconds))
            times = np.array([began, time.perf_counter()])
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("times", times)]))
        return answers
"""

_CONFIG = """
backend: "python"
max_batch_size: 0
input [ {{ name: "seconds" data_type: TYPE_FP64 dims: [ 1 ] }} ]
output [ {{ name: "times" data_type: TYPE_FP64 dims: [ 2 ] }} ]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
"""


def write(repository: Path) -> Path:
    """`sleeper` with one instance, `sleepers` with two, `waking`: slow for its first 12 requests.

    Each sleeps for the seconds it is given, fails for a negative number, and answers with the
    times at which it began and ended.
    """
    for name, count, first, first_s in (
        ("sleeper", 1, 0, 0.0),
        ("sleepers", 2, 0, 0.0),
        ("waking", 1, 12, 0.08),
    ):
        (repository / name / "1").mkdir(parents=True)
        code = _SLEEPER.replace("{first_s}", str(first_s)).replace("{first}", str(first))
        (repository / name / "1" / "model.py").write_text(code)
        (repository / name / "config.pbtxt").write_text(_CONFIG.format(count=count))
    return repository


@dataclass(frozen=True, slots=True)
class Running:
    """A server of the stand-ins.

    Attributes
    ----------
    pid
        Of tritonserver itself.
    """

    pid: int
    grpc_url: str
    metrics_url: str


@contextmanager
def serve(repository: Path, folder: Path) -> Iterator[Running]:
    """Serve the repository as it is: the launcher would choose the instances by the machine."""
    found = find_server()
    port, metrics = free_ports(2)
    settings = Settings(
        repository=repository,
        tag=folder.name,
        ports=Ports(port, metrics),
        backends=assemble_backends(found, folder / "backends"),
        stubs=4,
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [found.binary, *arguments(found, settings)],
            env=server_environment(found.binary), stdout=log, stderr=log,
        )  # fmt: skip
    running = Running(process.pid, f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
    try:
        deadline = time.monotonic() + 60
        with Client(running.grpc_url) as client:
            while not client.ready():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def lindley(arrivals: np.ndarray, services: np.ndarray) -> np.ndarray:
    """Waiting times of a queue with one server, in the order of arrival.

    A request waits for what was left of the one before when it arrived (D. V. Lindley, 1952).
    """
    waits = np.zeros(len(arrivals))
    for n in range(1, len(arrivals)):
        left = waits[n - 1] + services[n - 1] - (arrivals[n] - arrivals[n - 1])
        waits[n] = max(0.0, left)
    return waits
