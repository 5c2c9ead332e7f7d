"""Several servers through one client: turns, a server that dies, and studies that survive it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import called, report_of

from hilum.catalog import cxr_severity as cxr
from hilum.catalog.errors import ConnectionFailed, InferenceFailed, RepositoryError
from hilum.client import Client, ClientPool, Outcome
from hilum.client.session import Session
from hilum.client.steps import Steps
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.server.launcher import TritonServer

MakeServer = Callable[..., TritonServer]


def x_of(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 16), value, np.float32)}


def asked(pool: ClientPool, model: str) -> list[int]:
    """Requests that each server counted."""
    return [client.statistics(model).successes for client in pool.clients]


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def two(make_server: MakeServer) -> list[TritonServer]:
    return [make_server(models=("small", "slow")) for _ in range(2)]


def test_turns(two: list[TritonServer]) -> None:
    with ClientPool([server.grpc_url for server in two]) as pool:
        assert {"slow", "small"} <= set(pool.models())
        assert pool.ready()
        for value in range(10):
            answer = pool.infer("small", x_of(value), ["y"])
            assert (answer.outputs["y"] == value).all()
        until(lambda: sum(asked(pool, "small")) == 10)
        assert asked(pool, "small") == [5, 5]

        # One request keeps a server busy; those that come meanwhile go to the other one.
        slow = {"seconds": np.array([1.5], np.float32)}
        thread = threading.Thread(target=pool.infer, args=("slow", slow, ["done"]))
        thread.start()
        time.sleep(0.3)
        for value in range(10):
            pool.infer("small", x_of(value), ["y"])
        thread.join()
        until(lambda: sum(asked(pool, "small")) == 20)
        assert sorted(asked(pool, "small")) == [5, 15]
        told = pool.describe()
        assert told["url"] == ", ".join(server.grpc_url for server in two)
        assert "away" not in told
    with pytest.raises(ConnectionFailed, match="closed"):
        pool.infer("small", x_of(0), ["y"])


def test_a_server_dies_and_comes_back(two: list[TritonServer], make_server: MakeServer) -> None:
    slow = {"seconds": np.array([0.03], np.float32)}
    urls = [server.grpc_url for server in two]
    with ClientPool(urls, retry_window_s=20) as pool, ThreadPoolExecutor(8) as threads:
        pool.models()
        answers = [threads.submit(pool.infer, "slow", slow, ["done"]) for _ in range(120)]
        time.sleep(0.4)
        assert two[0].pid is not None
        os.kill(two[0].pid, signal.SIGKILL)
        assert all(len(a.result().outputs["done"]) == 100_000 for a in answers)
        assert list(pool.away) == urls[:1]
        assert pool.describe()["away"] == urls[0]
        assert {"slow", "small"} <= set(pool.models())

        two[0].stop(grace=0)
        make_server(port=int(urls[0].rpartition(":")[2]), models=("small", "slow"))
        until(lambda: not pool.away)
        for value in range(4):
            pool.infer("small", x_of(value), ["y"])
        until(lambda: asked(pool, "small") == [2, 2])


def test_a_server_that_is_asked_to_stop_loses_nothing(two: list[TritonServer]) -> None:
    """Triton unloads its models first and answers NOT_FOUND meanwhile."""
    slow = {"seconds": np.array([0.03], np.float32)}
    with (
        ClientPool([server.grpc_url for server in two]) as pool,
        ThreadPoolExecutor(8) as threads,
    ):
        pool.models()
        answers = [threads.submit(pool.infer, "slow", slow, ["done"]) for _ in range(80)]
        time.sleep(0.3)
        two[1].stop(grace=5)
        assert all(len(a.result().outputs["done"]) == 100_000 for a in answers)


def test_what_another_server_would_refuse_too_is_reported_at_once(two: list[TritonServer]) -> None:
    with ClientPool([server.grpc_url for server in two], retry_window_s=60) as pool:
        start = time.monotonic()
        with pytest.raises(InferenceFailed, match="refused"):
            pool.infer("slow", {"seconds": np.array([-1], np.float32)}, ["done"])
        with pytest.raises(InferenceFailed, match="has no model 'nothing'"):
            pool.infer("nothing", x_of(0), ["y"])
        assert time.monotonic() - start < 10
        assert not pool.away


def test_no_server_is_left() -> None:
    with (
        ClientPool(["127.0.0.1:1", "127.0.0.1:2"], connect_window_s=0.5) as pool,
        pytest.raises(ConnectionFailed, match=r"none of 127.0.0.1:1, 127.0.0.1:2 is there"),
    ):
        pool.models()
    with pytest.raises(ConnectionFailed, match="different servers"):
        ClientPool(["127.0.0.1:1", "127.0.0.1:1"])


@pytest.fixture(scope="module")
def third(standin_repository: Path) -> Iterator[TritonServer]:
    """A server beside the shared one, for this module's tests to kill at last."""
    models = [cxr.ENSEMBLES["manet"].model]
    with TritonServer(standin_repository, models=models, grace=0) as server:
        yield server


def test_servers_of_different_weights_are_refused(
    standin_server: TritonServer, server: TritonServer
) -> None:
    with (
        ClientPool([standin_server.grpc_url, server.grpc_url]) as pool,
        pytest.raises(RepositoryError, match="serve different weights of cxr_"),
    ):
        pool.about()


def certificate(precision: str) -> dict[str, Any]:
    return {"weights": {"source": "random", "sha256": "ab"}, "precision": precision}


def test_servers_may_differ_in_engines_but_not_in_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {
        url: {"models": {"a": certificate("fp16")}, "served_by": {"a": backend}}
        for url, backend in (("127.0.0.1:1", "tensorrt"), ("127.0.0.1:2", "onnxruntime"))
    }

    def about(session: Session) -> Steps[dict[str, Any]]:
        yield from ()
        return told[session.options.url]

    monkeypatch.setattr(Session, "about", about)  # no server here has TensorRT
    with ClientPool(list(told)) as pool:
        found = pool.about()
        assert found is not None
        assert found["served_by"] == {"a": "onnxruntime, tensorrt"}
        told["127.0.0.1:2"]["models"] = {"a": certificate("fp32")}
        with pytest.raises(RepositoryError, match="weights of a, or the same in another precision"):
            pool.about()


def test_the_command_takes_several_servers(
    standin_server: TritonServer, third: TritonServer, tmp_path: Path
) -> None:
    made = called("phantom", "cxr", "--count", 4, "--out", tmp_path / "xrays")
    assert made.returncode == 0, made.stderr
    urls = f"{standin_server.grpc_url},{third.grpc_url}"
    done = called(
        "run", "cxr-severity", tmp_path / "xrays", "--network", "manet", "--url", urls,
        "--url", "127.0.0.1:1", "--no-pictures", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path / "out")
    assert report["server"]["url"] == urls.replace(",", ", ")
    assert report["server"]["away"] == "127.0.0.1:1"
    assert [len(r["fractions"]) for r in report["results"]] == [6] * 4
    with Client(third.grpc_url) as client:
        assert client.statistics(cxr.ENSEMBLES["manet"].model).successes > 0


def test_no_study_is_lost_when_a_server_dies(
    standin_server: TritonServer, third: TritonServer
) -> None:
    pixels = chest_xray(3, height=300, width=280, severity=0.5).pixels
    seen: Counter[Any] = Counter()

    def finish(outcome: Outcome) -> Outcome:
        seen["done"] += 1
        if seen["done"] == 4:
            assert third.pid is not None
            os.kill(third.pid, signal.SIGKILL)
        return outcome

    with ClientPool([third.grpc_url, standin_server.grpc_url]) as pool:
        found = list(pool.run_many("cxr-severity", [pixels] * 24, network="manet", finish=finish))
        assert list(pool.away) == [third.grpc_url]
    assert [outcome.index for outcome in found] == list(range(24))
    assert [outcome.error for outcome in found] == [None] * 24
    assert len({outcome.result.score for outcome in found}) == 1
