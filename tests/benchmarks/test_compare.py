"""Whether `hilum bench compare` tells a real change from a machine's mood."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from records import MACHINE, NO_SUMMARY, closed_round, make_lane, make_record
from typer.testing import CliRunner

from hilum.benchmarks.instrument.compare import Comparison
from hilum.benchmarks.instrument.compare import compare as compare_records
from hilum.benchmarks.instrument.record import Deviation, Lane, Record, write
from hilum.benchmarks.pages.changes import markdown
from hilum.catalog.errors import InputError
from hilum.cli import app

compare = partial(compare_records, repeats=400)
LATER = "2026-11-21T11:00:00+00:00"


def lane(*rounds: Sequence[float], name: str = "lane", **fields: object) -> Lane:
    return make_lane(
        name, [closed_round(np.array(r)) for r in rounds], summary=NO_SUMMARY, **fields
    )


def record(*rounds: Sequence[float], date: str | None = None, **fields: object) -> Record:
    found = make_record([lane(*rounds, **fields)])
    return found if date is None else dataclasses.replace(found, date=date)


def rounds(
    seed: int, *, slowed: float = 1.0, count: int = 8, tasks: int = 20, mood: int | None = None
) -> list[np.ndarray]:
    """Rounds whose machine is 10 % slower or faster, as `mood` says for both sides alike."""
    moods = np.random.default_rng(10_000 + (seed if mood is None else mood))
    own = np.random.default_rng(seed)
    return [
        0.05 * slowed * moods.lognormal(0, 0.1) * own.lognormal(0, 0.2, tasks) for _ in range(count)
    ]


def verdicts(found: Comparison) -> dict[str, str]:
    return {change.figure: change.verdict for change in found.changes}


@pytest.fixture(scope="module")
def recorded(golden: Path) -> list[tuple[bool, Record, Record]]:
    """Real runs of a served network: whether `after` was slowed, before, after."""
    content = json.loads((golden / "bench" / "comparisons.json").read_text())

    def read(flat: Sequence[int]) -> Record:
        return record(*(1e-6 * np.array(flat).reshape(-1, content["tasks"])))

    return [(c["slowed"], read(c["before"]), read(c["after"])) for c in content["comparisons"]]


def test_ten_slowed_builds_are_slower_and_ten_unchanged_ones_are_not(
    recorded: list[tuple[bool, Record, Record]],
) -> None:
    assert [slowed for slowed, _, _ in recorded] == [False] * 10 + [True] * 10
    found = [(slowed, compare([old], [new])) for slowed, old, new in recorded]
    assert [comparison.slower for _, comparison in found] == [slowed for slowed, _ in found]
    for _, comparison in found:
        assert "faster" not in verdicts(comparison).values()


def test_the_other_way_round_a_slowed_build_is_faster(
    recorded: list[tuple[bool, Record, Record]],
) -> None:
    for _, old, new in recorded[10:13]:
        found = compare([new], [old])
        assert not found.slower
        assert "faster" in verdicts(found).values()


def test_recorded_runs_in_turns_agree_in_one_verdict(
    recorded: list[tuple[bool, Record, Record]],
) -> None:
    """All ten pairs of runs together."""
    for slowed in (False, True):
        own = [(old, new) for s, old, new in recorded if s == slowed]
        found = compare([old for old, _ in own], [new for _, new in own])
        assert found.slower == slowed
        throughput = found.changes[0].ratio
        assert throughput.low is not None
        assert throughput.high is not None
        assert throughput.low <= throughput.value <= throughput.high
        assert (throughput.low <= 1 <= throughput.high) != slowed


def test_unchanged_builds_are_called_changed_as_seldom_as_the_level_says() -> None:
    """50 comparisons in turns, with no threshold to hide behind; one in 20 may be wrong."""
    wrong = 0
    for seed in range(50):
        old, new = (record(*rounds(2 * seed + side, mood=seed)) for side in (0, 1))
        found = verdicts(compare([old], [new], threshold=0.0, seed=seed, repeats=200))
        wrong += bool({"slower", "faster"} & set(found.values()))
    assert wrong <= 6  # of a true rate of 5 %, more would be seen once in 80 such tests


def test_slowed_builds_are_found() -> None:
    found = 0
    for seed in range(10):
        old = record(*rounds(2 * seed, mood=seed))
        new = record(*rounds(2 * seed + 1, mood=seed, slowed=1.3))
        found += compare([old], [new], seed=seed, repeats=200).slower
    assert found >= 9


def test_a_change_below_the_threshold_does_not_matter() -> None:
    old = record(*rounds(0, tasks=400, mood=0))
    new = record(*rounds(1, tasks=400, mood=0, slowed=1.04))
    assert compare([old], [new], threshold=0.01).slower
    assert verdicts(compare([old], [new], threshold=0.08))["throughput"] == "no real difference"


def test_too_few_rounds_cannot_decide() -> None:
    found = compare([record(*rounds(0, count=2))], [record(*rounds(1, count=2, slowed=3))])
    assert set(verdicts(found).values()) == {"cannot tell"}
    assert found.changes[0].ratio.low is None
    assert not found.slower


def test_percentiles_only_where_both_runs_bear_them() -> None:
    many, few = record(*rounds(0, tasks=100)), record(*rounds(1, tasks=10))
    assert list(verdicts(compare([many], [few]))) == ["throughput", "latency p50"]
    assert list(verdicts(compare([many], [many]))) == [
        "throughput", "latency p50", "latency p95", "latency p99",
    ]  # fmt: skip


def test_single_runs_one_after_the_other_need_a_larger_change() -> None:
    old = record(*rounds(0, mood=0))
    slower = record(*rounds(1, mood=0, slowed=1.2), date=LATER)
    found = compare([old], [slower])
    assert "measured one after the other" in found.notes[0]
    assert not found.slower
    assert compare([old], [slower], between_runs=0.0).slower
    assert compare([old], [record(*rounds(1, mood=0, slowed=2.0), date=LATER)]).slower
    in_turns = compare([old], [dataclasses.replace(slower, date=old.date)])
    assert in_turns.slower
    assert not in_turns.notes


def test_what_differs_from_run_to_run_is_noise() -> None:
    """Each start of the server is 20 % slower or faster: no pair of runs shows that, four do."""
    starts = [1.2, 0.85, 1.1, 0.9, 1.15, 0.8]
    before = [record(*rounds(n, mood=n)) for n in range(6)]
    after = [record(*rounds(50 + n, mood=n, slowed=s)) for n, s in enumerate(starts)]
    assert compare(before[:1], after[:1]).slower
    found = compare(before, after)
    assert not found.slower
    assert not found.notes
    slowed = [record(*rounds(50 + n, mood=n, slowed=1.8 * s)) for n, s in enumerate(starts)]
    assert compare(before, slowed).slower


def test_the_loop_that_fails_more_is_no_improvement() -> None:
    old = record(*rounds(0, mood=0))
    fast = lane(*rounds(1, mood=0, slowed=0.5))
    failing = [
        dataclasses.replace(r, failures=dict.fromkeys(range(0, 20, 4), "refused"))
        for r in fast.rounds
    ]
    new = make_record([make_lane("lane", failing, summary=NO_SUMMARY)])
    found = compare([old], [new])
    assert found.slower
    assert found.fails_more == ("lane",)
    assert "lane: more requests fail, 40 of 160 after and 0 of 160 before" in found.notes
    assert not compare([new], [old]).fails_more


def test_nothing_was_done_at_all() -> None:
    dead = lane(*rounds(0))
    failed = [
        dataclasses.replace(r, failures=dict.fromkeys(range(20), "refused")) for r in dead.rounds
    ]
    found = compare(
        [make_record([dead])], [make_record([make_lane("lane", failed, summary=NO_SUMMARY)])]
    )
    assert not found.changes
    assert found.slower
    assert markdown(found).startswith("nothing was done in both runs, 1 failing more often.")


def test_what_a_reader_must_know() -> None:
    old, new = (record(*rounds(n, mood=0)) for n in range(2))
    other = dataclasses.replace(MACHINE, processor="another")
    exact = Deviation(0.0, 0, 32, "FP32")
    lanes = [
        dataclasses.replace(new.lanes[0], precision="fp16",
                            deviation=dataclasses.replace(exact, differing=3)),
        lane(*rounds(5), name="only after"),
    ]  # fmt: skip
    old = make_record([dataclasses.replace(old.lanes[0], deviation=exact)])
    notes = compare([old], [make_record(lanes, machine=other)]).notes
    assert [note.split(",")[0].split(":")[0] for note in notes] == [
        "the runs come from different machines", "not in all runs", "lane", "lane",
    ]  # fmt: skip
    assert "only after" in notes[1]
    assert "precision differ" in notes[2]
    assert "3 of 32 after and 0 of 32 before" in notes[3]


def test_lanes_of_another_load_do_not_match() -> None:
    old = record(*rounds(0))
    with pytest.raises(InputError, match="no lane in common"):
        compare([old], [record(*rounds(0), concurrency=2)])
    with pytest.raises(InputError, match="as many of each"):
        compare([old], [])


def run(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["bench", "compare", *words])
    return found.exit_code, found.output


def test_the_command(tmp_path: Path, recorded: list[tuple[bool, Record, Record]]) -> None:
    _, same_old, same_new = recorded[0]
    _, old, new = recorded[10]
    names = ("same_old", "same_new", "old", "new")
    files = dict(zip(names, ("a.json", "b.json", "c.json", "d.json"), strict=True))
    for name, one in zip(names, (same_old, same_new, old, new), strict=True):
        write(one, tmp_path / files[name])
    paths = {name: str(tmp_path / file) for name, file in files.items()}
    code, text = run(paths["same_old"], paths["same_new"])
    assert code == 0
    assert "| lane | throughput |" in text
    code, text = run(paths["old"], paths["new"], "--threshold", "2%")
    assert code == 1
    assert "| slower |" in text
    assert "below 2 % do not matter" in text
    code, text = run(paths["old"])
    assert (code, "make no pairs" in text) == (2, True)
    code, text = run(paths["old"], paths["new"], "--threshold", "much")
    assert (code, "no share" in text) == (2, True)
    (tmp_path / "bad.json").write_text("{}")
    code, text = run(paths["old"], str(tmp_path / "bad.json"))
    assert (code, "schema" in text) == (2, True)
