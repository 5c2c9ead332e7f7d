"""The capacity search: its rule, its decisions on simulated queues, and a server that sleeps."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hilum.benchmarks import capacity
from hilum.benchmarks.capacity_bisection import (
    Limits,
    Tried,
    ascending,
    guess,
    interval,
    next_rate,
)
from hilum.benchmarks.capacity_record import lanes, notes, rows
from hilum.benchmarks.capacity_rule import Bound, duration, judge, parse_duration
from hilum.benchmarks.capacity_runner import by_precision, fingerprints, run
from hilum.benchmarks.capacity_search import Rule, candidates, check_samples, ranked, state
from hilum.benchmarks.capacity_trials import FILE, Ask, Log, Served, Setting, Trial
from hilum.benchmarks.instrument.arrivals import poisson
from hilum.benchmarks.instrument.loops import NOT_STARTED, closed_loop
from hilum.benchmarks.instrument.record import read
from hilum.benchmarks.pages.answers import answers
from hilum.benchmarks.pages.tables import markdown
from hilum.catalog.errors import InputError, RepositoryError
from hilum.client.cli import app
from PIL import Image
from records import make_record, make_round
from stand_in import lindley
from typer.testing import CliRunner

HILUM = Path(sys.executable).parent / "hilum"

SERVED = Served("grpc", "random", "fp32", "image", 1, 64)


def still(_: str) -> None:
    """Nobody waits."""


# Theory


def wait_within(rate: float, service: float, seconds: float) -> float:
    """P(wait ≤ seconds) of M/D/1 (Erlang; L. Takács, Theory of Queues, 1962)."""
    total = 0.0
    for k in range(int(seconds // service) + 1):
        left = rate * (k * service - seconds)  # at most 0
        total += left**k / math.factorial(k) * math.exp(-left)
    return (1 - rate * service) * total


def m_d_1_capacity(service: float, beside: float, bound: Bound) -> float:
    """The rate at which the percentile of service, wait and what lies beside is the bound."""
    low, high = 0.0, 0.999 / service
    for _ in range(50):
        rate = (low + high) / 2
        within = wait_within(rate, service, bound.seconds - service - beside)
        low, high = (rate, high) if within >= bound.percentile / 100 else (low, rate)
    return low


def test_theory_is_that_of_the_recursion() -> None:
    """The formula that the searches are judged by, against a long simulated queue."""
    arrivals = np.array(poisson(70, 800, 1))
    waits = lindley(arrivals, np.full(len(arrivals), 0.01))
    for seconds in (0.0, 0.01, 0.025, 0.04):
        assert wait_within(70, 0.01, seconds) == pytest.approx(
            float((waits <= seconds).mean()), abs=0.02
        )


# The rule


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2s", 2), (" 1.5 s", 1.5), ("5min", 300), (".5s", 0.5)]
)
def test_bounds_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["500", "fast", "-1s", "0ms", "2 hours", "", "1e3ms"])
def test_bad_bounds_are_named(text: str) -> None:
    with pytest.raises(InputError, match="write 500ms, 2s or 5min") as told:
        parse_duration(text)
    assert repr(text) in str(told.value)


def test_only_percentiles_of_the_instrument() -> None:
    with pytest.raises(InputError, match="no percentile 98; choose one of 50, 75"):
        Bound(1.0, 98)
    with pytest.raises(InputError, match="above 0"):
        Bound(0.0)


def took(latencies: list[float], **fields: object):
    """A run with an arrival each second, which took so long; the lead-in is before them."""
    times = [0.0] * (len(latencies) // 8) + list(latencies)
    due = np.arange(len(times), dtype=float)
    return make_round(due, due + np.array(times), **fields)


def spread(missed: int, tasks: int) -> list[float]:
    """Misses far from each other."""
    found = np.zeros(tasks)
    found[np.linspace(tasks // 5, tasks - 20, missed).astype(int)] = 9.0
    return list(found)


def test_a_rate_meets_misses_or_is_undecided() -> None:
    bound = Bound(1.0, 95)
    assert judge([took([0.1] * 100)], bound).verdict == "meets"
    assert judge([took([0.1] * 30)], bound).verdict == "undecided"  # too few to be sure
    assert judge([took(spread(5, 100))], bound).verdict == "undecided"
    assert judge([took(spread(12, 100))], bound).verdict == "misses"
    assert judge([took(spread(5, 1000))], bound).verdict == "meets"
    found = judge([took(spread(5, 100)), took(spread(4, 100))], bound)
    assert (found.missed, found.events, found.verdict) == (9, 9, "undecided")
    # Clopper and Pearson (1934): of 9 in about 200, one-sided at 95 %.
    assert 0.018 < found.share_low < 0.026
    assert 0.065 < found.share_high < 0.085
    assert judge([took([0.2] * 97 + [9.0] * 3)], bound).latency_s == pytest.approx(0.2)


def test_one_busy_spell_is_one_event() -> None:
    """Twelve tasks that waited for the same stall are no twelve witnesses."""
    bound = Bound(1.0, 95)
    stalled = [0.1] * 44 + [9.0] * 12 + [0.1] * 44
    found = judge([took(stalled)], bound)
    assert (found.missed, found.events, found.verdict) == (12, 1, "undecided")
    assert judge([took(stalled)] * 4, bound).verdict == "undecided"
    assert judge([took([9.0] * 100)], bound).verdict == "misses"  # an overload
    assert judge([took([0.1] * 45 + [9.0] * 55)], Bound(1.0, 50)).verdict == "undecided"


def test_the_lead_in_is_not_judged() -> None:
    slow_at_first = [9.0] * 10 + [0.1] * 140
    due = np.arange(150, dtype=float)
    found = judge([make_round(due, due + np.array(slow_at_first))], Bound(1.0, 95))
    assert (found.missed, found.tasks) == (0, 135)


def test_failures_are_misses_and_a_backlog_given_up_fails() -> None:
    bound = Bound(1.0, 95)
    failed = dict.fromkeys(range(30, 110, 6), "DeadlineExceeded (DEADLINE_EXCEEDED)")
    found = judge([took([0.1] * 100, failures=failed)], bound)
    assert (found.missed, found.verdict, found.latency_s) == (14, "misses", None)
    one = judge([took([0.1] * 400, failures={449: NOT_STARTED})], bound)
    assert (one.missed, one.verdict, one.given_up) == (1, "misses", True)


# The bisection

LIMITS = Limits(tolerance=0.1, runs=3, edge=2, most=20)


def test_bisection_begins_below_the_closed_loop() -> None:
    assert next_rate(10.0, [], LIMITS) == 7.0
    assert next_rate(10.0, [Tried(7.0, "misses", 1)], LIMITS) == 3.5
    assert next_rate(10.0, [Tried(7.0, "meets", 1)], LIMITS) == 8.5


def test_undecided_rates_are_run_again_and_then_gone_around() -> None:
    tried = [Tried(7.0, "undecided", 1)]
    assert next_rate(10.0, tried, LIMITS) == 7.0
    tried = [Tried(7.0, "undecided", 3)]
    assert next_rate(10.0, tried, LIMITS) == 3.5  # the wider gap
    tried.append(Tried(3.5, "meets", 1))
    assert next_rate(10.0, tried, LIMITS) == 5.25
    assert interval(tried).doubtful == (7.0,)


def test_edges_are_repeated_even_that_of_the_closed_loop() -> None:
    tried = [Tried(9.5, "meets", 1)]
    assert next_rate(10.0, tried, LIMITS) == 10.0  # it was never run
    tried = [Tried(9.5, "meets", 1), Tried(10.0, "misses", 1)]
    assert next_rate(10.0, tried, LIMITS) == 9.5
    tried = [Tried(9.5, "meets", 2), Tried(10.0, "misses", 1)]
    assert next_rate(10.0, tried, LIMITS) == 10.0
    tried = [Tried(9.5, "meets", 2), Tried(10.0, "misses", 2)]
    assert next_rate(10.0, tried, LIMITS) is None
    beyond = [Tried(9.5, "meets", 1), Tried(10.0, "meets", 1)]
    assert next_rate(10.0, beyond, LIMITS) == 12.5  # the closed loop had a slow spell: up to 15


def test_bisection_ends() -> None:
    assert next_rate(10.0, [Tried(7.0, "undecided", 20)], LIMITS) is None
    # Nothing meets the bound: down to the floor, not for ever.
    tried: list[Tried] = []
    while (rate := next_rate(10.0, tried, LIMITS)) is not None:
        known = {t.rate: t.runs for t in tried}
        tried = [t for t in tried if t.rate != rate]
        tried.append(Tried(rate, "misses", known.get(rate, 0) + 1))
    assert interval(tried).low == 0
    assert 0.3 < (interval(tried).high or 0) < 1


def test_a_lower_miss_counts_more_than_a_higher_hit() -> None:
    tried = [Tried(4.0, "meets", 2), Tried(6.0, "misses", 2), Tried(8.0, "meets", 2)]
    found = interval(tried)
    assert (found.low, found.high) == (4.0, 6.0)
    assert not ascending(tried)
    assert ascending(tried[:2])
    assert not ascending([Tried(3.0, "undecided", 3), *tried[:2]])
    assert guess(10.0, tried) == 5.0


# Simulated queues: the decisions are under test, and a queue of known behaviour is what they need


@dataclasses.dataclass(slots=True)
class Simulated:
    """One instance with a service time that is always the same; made anew for each setting."""

    service: Callable[[Setting], float]
    made: list[tuple[Setting, Ask]] = dataclasses.field(default_factory=list)
    stop_after: int | None = None

    def make(self, setting: Setting, ask: Ask) -> Trial:
        if self.stop_after is not None and len(self.made) >= self.stop_after:
            raise KeyboardInterrupt
        self.made.append((setting, ask))
        service, seconds = self.service(setting), ask.seconds
        if ask.kind == "open":
            due = np.array(poisson(ask.offered, seconds, ask.seed))
            ended = due + lindley(due, np.full(len(due), service)) + service
        else:
            number = min(ask.tasks or 10**9, int(seconds / service))
            ended = service * (1 + np.arange(number))
            due = np.maximum(ended - service * ask.offered, 0)
        return Trial(setting, ask, make_round(due, ended), SERVED)


def rule(bound: Bound, **fields: object) -> Rule:
    usual = {"limits": Limits(0.05), "closed_seconds": 2.0, "least_seconds": 4.0}
    return Rule(bound, 64, **{**usual, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("percentile", "times"), [(99, 5), (95, 3), (90, 10)])
def test_simulated_capacity_is_that_of_m_d_1(
    tmp_path: Path, percentile: float, times: int, seed: int
) -> None:
    service = 0.02
    bound = Bound(times * service, percentile)
    how, log = rule(bound, seed=100 * seed), Log(tmp_path, {}, resume=False)
    capacity.carry_out([Setting()], log, how, Simulated(lambda _: service).make, still)
    found = state(log.trials, how)
    theory = m_d_1_capacity(service, 0.0, bound)
    assert found.ceiling == pytest.approx(1 / service, rel=0.01)
    assert found.interval.high is not None
    # The ends are sure, each for itself, at 95 %: they may lie a little on the other side.
    assert 0.6 * theory < found.interval.low < 1.1 * theory
    assert 0.9 * theory < found.interval.high < 1.4 * theory
    edge = [t.runs for t in found.tried if t.rate in (found.interval.low, found.interval.high)]
    assert min(edge) >= 2
    assert len([t for t in log.trials if t.ask.kind == "open"]) <= how.limits.most


def test_a_bound_out_of_reach_is_told(tmp_path: Path) -> None:
    how, log = rule(Bound(0.05, 95)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(lambda _: 0.08)
    capacity.carry_out([Setting()], log, how, simulated.make, still)
    assert [ask.kind for _, ask in simulated.made] == ["alone"]
    (row,), rates = rows([Setting()], log.of, how)
    assert (row["outcome"], row["per_second"], rates) == ("out of reach", None, [])
    record = make_record(
        lanes("cxr-severity", Setting(), log.trials), kind="capacity", tables={"capacity": (row,)}
    )
    assert (
        "alone, a task (1 image) takes 80 ms (median), and 50 ms were wanted" in answers(record)[0]
    )


def test_one_slow_task_does_not_put_a_bound_out_of_reach(tmp_path: Path) -> None:
    how, log = rule(Bound(5.0, 90)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(lambda _: 1.5)
    capacity.carry_out([Setting()], log, how, simulated.make, still)
    alone = [ask.tasks for _, ask in simulated.made if ask.kind == "alone"]
    assert alone == [20, 2]  # the first took 2 s of tasks
    assert lanes("cxr-severity", Setting(), log.trials)[0].summary.samples == 3


def test_failing_alone_is_told(tmp_path: Path) -> None:
    def make(setting: Setting, ask: Ask) -> Trial:
        ended = np.arange(4.0) + 1
        return Trial(
            setting, ask, make_round(ended - 1, ended, failures=dict.fromkeys(range(4), "Broken")),
            SERVED,
        )  # fmt: skip

    with pytest.raises(InputError, match=r"every task failed even alone \(Broken\)"):
        capacity.carry_out(
            [Setting()], Log(tmp_path, {}, resume=False), rule(Bound(1.0)), make, still
        )


def test_too_few_samples_are_told_before_they_are_measured(tmp_path: Path) -> None:
    how = rule(Bound(1.0, 99), seconds=20.0)
    log, simulated = Log(tmp_path, {}, resume=False), Simulated(lambda _: 0.5)
    with pytest.raises(InputError, match="p99 needs 500 samples") as told:
        capacity.carry_out([Setting()], log, how, simulated.make, still)
    assert all(ask.kind != "open" for _, ask in simulated.made)
    # 2 per second: 500 samples take 278 s with the lead-in, in three runs of 93 s.
    assert "--seconds 93, or --percentile 95" in str(told.value)
    check_samples(state(log.trials, how), rule(Bound(1.0, 99), seconds=94.0))
    check_samples(state(log.trials, how), rule(Bound(1.0, 95), seconds=20.0))
    with pytest.raises(InputError, match="an overload would not show; give --seconds 40"):
        rule(Bound(2.0), seconds=30.0)


# The search over settings

SPACE = {"transport": ("auto", "grpc"), "instances": (None, 1, 2, 4), "workers": (None, 8)}


def test_candidates_cover_every_value_alike() -> None:
    found = candidates(SPACE, 8)
    assert found[0] == Setting()
    assert len(set(found)) == 8
    assert candidates(SPACE, 8) == found != candidates(SPACE, 8, seed=1)
    for name, values in SPACE.items():
        counts = [sum(getattr(s, name) == v for s in found) for v in values]
        assert max(counts) - min(counts) <= 1
    assert len(candidates(SPACE, 100)) == 16


def service_of(setting: Setting) -> float:
    """More instances are faster up to two, gRPC is slower than shared memory."""
    return {None: 0.02, 1: 0.025, 2: 0.012, 4: 0.018}[setting.instances] + 0.002 * (
        setting.transport == "grpc"
    )


def test_halving_finds_the_best_with_less_than_the_grid(tmp_path: Path) -> None:
    settings = candidates(SPACE, 16)
    how, log = rule(Bound(0.1, 95)), Log(tmp_path, {}, resume=False)
    simulated = Simulated(service_of)
    capacity.carry_out(settings, log, how, simulated.make, still)
    best = ranked(settings, log.of, how)[0]
    assert (best.instances, best.transport) == (2, "auto")
    opened = {s: sum(t.ask.kind == "open" for t in log.of(s)) for s in settings}
    assert sorted(opened.values())[:7] == [2] * 7  # the default goes on, for comparison
    assert sum(opened.values()) < 0.6 * 16 * max(opened.values())
    capacities, rates = rows(settings, log.of, how)
    outcomes = [row["outcome"] for row in capacities]
    assert outcomes[:2] == ["found", "found"]
    assert outcomes.count("left behind") >= 7
    assert "found" in [row["outcome"] for row in capacities if row["setting"] == str(Setting())]
    assert capacities[0]["setting"] == str(best)
    theory = m_d_1_capacity(0.012, 0.0, how.bound)
    assert 0.6 * theory < capacities[0]["per_second"] < 1.1 * theory
    assert {row["setting"] for row in rates} == {str(s) for s in settings}
    # Settings of one server stay together, so that it is started anew only when it must be.
    servers = [s.server for s, _ in simulated.made]
    restarts = sum(a != b for a, b in pairwise(servers))
    assert restarts <= 8 + 8 + 4 + 4


def plan_of(settings: tuple[Setting, ...]) -> dict[str, object]:
    return {"system": "cxr-severity", "settings": [str(s) for s in settings], "seconds": None}


@pytest.mark.parametrize("after", [0, 1, 5, 23])
def test_resume_repeats_no_finished_trial(tmp_path: Path, after: int) -> None:
    settings, how = candidates(SPACE, 4), rule(Bound(0.1, 95))
    whole = Simulated(service_of)
    log = Log(tmp_path / "whole", plan_of(settings), resume=False)
    capacity.carry_out(settings, log, how, whole.make, still)

    first = Simulated(service_of, stop_after=after)
    folder, plan = tmp_path / "stopped", plan_of(settings)
    with pytest.raises(KeyboardInterrupt):
        capacity.carry_out(settings, Log(folder, plan, resume=False), how, first.make, still)
    with (folder / FILE).open("a") as file:
        file.write('{"setting": {"instan')  # killed while it wrote
    second = Simulated(service_of)
    again = Log(folder, plan, resume=True)
    assert len(again.trials) == after
    capacity.carry_out(settings, again, how, second.make, still)
    assert first.made + second.made == whole.made
    assert again.trials == log.trials
    assert rows(settings, again.of, how) == rows(settings, log.of, how)
    assert (folder / FILE).read_text() == (tmp_path / "whole" / FILE).read_text()


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    settings, how = candidates(SPACE, 2), rule(Bound(0.1, 95))
    plan = plan_of(settings)
    capacity.carry_out(
        settings, Log(tmp_path, plan, resume=False), how, Simulated(service_of).make, still
    )
    before = (tmp_path / FILE).read_text()
    with pytest.raises(InputError, match="go on with --resume"):
        Log(tmp_path, plan, resume=False)
    with pytest.raises(InputError, match=r"another search \(seconds was None, is 8.0\)"):
        Log(tmp_path, {**plan, "seconds": 8.0}, resume=True)
    assert (tmp_path / FILE).read_text() == before
    (tmp_path / FILE).write_text("a diary\n")
    with pytest.raises(InputError, match="no file of trials"):
        Log(tmp_path, plan, resume=True)
    (tmp_path / FILE).write_text(before.splitlines()[0] + '\n{"setting": {}}\n')
    with pytest.raises(InputError, match=r"trials.jsonl, line 2: no trial"):
        Log(tmp_path, plan, resume=True)


# The record


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The record of a search over simulated queues, written."""
    folder = tmp_path_factory.mktemp("record")
    settings, how = candidates(SPACE, 4), rule(Bound(0.1, 95))
    log = Log(folder, plan_of(settings), resume=False)
    capacity.carry_out(settings, log, how, Simulated(service_of).make, still)
    best = ranked(settings, log.of, how)[0]
    capacities, rates = rows(settings, log.of, how)
    record = make_record(
        lanes("cxr-severity", best, log.of(best)), kind="capacity",
        title="Capacity of cxr-severity for p95 ≤ 100ms",
        tables={"capacity": tuple(capacities), "trials": tuple(rates)},
        notes=tuple(notes(settings, log.of, how)),
    )  # fmt: skip
    (folder / "printed").write_text(capacity.write(record, folder))
    return folder


def test_the_record_holds_lanes_and_tables(written: Path) -> None:
    record = read(written / "bench.json")
    assert record.kind == "capacity"
    best = record.tables["capacity"][0]
    assert best["outcome"] == "found"
    opened = [lane for lane in record.lanes if lane.loop == "open"]
    rates = [t for t in record.tables["trials"] if t["setting"] == best["setting"]]
    assert [lane.rate for lane in opened] == [t["per_second"] for t in rates]
    assert [len(lane.rounds) for lane in opened] == [t["runs"] for t in rates]
    assert [lane.concurrency for lane in record.lanes if lane.loop == "closed"][:2] == [1, 2]
    said = answers(record)
    assert f"{best['per_second']:.3g} arrivals per second" in said[0]
    assert "95 of 100 answered within 100 ms; best of 4 settings" in said[0]
    assert f"From {best['misses_from']:.3g} per second on" in said[1]


def test_the_record_can_be_read_and_seen(written: Path) -> None:
    text = (written / "printed").read_text()
    assert text == (written / "bench.md").read_text() == markdown(read(written / "bench.json"))
    assert "## Capacity" in text
    assert "## Rates that were tried" in text
    assert "with 95% confidence" in text
    page = (written / "bench.html").read_text()
    assert page.index("surely meet the bound") > page.index("arrivals per second")
    drawn = np.asarray(Image.open(written / "capacity.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)):  # rates that meet, rates that miss
        assert (np.abs(drawn.astype(int) - colour).max(axis=1) < 8).sum() > 20


# Servers

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
