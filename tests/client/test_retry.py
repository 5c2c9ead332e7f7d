"""A server that goes away and comes back, or does not; what is sent again and what never is."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hilum.catalog.errors import ConnectionFailed, InferenceFailed
from hilum.client import AsyncClient, Client
from hilum.client.models import ModelStatistics
from hilum.client.options import ConnectionOptions
from hilum.client.retry import Outage, pauses
from hilum.server.launcher import TritonServer

MakeServer = Callable[..., TritonServer]


def x_of(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 16), value, np.float32)}


def requests_since(client: Client, before: ModelStatistics, expected: int) -> int:
    """How many requests for `slow` the server counted since `before`, refused ones included.

    It counts after it answers, so this waits for those that are `expected`, and for more.
    """
    deadline = time.monotonic() + 5
    counted = 0
    while counted < expected and time.monotonic() < deadline:
        time.sleep(0.3)
        after = client.statistics("slow")
        # What a Python model refuses counts as a success in some versions of Triton.
        counted = after.successes + after.failures - before.successes - before.failures
    return counted


def kill(server: TritonServer) -> int:
    """Kill a server at once, as the kernel would; returns its port."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    return _wait(server)


def terminate(server: TritonServer) -> int:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGTERM)
    return _wait(server)


def _wait(server: TritonServer) -> int:
    while server.alive:
        time.sleep(0.01)
    return int(server.grpc_url.rpartition(":")[2])


@pytest.mark.parametrize("transport", ["grpc", "shm"])
def test_a_restart_within_the_window_loses_nothing(make_server: MakeServer, transport: str) -> None:
    server = make_server(models=("slow", "small"))
    with (
        Client(server.grpc_url, transport=transport) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        client.infer("small", x_of(0), ["y"])
        # One of them is being computed when the server dies.
        slow = pool.submit(client.infer, "slow", {"seconds": np.float32([0.7])}, ["done"])
        time.sleep(0.2)
        port = kill(server)
        answers = [pool.submit(client.infer, "small", x_of(i), ["y"]) for i in range(20)]
        time.sleep(0.3)
        make_server(port, models=("slow", "small"))
        for i, future in enumerate(answers):
            assert future.result(15).outputs["y"].mean() == i
        assert slow.result(15).outputs["done"][0] == np.float32(0.7)
        assert slow.result().attempts > 1
        assert slow.result().transport == transport


def test_a_restart_within_the_window_asyncio(make_server: MakeServer) -> None:
    server = make_server()

    async def ask() -> list[float]:
        async with AsyncClient(server.grpc_url) as client:
            await client.infer("small", x_of(0), ["y"])
            port = await asyncio.to_thread(kill, server)
            tasks = [asyncio.create_task(client.infer("small", x_of(i), ["y"])) for i in range(20)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(make_server, port)
            return [float(a.outputs["y"].mean()) for a in await asyncio.gather(*tasks)]

    assert asyncio.run(ask()) == list(range(20))


def test_a_stopping_server_counts_as_away(make_server: MakeServer) -> None:
    """On SIGTERM Triton answers NOT_FOUND for models that it has unloaded already."""
    server = make_server(models=("slow", "small"))
    with Client(server.grpc_url) as client, ThreadPoolExecutor(6) as pool:
        client.infer("small", x_of(0), ["y"])
        ended = threading.Event()

        def keep_asking(start: int) -> list[float]:
            found, i = [], start
            while not ended.is_set():
                found.append(float(client.infer("small", x_of(i), ["y"]).outputs["y"].mean()) - i)
                i += 1
            return found

        # Keeps the port open for a while after the models were unloaded.
        slow = pool.submit(client.infer, "slow", {"seconds": np.float32([1.0])}, ["done"])
        asking = [pool.submit(keep_asking, 1000 * n) for n in range(3)]
        time.sleep(0.2)
        port = terminate(server)
        make_server(port, models=("slow", "small"))
        time.sleep(0.5)
        assert client.infer("small", x_of(7), ["y"]).outputs["y"].mean() == 7
        ended.set()
        for future in asking:
            assert set(future.result(15)) == {0.0}
        assert slow.result(15).outputs["done"][0] == 1


def test_a_server_that_stays_away(make_server: MakeServer) -> None:
    server = make_server()
    with Client(server.grpc_url, retry_window_s=1.0) as client:
        client.infer("small", x_of(0), ["y"])
        kill(server)
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            batch = [pool.submit(client.infer, "small", x_of(i), ["y"]) for i in range(12)]
            for future in batch:
                with pytest.raises(ConnectionFailed, match=r"went away.*restart.*hilum serve"):
                    future.result()
        # Twelve images on four threads wait once, not three times.
        assert 0.9 < time.monotonic() - started < 1.9
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match="went away"):
            client.infer("small", x_of(0), ["y"])
        assert time.monotonic() - started < 0.3
        assert not client.ready()


def test_closing_wakes_those_who_wait(make_server: MakeServer) -> None:
    server = make_server()
    client = Client(server.grpc_url)
    client.infer("small", x_of(0), ["y"])
    kill(server)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.infer, "small", x_of(1), ["y"])
        time.sleep(1.0)
        client.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            waiting.result(timeout=0.5)


def test_an_invalid_argument_is_sent_once(url: str) -> None:
    with Client(url) as client:
        before = client.statistics("slow")
        with pytest.raises(InferenceFailed, match=r"does not take this request: .*refused"):
            client.infer("slow", {"seconds": np.float32([-1])}, ["done"])
        assert requests_since(client, before, 1) == 1


def test_a_busy_server_is_asked_again(url: str) -> None:
    with Client(url) as client:
        before = client.statistics("slow")
        answer = client.infer("slow", {"seconds": np.float32([-2])}, ["done"])
        assert answer.attempts == 3
        assert requests_since(client, before, 3) == 3


def test_outage_is_one_until_it_is_over() -> None:
    outage = Outage(ConnectionOptions(retry_window_s=10, connect_window_s=2))
    assert outage.window_s == 2
    assert outage.failed(100.0) == 100.0
    assert outage.failed(101.0) == 100.0
    assert outage.over()
    assert not outage.over()
    assert outage.window_s == 10
    assert outage.failed(102.0) == 102.0
    assert outage.failed(111.0) == 102.0
    assert outage.failed(121.5) == 121.5  # nobody asked for longer than the window: a new one


def test_pauses_double_up_to_the_longest() -> None:
    series = pauses(ConnectionOptions(backoff_s=0.1, max_backoff_s=0.8))
    for longest, pause in zip((0.1, 0.2, 0.4, 0.8, 0.8), series, strict=False):
        assert longest / 2 <= pause <= longest
