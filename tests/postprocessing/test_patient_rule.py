"""Lesions that persist in one quadrant over consecutive slices."""

from __future__ import annotations

import pytest

from hilum.postprocessing.ct_angel.patient_rule import Run, decide, find_runs


@pytest.mark.parametrize(
    ("flags", "runs"),
    [
        ([{0}, {0}, {0}], [(0, 0, 2)]),
        ([{0}, {0}, {1}, {0}], []),
        ([{0, 1}, {1}, {1, 2}, {2}, {2}], [(1, 0, 2), (2, 2, 4)]),
        ([{3}, set(), {3}, {3}], []),
        ([{2}, {2}], []),
        ([], []),
    ],
)
def test_runs_of_three(flags: list[set[int]], runs: list[tuple[int, int, int]]) -> None:
    decision = decide(flags)
    assert [(r.quadrant, r.first, r.last) for r in decision.runs] == runs
    assert decision.positive is bool(runs)


def test_all_runs_are_reported_at_full_length() -> None:
    decision = decide([{1}] * 5 + [set()] + [{1, 3}] * 3)
    assert [(r.quadrant, r.first, r.slices) for r in decision.runs] == [
        (1, 0, 5),
        (1, 6, 3),
        (3, 6, 3),
    ]


def test_gaps_break_runs() -> None:
    flags = [{0}] * 5
    positions = [0.0, 1.0, 2.8, 3.8, 4.8]
    decision = decide(flags, positions=positions)
    assert decision.runs == (Run(0, 2, 4, pytest.approx(3.0)),)
    assert any("1 gap(s)" in note for note in decision.notes)
    assert not decide(flags, positions=positions, breaks=(0, 2)).positive
    assert decide(flags, positions=positions, breaks=()).runs[0].slices == 5


def test_lengths_count_one_spacing_for_each_slice() -> None:
    thin = decide([{0}] * 3, positions=[0, 0.625, 1.25])
    assert thin.runs[0].length_mm == pytest.approx(1.875)
    assert thin.notes == ()
    thick = decide([{0}] * 3, positions=[-10, -5, 0])
    assert thick.runs[0].length_mm == pytest.approx(15)
    assert any("5.00 mm apart" in note for note in thick.notes)
    assert decide([{0}] * 3).runs[0].length_mm is None


def test_the_length_of_a_run_is_a_parameter() -> None:
    assert decide([{2}, {2}], length=2).positive
    assert not decide([{2}] * 3, length=4).positive
    assert any("3 of the 4 slices" in note for note in decide([{2}] * 3, length=4).notes)


def test_find_runs() -> None:
    assert find_runs([True, True, False, True]) == [(0, 1), (3, 3)]
    assert find_runs([True] * 4, breaks=(1,)) == [(0, 1), (2, 3)]
    assert find_runs([]) == []
