"""What the server counted while a lane ran, through real servers, one of them restarted."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from stand_in import Running

from hilum.benchmarks.instrument import counters
from hilum.benchmarks.instrument.loops import closed_loop
from hilum.benchmarks.instrument.record import Counters, Round
from hilum.client import Client
from hilum.server.arguments import Ports
from hilum.server.launcher import TritonServer, free_ports

pytestmark = pytest.mark.serial

MEMORY = ("memory in use, GiB", "host")


def test_counters_show_a_restart(sleeper_repository: Path) -> None:

    def lane(number: int) -> Round:
        done = closed_loop(lambda _: one(), concurrency=1, tasks=3)
        if number == 1:
            server.stop(grace=0)
            server.start()
        return done

    ports = Ports(*free_ports(2))
    server = TritonServer(sleeper_repository, models=["sleeper"], ports=ports)
    with server, Client(server.grpc_url, transport="grpc") as own:

        def one() -> None:
            own.infer("sleeper", {"seconds": np.array([0.001])}, ["times"])

        watch = counters.Watch(own, ("sleeper", "nobody"), server.metrics_url)
        watched = watch.over("lane", lane)
        assert counters.counts(own, ["sleeper", "nobody"])["sleeper"].requests == 0
        for number in range(3):
            watched(number)
        assert watch.restarts_of("lane") == 1
        found = watch.counts_of("lane")
    assert set(found) == {"sleeper"}
    assert found["sleeper"].requests == 6  # the rounds without a restart
    assert found["sleeper"].executions == 6
    assert found["sleeper"].batches == {1: 6}
    assert found["sleeper"].infer_s > 6 * 0.001


def test_metrics_of_the_server(sleeper_server: Running) -> None:
    words = {text for text, _ in counters.GAUGES.values()}
    end = time.monotonic() + 15  # a server looks at its machine every two seconds
    while not (found := counters.gauges(sleeper_server.metrics_url)).get(MEMORY):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    assert {text for text, _ in found} <= words
    assert all(device == "host" or device.startswith("GPU ") for _, device in found)
    assert 0.1 < found[MEMORY] < 1e5
    assert counters.gauges("http://127.0.0.1:1/metrics") == {}


def test_gained_and_added() -> None:
    one = Counters(4, 2, 4, 0, 0.5, 0.1, 1.0, 0.1, {2: 2})
    more = Counters(7, 4, 7, 1, 0.9, 0.2, 2.0, 0.2, {1: 1, 2: 3})
    found = counters.gained({"a": one}, {"a": more, "b": one})
    assert found is not None
    assert found["b"] == one
    assert (found["a"].inferences, found["a"].failures, found["a"].batches) == (3, 1, {1: 1, 2: 1})
    assert counters.added(found, found)["a"].batches == {1: 2, 2: 2}
    assert counters.gained({"a": more}, {"a": one}) is None
    assert counters.gained({"a": more}, {"b": one}) is None
