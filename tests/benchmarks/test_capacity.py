"""The capacity search on servers, and what the command is asked for."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from capacity_queues import SERVED, m_d_1_capacity, rule, still
from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_bisection import Limits
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_runner import by_precision, fingerprints, run
from hilum.benchmarks.capacity_search import state
from hilum.benchmarks.capacity_trials import FILE, Ask, Log, Setting, Trial
from hilum.benchmarks.instrument.loops import closed_loop
from hilum.benchmarks.instrument.record import read
from hilum.catalog.errors import InputError, RepositoryError
from hilum.client.cli import app
from typer.testing import CliRunner

HILUM = Path(sys.executable).parent / "hilum"

NOISE = 0.15
"""What the found rate may lie off the theory of a queue whose service time was measured: the
samples' own interval comes on top, since the interval's ends are compared, not its middle."""

ATTEMPTS = 3
"""On a busy machine the service time changes while the search runs; such a search is no test."""


@pytest.mark.load
def test_capacity_of_the_sleeper_is_that_of_m_d_1(
    send: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    bound, sleep = Bound(0.06, 95), 0.01
    how = rule(bound, limits=Limits(0.1, most=8), closed_seconds=0.7, seconds=1.5)

    def task(_: int) -> np.ndarray:
        return send("sleeper", sleep)

    def occupied() -> tuple[float, float]:
        """How long a request keeps the instance, and what it takes beside that when alone."""
        times: list[np.ndarray] = []
        closed_loop(lambda n: times.append(task(n)), concurrency=4, tasks=40)
        each = float(np.median(np.diff(np.sort([t[0] for t in times]))))
        alone = closed_loop(task, concurrency=1, tasks=20)
        took = np.median(np.subtract(alone.finished, alone.started))
        return each, max(float(took) - each, 0.0)

    def make(setting: Setting, ask: Ask) -> Trial:
        return Trial(setting, ask, run(task, ask, bound, 64), SERVED)

    judged = []
    for attempt in range(ATTEMPTS):
        log = Log(tmp_path / str(attempt), {}, resume=False)
        before, beside = occupied()
        capacity.carry_out([Setting()], log, how, make, still)
        after, _ = occupied()
        found = state(log.trials, how)
        if abs(after / before - 1) > 0.05:
            continue
        theory = m_d_1_capacity(before, beside, bound)
        edge = found.interval
        high = edge.high or 1.5 * found.ceiling
        judged.append((theory, edge, found.ceiling))
        # The interval holds the theory's rate, and its low end is a rate to promise, not far off.
        if edge.low / theory < 1 + NOISE and high / theory > 1 - NOISE and edge.low > theory / 2:
            return
    if len(judged) < ATTEMPTS / 2:
        pytest.skip("this machine is too busy for a server whose service time is always the same")
    raise AssertionError(judged)


@pytest.mark.load
def test_the_command_starts_a_server_and_tells_what_is_out_of_reach(
    standin_repository: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [HILUM, "bench", "capacity", "cxr-severity", "--p99", "1ms", "--quick",
         "--repository", standin_repository, "--transport", "grpc", "--out", tmp_path],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    record = read(tmp_path / "bench.json")
    (row,) = record.tables["capacity"]
    assert (row["outcome"], row["per_second"]) == ("out of reach", None)
    assert row["alone_s"] > 0.001
    (lane,) = record.lanes
    assert (lane.loop, lane.concurrency, lane.transport) == ("closed", 1, "grpc")
    assert lane.counters["cxr_lung"].requests == lane.summary.samples
    assert "closed loop, 1 in work" in done.stderr
    assert str(tmp_path) not in (tmp_path / "bench.json").read_text()
    assert "out of reach" in done.stdout
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["cxr-severity", "--p99", "500"], "'500' is no time above 0 with a unit"),
        (["cxr-severity", "--bound", "1s", "--percentile", "98"], "no percentile 98"),
        (["nothing", "--p99", "1s"], "no workload of 'nothing'"),
        (["cxr-severity", "--p99", "1s", "--seconds", "5"], "give --seconds 20 or more"),
        (["cxr-severity", "--p99", "1s", "--repository", "a", "--repository", "b"], "--search"),
        (["cxr-severity", "--p99", "1s", "--url", "a:1", "--repository", "b"], "give one"),
    ],
)
def test_wrong_use(tmp_path: Path, given: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["bench", "capacity", *given, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_repositories_go_by_precision(tmp_path: Path) -> None:
    load = capacity.workload("cxr-severity", quick=True)
    models = [n.model for n in load.declared.networks if n.name in load.networks]
    folders = {name: tmp_path / name for name in ("full", "half", "again", "mixed")}
    precisions = {"full": ["fp32"], "half": ["fp16"], "again": ["fp32"], "mixed": ["fp16", "fp32"]}
    for name, folder in folders.items():
        for place, model in enumerate(models):
            (folder / model / "1").mkdir(parents=True)
            told = precisions[name][place % len(precisions[name])]
            certificate = {
                "file": {"sha256": f"{name}{model}"}, "sizes": {}, "network": model,
                "weights": {"source": "random"}, "precision": told,
            }  # fmt: skip
            (folder / model / "1" / "certificate.json").write_text(json.dumps(certificate))
    full, half = folders["full"], folders["half"]
    found = by_precision([full, half], load)
    assert found == {"fp32": full, "fp16": half}
    assert by_precision([full], load) == {None: full}
    assert by_precision([], load) == {None: None}
    plan = capacity.Plan(
        system="cxr-severity", bound=Bound(1.0), search=True, repositories=[full, half]
    )
    tried = plan.settings(load, list(found))
    assert tried[0] == Setting(precision="fp32")
    assert sum(s.precision == "fp16" for s in tried) == len(tried) / 2
    assert len(set(fingerprints([full, half], load))) == 2 * len(models)
    with pytest.raises(InputError, match="again holds fp32; give one for each"):
        by_precision([full, folders["again"]], load)
    with pytest.raises(InputError, match="mixed holds fp16 and fp32"):
        by_precision([full, folders["mixed"]], load)
    (half / models[0] / "1" / "certificate.json").unlink()
    with pytest.raises(RepositoryError, match=f"{models[0]} has no certificate"):
        by_precision([full, half], load)


def test_the_search_asks_for_what_the_system_and_the_server_allow() -> None:
    bound, load = Bound(1.0), capacity.workload("cxr-severity", quick=True)
    plan = capacity.Plan(system="cxr-severity", bound=bound, search=True)
    found = plan.settings(load, [None])
    assert found[0] == Setting()
    assert {s.queue_delay_ms for s in found} == {None, 1.0, 5.0}
    assert {s.transport for s in found} == {"auto", "grpc"}
    running = capacity.Choice(url="localhost:8001")
    plan = dataclasses.replace(plan, choice=running)
    assert {s.server[1:3] for s in plan.settings(load, [None])} == {(None, None)}
    assert {s.workers for s in plan.settings(load, [None])} == {None, 8}
    plan = dataclasses.replace(plan, search=False)
    assert plan.settings(load, [None]) == (Setting(),)
