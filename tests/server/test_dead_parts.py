"""Parts of a server that die: what is noticed, said, started again, and lost (nothing)."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import small_repository
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from hilum.client import Client, ClientPool
from hilum.server import cleanup as leftovers
from hilum.server import stubs
from hilum.server.foreground import draining, kept
from hilum.server.launcher import TritonServer, free_ports
from hilum.server.questions import askable
from hilum.server.readiness import Probe
from hilum.server.supervisor import DEAD_PART

HILUM = Path(sys.executable).with_name("hilum")
READY = Path(__file__).parents[2] / "docker" / "ready"


def until(holds: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait for something; the seconds it took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, "in vain"
        time.sleep(0.02)
    return time.monotonic() - start


class Served:
    """A `hilum serve` of the test's own."""

    def __init__(self, repository: Path, state: Path, log: Path, *models: str) -> None:
        self.grpc, metrics, self.http = free_ports(3)
        options = [f"--model={model}" for model in models]
        self.err = log
        self.process = subprocess.Popen(
            [HILUM, "serve", f"--repository={repository}", f"--grpc-port={self.grpc}",
             f"--metrics-port={metrics}", f"--http-port={self.http}", "--grace=2", *options],
            stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
        )  # fmt: skip
        self.url = f"127.0.0.1:{self.grpc}"
        self.state = state
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        assert self.url in self.first, log.read_text()

    def record(self) -> tuple[dict, int]:
        """Its record, and the process id of its supervisor."""
        for file in (self.state / "run").glob("*/server.json"):
            record = json.loads(file.read_text())
            if record["grpc"] == self.url:
                return record, int(file.parent.name.split("-")[2])
        raise AssertionError("no record")

    def stub(self, model: str) -> int:
        return next(pid for pid, name in stubs.children(self.record()[0]["pid"]) if name == model)

    def ready(self) -> bool:
        """What HTTP says."""
        url = f"http://127.0.0.1:{self.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def ready_by_grpc(self) -> bool:
        try:
            with triton.InferenceServerClient(self.url) as client:
                return client.is_server_ready(client_timeout=3)
        except InferenceServerException:
            return False

    def container_ready(self, monkeypatch: pytest.MonkeyPatch) -> bool:
        """What the container's health check says."""
        monkeypatch.setenv("HILUM_READY_URL", f"http://127.0.0.1:{self.http}/v2/health/ready")
        return runpy.run_path(str(READY))["ready"]()


@pytest.fixture
def serve(repository: Path, state: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def make(*models: str) -> Served:
        log = tmp_path / f"{len(started)}.err"
        started.append(Served(repository, state, log, *models))
        return started[-1]

    yield make
    for one in started:
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(20) == 0


def ask(client: Client | ClientPool, number: int) -> bool:
    """One request, and whether its answer is right."""
    image = np.random.default_rng(number).integers(0, 255, (1, 3, 4), np.uint8)
    inputs = {"task": np.zeros((1, 1), np.int32), "image": image}
    return client.infer("chain", inputs, ["again"]).outputs["again"].item() == image.sum()


def under_load(client: Client | ClientPool, kill: Callable[[], None], until_back: Callable) -> None:
    """Ask from four threads while a part is killed, until it is back: nothing fails or is wrong."""
    over: list[bool] = []

    def keep_asking(start: int) -> list[bool]:
        answers, number = [], start
        while not over:
            answers.append(ask(client, number))
            number += 4
        return answers

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking, start) for start in range(4)]
        try:
            time.sleep(0.5)
            kill()
            until_back()
            time.sleep(0.3)
        finally:
            over.append(True)
        answers = [answer for asked in asking for answer in asked.result()]
    assert all(answers)
    assert len(answers) > 10


def test_a_dead_stub_stops_the_server_and_is_named(repository, state):
    with TritonServer(repository, models=["double", "probe"], grace=1) as one:
        pid = next(pid for pid, model in stubs.children(one.pid) if model == "probe")
        os.kill(pid, signal.SIGKILL)
        with triton.InferenceServerClient(one.grpc_url) as client:

            def unready() -> bool:
                try:
                    return not client.is_server_ready(client_timeout=1)
                except InferenceServerException:
                    return True

            assert until(unready) < 5
        until(lambda: not one.alive)
        assert one.poll() == DEAD_PART
        assert "a process of model 'probe' died" in one.why()
        assert one._tag not in {f.name for f in (state / "run").iterdir()}


def test_a_process_that_stands_still_counts_as_dead(repository):
    with TritonServer(repository, models=["double"], grace=0) as one:
        pid = next(pid for pid, model in stubs.children(one.pid) if model == "double")
        os.kill(pid, signal.SIGSTOP)
        assert until(lambda: not one.alive) < 10
        assert "a process of model 'double' stands still" in one.why()


@pytest.mark.parametrize(
    "part",
    [
        "stub",
        *(
            pytest.param(p, marks=pytest.mark.load)
            for p in ("triton", "stopped stub", "supervisor")
        ),
    ],
)
def test_one_server_loses_nothing_when_a_part_is_killed(serve, part, monkeypatch):
    served = serve("chain")
    record, supervisor = served.record()
    victims = {"triton": record["pid"], "supervisor": supervisor}
    victim = victims[part] if part in victims else served.stub("probe")

    def kill() -> None:
        assert served.container_ready(monkeypatch)
        assert served.ready_by_grpc()
        os.kill(victim, signal.SIGSTOP if part == "stopped stub" else signal.SIGKILL)
        assert until(lambda: not served.ready()) < 5
        assert not served.container_ready(monkeypatch)
        assert not served.ready_by_grpc()

    with Client(served.url) as client:
        under_load(client, kill, lambda: until(served.ready))
    lines = served.err.read_text().splitlines()
    assert [line.partition(";")[0] for line in lines if line.startswith("the server")] == [
        {
            "stub": "the server was stopped: a process of model 'probe' died",
            "stopped stub": "the server was stopped: a process of model 'probe' stands still",
            "triton": "the server was ended by signal 9 (killed)",
            "supervisor": "the server lost its supervisor",
        }[part]
    ]
    assert lines[-1] == f"ready again: gRPC {served.url}"
    assert len(lines) == 2
    tag = f"-{supervisor}-"
    assert not [name for name in leftovers._regions() if tag in name]


class Quick(Probe):
    """Ten looks that are three seconds."""

    every_s = 0.3


@contextmanager
def occupied(server: TritonServer, task: int) -> Iterator[None]:
    """A request of somebody else that keeps a model of one process."""
    shapes = {"task": np.full((1, 1), task, np.int32), "image": np.ones((1, 3, 4), np.uint8)}
    with triton.InferenceServerClient(server.grpc_url) as client:
        asked = client.async_infer("probe", small_repository.tensors(**shapes), lambda *_: None)
        yield
        asked.cancel()


def quick_probe(server: TritonServer) -> Probe:
    assert server.staged is not None
    models = server.staged.models
    asked = askable(server.staged.folder, models, own_backends=server.binary.python_backends)
    assert set(asked) == {"double", "hilum_about", "probe"}
    return Quick(server.grpc_url, models, asked, server.pid)


def test_a_model_that_is_busy_for_long_is_left_to_it(repository):
    with TritonServer(repository, models=["double", "probe"], grace=0) as one:
        with occupied(one, task=7), quick_probe(one) as probe:
            time.sleep(4.5)
            assert probe.failure is None
        with triton.InferenceServerClient(one.grpc_url) as client:
            counted = client.get_inference_statistics("probe").model_stats[0].inference_stats
        assert counted.success.count > 0
        assert counted.fail.count == 0  # a question is no failed request


def test_a_model_that_answers_no_more_is_noticed_and_the_server_started_again(
    repository, monkeypatch
):
    monkeypatch.setattr("hilum.server.foreground.Probe", Quick)
    events: list[str] = []
    server = TritonServer(repository, models=["double", "probe"], grace=0)
    with kept(server, events.append), occupied(server, task=8):
        url = server.grpc_url
        with Client(url) as client:
            until(lambda: bool(events), 20)
            assert "has a model 'probe' that neither answers nor computes" in events[0]
            image = np.ones((1, 3, 4), np.uint8)
            inputs = {"task": np.zeros((1, 1), np.int32), "image": image}
            assert client.infer("probe", inputs, ["sum"]).outputs["sum"].item() == 12
        assert server.grpc_url == url
        until(lambda: len(events) == 2)
        assert events[1] == f"ready again: gRPC {url}"
    assert not server.alive


def test_a_kept_server_can_be_given_up_while_it_starts_again(repository):
    events: list[str] = []
    server = TritonServer(repository, models=["double", "probe"], grace=0)
    with kept(server, events.append):
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: server.poll() is None and bool(events))
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert not server.alive
    assert len(events) == 1


def test_a_server_that_is_back_is_no_longer_about_to_stop(repository, state):
    drained = draining(0.1)
    server = TritonServer(repository, models=["double"], grace=0, drain=drained)
    events: list[str] = []
    with kept(server, events.append):
        drained()  # as a probe has it done, before it stops the server
        assert (state / "draining").exists()
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: len(events) == 2)
        assert not (state / "draining").exists()


@pytest.mark.load
def test_two_servers_lose_nothing_and_wait_for_nothing(serve):
    first, second = serve("chain"), serve("chain")
    with ClientPool([first.url, second.url]) as pool:
        under_load(
            pool,
            lambda: os.kill(first.stub("probe"), signal.SIGKILL),
            lambda: (until(lambda: first.url in pool.away), until(lambda: not pool.away)),
        )


def test_a_server_that_says_nothing_is_noticed(repository):
    class Impatient(Probe):
        every_s, answer_s, silences = 0.05, 0.2, 2

    with TritonServer(repository, models=["double"], grace=0) as one:
        with Impatient(one.grpc_url, ["double"]) as probe:
            time.sleep(0.5)
            assert probe.failure is None
            os.kill(one.pid, signal.SIGSTOP)
            until(lambda: probe.failure is not None)
            assert probe.failure == "did not answer any more"
            os.kill(one.pid, signal.SIGCONT)
        with Impatient(one.grpc_url, ["double", "nothing"]) as probe:
            until(lambda: probe.failure is not None)
            assert "'nothing' is not ready" in str(probe.failure)
