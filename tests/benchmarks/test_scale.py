"""Scaling: the model against known truths, servers on cores of their own, HAProxy."""

from __future__ import annotations

import heapq
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import stand_in
from hilum.benchmarks import haproxy
from hilum.benchmarks.instrument.deployment import Choice
from hilum.benchmarks.instrument.record import Record, read
from hilum.benchmarks.perf_subject import IDENTITY, write_identity
from hilum.benchmarks.scale import Plan
from hilum.benchmarks.scale_fleet import Fleet, fleets, on_cores, places
from hilum.benchmarks.scale_model import Model, Point, Setting, check, fit, held_out
from hilum.benchmarks.scale_runs import drive, loads
from hilum.benchmarks.scale_tables import evaluate, write
from hilum.catalog.errors import InputError, ServerError
from hilum.client import Client, ClientPool
from hilum.server.launcher import TritonServer

needs_haproxy = pytest.mark.skipif(haproxy.installed() is None, reason="haproxy is not installed")

GRID = [
    Setting(servers, instances, times * servers * instances)
    for servers, instances in ((1, 1), (2, 1), (3, 1), (1, 2))
    for times in (1, 2, 4)
]


def points(truth: Callable[[Setting], float], noise: float, rounds: int = 5) -> list[Point]:
    generator = np.random.default_rng(1)
    return [Point(at, tuple(truth(at) * np.exp(generator.normal(0, noise, rounds)))) for at in GRID]


def simulated(at: Setting, compute: float, shared: float, parallel: float) -> float:
    """Tasks per second of fixed times: one queue for what is shared, then the least busy server."""
    free: list[tuple[float, int, str, int]] = []  # time, order, what ends, task's server
    order = iter(range(10**9))
    waiting: deque[int] = deque()
    queues = [deque[int]() for _ in range(at.servers)]
    busy = [0] * at.servers
    sharing, done, now = False, 0, 0.0

    def plan(after: float, what: str, server: int) -> None:
        heapq.heappush(free, (now + after, next(order), what, server))

    for task in range(at.concurrency):
        plan(parallel * (task + 1) / at.concurrency, "arrives", -1)
    most = 400 * at.servers * at.instances
    while done < most:
        now, _, what, server = heapq.heappop(free)
        if what == "arrives":
            waiting.append(0)
        elif what == "shared":
            sharing = False
            load = [busy[s] + len(queues[s]) for s in range(at.servers)]
            queues[int(np.argmin(load))].append(0)
        else:
            busy[server] -= 1
            done += 1
            plan(parallel, "arrives", -1)
        if waiting and not sharing:
            waiting.popleft()
            sharing = True
            plan(shared, "shared", -1)
        for s in range(at.servers):
            while queues[s] and busy[s] < at.instances:
                queues[s].popleft()
                busy[s] += 1
                plan(compute, "computed", s)
    return done / now


def test_the_model_obeys_the_operational_laws() -> None:
    alone = Model(0.1, 0.0, 0.0, 0.0)
    for c in (1, 2, 4, 16):
        assert alone.per_second(Setting(2, 2, c)) == pytest.approx(min(c, 4) / 0.1)
    whole = Model(0.1, 0.5, 0.02, 0.03)
    assert whole.per_second(Setting(1, 1, 1)) == pytest.approx(1 / 0.15)
    assert whole.per_second(Setting(64, 1, 500)) == pytest.approx(1 / 0.02, rel=1e-3)
    assert whole.per_second(Setting(1, 3, 200)) == pytest.approx(3 / 0.2, rel=1e-3)
    assert whole.most_servers(1) == pytest.approx(5)
    # One queue and exponential times: D / (D + Z) for two tasks, by hand.
    half = Model(0.1, 0.0, 0.1, 0.0)
    assert half.per_second(Setting(1, 1, 2)) == pytest.approx(2 / 3 / 0.1)


def test_the_fit_finds_the_terms_it_was_made_from() -> None:
    truth = Model(0.2, 0.3, 0.03, 0.05)
    exact = fit(points(truth.per_second, 0.0))
    assert exact.compute_s == pytest.approx(0.2, rel=0.01)
    assert exact.contention == pytest.approx(0.3, abs=0.02)
    assert exact.shared_s == pytest.approx(0.03, rel=0.1)
    assert exact.parallel_s == pytest.approx(0.05, rel=0.1)
    assert exact.variability == pytest.approx(1, abs=0.05)

    found = check(points(truth.per_second, 0.02))
    assert {at.servers for at in found.errors} >= {3}
    assert found.median <= found.largest < 0.1


@pytest.mark.parametrize("shared", [0.002, 0.02, 0.06])
def test_predictions_of_a_simulated_network_hold_the_truth(shared: float) -> None:
    """Times are fixed there, not exponential, and nobody tells which of them is shared."""
    found = check(points(lambda at: simulated(at, 0.1, shared, 0.03), 0.01))
    assert found.largest < 0.25
    for servers in (4, 8):
        at = Setting(servers, 1, 4 * servers)
        told, truth = found.predict(at), simulated(at, 0.1, shared, 0.03)
        assert told.low is not None
        assert told.high is not None
        assert told.low < truth < told.high
        assert told.low < told.value < told.high
        if shared == 0.06:  # it is busy with two servers already, so it is known
            assert told.high / told.low < 1.5


def test_what_is_held_out() -> None:
    out = held_out(GRID)
    assert {at for at in GRID if at.servers == 3} <= out
    assert Setting(2, 1, 4) in out
    assert Setting(1, 2, 4) in out
    assert len(out) == 5
    assert not any(at.deployment == (1, 1) for at in out)
    with pytest.raises(InputError, match="two numbers of servers"):
        check([Point(Setting(1, 1, c), (1.0, 1.0, 1.0)) for c in (1, 2, 4)])
    with pytest.raises(InputError, match="do not settle 4 terms"):
        fit([Point(Setting(1, 1, 1), (1.0,))])
    with pytest.raises(InputError, match="nothing was done"):
        fit([Point(at, (0.0,)) for at in GRID])


@pytest.fixture(scope="module")
def second(
    sleeper_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[stand_in.Running]:
    with stand_in.serve(sleeper_repository, tmp_path_factory.mktemp("second")) as running:
        yield running


@pytest.mark.load
def test_two_servers_do_twice_as_much(
    sleeper_server: stand_in.Running, second: stand_in.Running, tmp_path: Path
) -> None:
    """A server that sleeps needs no processor, so two cores are enough to see what is ours."""
    urls = [sleeper_server.grpc_url, second.grpc_url]
    with (
        ClientPool(urls[:1], transport="grpc") as one,
        ClientPool(urls, transport="grpc") as both,
    ):
        deployments = [
            (Fleet(1, 1, "round-robin", one, one.clients), "sleeper"),
            (Fleet(2, 1, "round-robin", both, both.clients), "sleeper"),
            (Fleet(1, 2, "round-robin", one, one.clients), "sleepers"),
        ]

        def task(pool: ClientPool, model: str) -> Callable[[int], object]:
            given = {"seconds": np.array([0.03])}
            return lambda _: pool.infer(model, given, ["times"])

        said: list[str] = []
        runs = drive(
            [(f, task(f.client, model)) for f, model in deployments],  # type: ignore[arg-type]
            models=["sleeper", "sleepers"], seconds=0.5, rounds=3, warm_up_seconds=1.0,
            progress=said.append,
        )  # fmt: skip
    assert [run.concurrency for run in runs] == [1, 2, 4, 2, 4, 8, 2, 4, 8]
    for run in runs:
        tasks = sum(len(r.started) for r in run.rounds)
        (counted,) = run.counters.values()
        assert counted.requests == tasks  # those of both servers
        assert not any(r.failures for r in run.rounds)

    tables, notes = evaluate(runs, ["round-robin"], [4], units=1)
    alone, twice = tables["efficiency"]
    assert alone["efficiency"] == 1
    assert twice["servers"] == 2
    assert twice["efficiency"] > 0.85
    assert tables["efficiency_of_instances"][1]["efficiency"] > 0.85
    (four,) = tables["predicted"]
    assert four["per_second"] == pytest.approx(4 * alone["per_second"], rel=0.25)
    assert four["from"] < four["studies_per_hour"] < four["to"]
    assert len(tables["test_of_the_model"]) == 2
    assert any("median error" in note for note in notes)
    assert any("assume machines like" in note for note in notes)


def test_places() -> None:
    def sizes(servers: int, cores: int) -> tuple[list[int], int]:
        found = places(servers, frozenset(range(cores)), 0)
        if found.pinned:
            for a, b in pairwise(found.cores):
                assert not a & b
        return [len(c) for c in found.cores], len(found.rest)

    assert sizes(2, 2) == ([1, 1], 0)
    assert sizes(1, 4) == ([4], 0)
    assert sizes(2, 4) == ([2, 2], 0)
    assert sizes(2, 16) == ([7, 7], 2)
    assert sizes(4, 2) == ([2, 2, 2, 2], 0)
    assert "share all cores" in places(4, frozenset({0, 1}), 0).words
    assert "the client shares" in places(2, frozenset({0, 1}), 0).words
    assert places(2, frozenset({0, 1}), 2).gpus == ("0", "1")
    assert places(2, frozenset({0, 1}), 1).gpus == ()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_identity(tmp_path_factory.mktemp("identity"))


def send(client: Client | ClientPool, value: int) -> None:
    data = np.full(100, value, np.uint8)
    answer = client.infer(IDENTITY, {"data": data}, ["data"])
    assert (answer.outputs["data"] == data).all()


@pytest.mark.load
def test_a_server_keeps_to_its_cores(identity: Path) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with on_cores(frozenset({core})):
        server = TritonServer(identity, models=[IDENTITY], grace=0).start()
    try:
        assert os.sched_getaffinity(0) == before
        assert server.pid is not None
        assert os.sched_getaffinity(server.pid) == {core}
    finally:
        server.stop()


@needs_haproxy
@pytest.mark.load
def test_fleets_share_out_both_ways(identity: Path) -> None:
    there = places(2, frozenset(os.sched_getaffinity(0)), 0)
    deployments = [(1, 1), (2, 1)]
    with fleets(
        identity, [IDENTITY], deployments, ["round-robin", "haproxy"], "grpc", there
    ) as found:
        assert [(f.servers, f.balance) for f in found] == [
            (1, "round-robin"), (2, "round-robin"), (1, "haproxy"), (2, "haproxy"),
        ]  # fmt: skip
        for fleet in (found[1], found[3]):
            counts = [client.statistics(IDENTITY).successes for client in fleet.each]
            for value in range(20):
                send(fleet.client, value)
            time.sleep(0.2)
            gained = [
                client.statistics(IDENTITY).successes - n
                for client, n in zip(fleet.each, counts, strict=True)
            ]
            assert gained == [10, 10]


@needs_haproxy
@pytest.mark.load
def test_a_drained_server_is_stopped_without_loss(identity: Path, tmp_path: Path) -> None:
    servers = [TritonServer(identity, models=[IDENTITY], http=True, grace=5) for _ in range(2)]
    failed: list[Exception] = []
    sent = 0
    stop = threading.Event()
    with servers[0], servers[1]:
        behind = [
            haproxy.Server(f"t{i}", s.grpc_url, str(s.http_url)) for i, s in enumerate(servers)
        ]
        text = haproxy.configuration(behind, "127.0.0.1:18001", tmp_path / "admin")
        (tmp_path / "haproxy.cfg").write_text(text)
        program = str(haproxy.installed())
        judged = subprocess.run(
            [program, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True
        )
        assert judged.returncode == 0, judged.stderr
        assert "WARNING" not in judged.stderr

        with haproxy.HAProxy(behind) as balancer:
            assert balancer.states() == {"t0": "UP", "t1": "UP"}

            def load() -> None:
                nonlocal sent
                with Client(balancer.url, transport="grpc", retry_window_s=0.0) as client:
                    while not stop.is_set():
                        try:
                            send(client, sent % 256)
                            sent += 1
                        except Exception as error:  # noqa: BLE001 - any failure counts
                            failed.append(error)

            thread = threading.Thread(target=load)
            thread.start()
            try:
                time.sleep(0.5)
                balancer.drain("t0")
                assert balancer.states()["t0"] == "DRAIN"
                servers[0].stop()
                time.sleep(1.0)
            finally:
                stop.set()
                thread.join()
            assert not failed
            assert sent > 50
            assert balancer.states()["t1"] == "UP"
            assert "UP" not in balancer.states()["t0"]


@needs_haproxy
def test_haproxy_waits_for_servers_that_are_ready() -> None:
    nobody = haproxy.Server("nobody", "127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(ServerError, match="are not ready"), haproxy.HAProxy([nobody], timeout=1.5):
        pass


def test_plans() -> None:
    plan = Plan(system="cxr-severity", instances=(2, 1), servers=(1, 2, 4))
    assert plan.deployments == [(1, 1), (1, 2), (2, 1), (4, 1)]
    assert loads(2, 1) == (2, 4, 8)
    assert "--servers 1,2,4" in plan.command
    for wrong, says in (
        ({"servers": (0,)}, "counts from 1"),
        ({"balances": ("dice",)}, "no balancing 'dice'"),
        ({"choice": Choice(url="a:1")}, "leave --url out"),
        ({"balances": ("haproxy",), "choice": Choice(transport="shm")}, "shared memory"),
    ):
        with pytest.raises(InputError, match=says):
            Plan(system="cxr-severity", **wrong)


def test_the_record_is_written_and_drawn(tmp_path: Path) -> None:
    from hilum.benchmarks.instrument.machine import machine

    rows = (
        {"servers": 1, "per_second": 5.0, "efficiency": 1.0, "predicted": 5.1, "held_out": False},
        {"servers": 2, "per_second": 9.0, "efficiency": 0.9, "predicted": 9.2, "held_out": True},
    )
    record = Record(
        kind="scale", title="scaling", command="hilum bench scale x", date="2026-01-01",
        hilum_version="0", machine=machine(), tables={"efficiency": rows},
    )  # fmt: skip
    text = write(record, tmp_path)
    assert read(tmp_path / "bench.json") == record
    assert "| 2 | 9 | 0.9 | 9.2 | yes |" in text
    assert (tmp_path / "efficiency.png").stat().st_size > 5000
