"""Arrivals, recorded files, mixed traffic, and `hilum bench load` through a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hilum.benchmarks.instrument import counters, record
from hilum.benchmarks.instrument.arrivals import drawn, fixed, mixed, poisson, replay, shares
from hilum.benchmarks.instrument.loops import open_loop
from hilum.benchmarks.instrument.machine import described, machine
from hilum.benchmarks.instrument.statistics import summarise
from hilum.benchmarks.instrument.where import by_system, where
from hilum.benchmarks.systems import workload
from hilum.catalog import SYSTEMS
from hilum.catalog.errors import InputError
from hilum.cli import app
from hilum.client import Client
from hilum.client.registry import INSTALLED
from hilum.server.launcher import TritonServer

HILUM = Path(sys.executable).with_name("hilum")


def test_poisson() -> None:
    times = np.array(poisson(50, 100, 1))
    assert len(times) == pytest.approx(5000, abs=4 * np.sqrt(5000))
    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0] < times[-1] < 100
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.06)  # exponential
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.06  # independent
    assert poisson(50, 100, 1) == tuple(times)
    assert poisson(50, 100, 2) != tuple(times)
    assert len(poisson(1e-6, 1, 0)) == 1


def test_fixed() -> None:
    assert fixed(4, 1) == (0, 0.25, 0.5, 0.75)
    for rate, seconds in ((0, 1), (-1, 1), (1, 0), (float("nan"), 1), (1e6, 1e6)):
        with pytest.raises(InputError, match=r"above 0|at most"):
            fixed(rate, seconds)
        with pytest.raises(InputError, match=r"above 0|at most"):
            poisson(rate, seconds, 0)


def test_replay_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("ward,seconds, system\nA,12.5,ct-angel\nB,10.0,dlpe\nC,11,ct-angel\n")
    found = replay(file)
    assert found.seconds == (0, 1, 2.5)
    assert found.systems == ("dlpe", "ct-angel", "ct-angel")
    assert found.rate == pytest.approx(2 / 2.5)
    file.write_text("seconds\n3\n1\n")
    assert replay(file).seconds == (0, 2)
    assert replay(file).systems == ()


def test_replay_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"seconds": 1.5, "system": "dlpe"}\n\n{"seconds": 1, "system": "dlpe"}\n')
    assert replay(file).seconds == (0, 0.5)
    assert replay(file).systems == ("dlpe", "dlpe")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "seconds,system\n1,dlpe\n2,\n", "1 of 2 lines name no system"),
        ("a.csv", "seconds\n1\nsoon\n", "line 3: no number"),
        ("a.csv", "time\n1\n", "line 2: no number"),
        ("a.csv", "seconds\n", "has 0 arrivals"),
        ("a.csv", "seconds\ninf\n", "line 2: no number"),
        ("a.jsonl", '{"seconds": 1}\n[2]\n', "line 2: no JSON object"),
        ("a.jsonl", "1,2\n", "line 1: no JSON object"),
    ],
)
def test_replay_names_the_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        replay(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        replay(tmp_path / "none.csv")


def test_shares() -> None:
    assert shares("dlpe=3, ct-angel=0.5", SYSTEMS) == {"dlpe": 3, "ct-angel": 0.5}
    assert shares("dlpe", SYSTEMS) == {"dlpe": 1}
    for wrong in ("dlpe=0", "dlpe=x", "dlpe=1,dlpe=2", "nothing=1", "dlpe=nan", ""):
        with pytest.raises(InputError, match="mix"):
            shares(wrong, SYSTEMS)


@pytest.mark.load
def test_mixed_traffic_goes_where_it_belongs(
    send: Callable[..., np.ndarray], client: Client
) -> None:
    tags = drawn({"one": 3, "two": 1}, 5)
    ways = {
        "one": lambda _: send("sleeper", 0.001),
        "two": lambda n: send("sleepers", -1.0 if n == last else 0.02),
    }
    last = max(n for n in range(80) if tags(n) == "two")
    before = counters.settled(client, ["sleeper", "sleepers"])
    measured = open_loop(mixed(ways, tags, 0), fixed(80, 1), concurrency=8, tags=tags)
    found = counters.gained(before, counters.settled(client, ["sleeper", "sleepers"]))
    assert found is not None
    assert measured.tags == tuple(tags(n) for n in range(80))
    number = Counter(measured.tags)
    assert 8 <= number["two"] <= 32
    assert found["sleeper"].requests == number["one"]
    assert found["sleepers"].requests == number["two"] - 1
    assert found["sleepers"].failures == 1
    assert Counter(drawn({"one": 3, "two": 1}, 9)(n) for n in range(4000))["one"] == pytest.approx(
        3000, abs=120
    )

    lane = record.Lane(
        "mixed", {"one": 3, "two": 1}, "open", "task", 1, 8, "grpc", "none", "fp32", (measured,),
        summarise([measured], 1), counters=found,
    )  # fmt: skip
    rows = {row["system"]: row for row in by_system(lane)}
    assert rows["two"]["samples"] == number["two"] - 1
    assert rows["two"]["failures"] == {"InferenceFailed (INTERNAL)": 1}
    assert rows["two"]["latency_s"]["50"] > 0.02
    assert rows["one"]["latency_s"]["50"] > 0.001
    spent = where(lane)
    parts = ("waiting_s", "queue_s", "copy_s", "infer_s", "rest_s")
    assert sum(spent[p] for p in parts) == pytest.approx(spent["latency_s"], rel=0.2)
    assert spent["infer_s"] > 0.001


def test_every_system_has_a_workload() -> None:
    for system in INSTALLED:
        for quick in (False, True):
            load = workload(system, quick=quick)
            assert load.system == system
            assert set(load.models) <= set(load.counted)
            assert load.networks
            assert load.describe.startswith(system)
    with pytest.raises(InputError, match="no workload of 'x-ray'"):
        workload("x-ray")


def test_machine() -> None:
    found = machine()
    assert found.cores >= 1
    assert found.memory_gib > 0.5
    assert found.versions["numpy"] == np.__version__
    assert f"{found.cores} cores" in described(found)


@pytest.fixture(scope="module")
def bench(standin_server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of everything that a single system can be loaded with."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "arrivals.csv").write_text("seconds,system\n0,cxr-severity\n0.4,cxr-severity\n")
    done = subprocess.run(
        [HILUM, "bench", "load", "cxr-severity", "--url", standin_server.grpc_url,
         "--metrics", standin_server.metrics_url, "--concurrency", "2", "--rate", "3",
         "--arrivals", "fixed", "--replay", folder / "arrivals.csv", "--seconds", "1",
         "--rounds", "3", "--quick", "--transport", "grpc", "--out", folder / "out"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "out" / "printed").write_text(done.stdout)
    (folder / "out" / "told").write_text(done.stderr)
    return folder / "out"


@pytest.mark.load
def test_bench_load(bench: Path, standin_server: TritonServer) -> None:
    found = record.read(bench / "bench.json")
    assert found.kind == "load"
    assert [lane.loop for lane in found.lanes] == ["closed", "open", "open"]
    assert [lane.arrivals for lane in found.lanes] == [None, "fixed", "replay"]
    assert [lane.blind_to_stalls for lane in found.lanes] == [True, False, False]
    for lane in found.lanes:
        assert len(lane.rounds) == 3
        tasks = sum(len(r.started) for r in lane.rounds)
        assert lane.summary.samples == tasks > 0
        assert not lane.summary.failures
        assert lane.counters["cxr_severity_manet"].requests == tasks
        assert lane.counters["cxr_lung"].inferences == tasks
        assert lane.transport == "grpc"
        assert (lane.unit, lane.units) == ("image", 1)
        assert lane.sent_bytes is not None
        assert lane.sent_bytes > 1000
    fixed_lane, replayed = found.lanes[1:]
    assert fixed_lane.rounds[0].intended == fixed(3, 5 / 3)  # five arrivals at least
    assert all(r.intended == (0, 0.4) for r in replayed.rounds)
    assert {row["lane"] for row in found.tables["where"]} == {lane.name for lane in found.lanes}
    assert standin_server.grpc_url not in (bench / "bench.json").read_text()


@pytest.mark.load
def test_bench_load_can_be_read(bench: Path) -> None:
    text = (bench / "bench.md").read_text()
    assert text.strip() in (bench / "printed").read_text()
    assert "closed loop, 2 in flight ¹" in text
    assert "Closed loop: nothing is sent while the server stalls" in text
    assert "Not a medical device" in text or "not a medical device" in text
    assert (bench / "bench.html").stat().st_size > 10_000
    assert json.loads((bench / "bench.json").read_text())["schema"] == record.SCHEMA
    assert "round 2/3: cxr-severity, open loop, fixed, 3/s" in (bench / "told").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--rate", "0", "cxr-severity"], "rates above 0"),
        (["--mix", "dlpe=1", "cxr-severity"], "name systems, or a mix"),
        (["nothing"], "no workload of 'nothing'"),
        (["cxr-severity", "--arrivals", "bursts"], "no arrivals 'bursts'"),
        (["cxr-severity", "--url", "127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_wrong_use(tmp_path: Path, given: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["bench", "load", *given, "--out", str(tmp_path)])
    assert done.exit_code in (2, 3)
    assert told in done.stderr
    assert not list(tmp_path.iterdir())
