"""The capacity search on servers, and what the command is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from capacity_queues import SERVED, m_d_1_capacity, rule, still
from typer.testing import CliRunner

from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_bisection import Limits
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_runner import run
from hilum.benchmarks.capacity_search import state
from hilum.benchmarks.capacity_trials import FILE, Ask, Log, Trial
from hilum.benchmarks.instrument.loops import closed_loop
from hilum.benchmarks.instrument.record import read
from hilum.cli import app

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

    def make(ask: Ask) -> Trial:
        return Trial(ask, run(task, ask, bound, 64), SERVED)

    judged = []
    for attempt in range(ATTEMPTS):
        log = Log(tmp_path / str(attempt), {}, resume=False)
        before, beside = occupied()
        capacity.carry_out(log, how, make, still)
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
def test_the_command_starts_a_server_and_reports_what_is_out_of_reach(
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
    assert "closed loop, 1 in flight" in done.stderr
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
        (["cxr-severity", "--p99", "1s", "--url", "a:1", "--repository", "b"], "give one"),
    ],
)
def test_wrong_use(tmp_path: Path, given: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["bench", "capacity", *given, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())
