"""Several acquisitions in one series: one is taken, and it is said which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_files import edit, write_slices

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.series import Series, open_series


def places(series: Series) -> tuple[float, float, int]:
    return series.positions[0], series.positions[-1], len(series)


def passes(folder: Path, *stretches: np.ndarray, **each: list[object]) -> None:
    """One series of several stretches of slices, each with its own values of some attributes."""
    first = 1
    for number, stretch in enumerate(stretches):
        changes = {keyword: values[number] for keyword, values in each.items()}
        write_slices(folder, stretch, first=first, name=f"{number}-", **changes)
        first += len(stretch)


def test_two_passes_are_not_mixed_and_the_last_is_taken(tmp_path: Path) -> None:
    passes(tmp_path, np.arange(12) * 2.0, 17 + np.arange(12) * 2.0, AcquisitionNumber=[1, 2])
    series = open_series(tmp_path)
    assert places(series) == (17, 39, 12)
    assert series.geometry.spacing[0] == pytest.approx(2)
    (note,) = series.notes
    assert "2 acquisitions in one series; no. 2 was taken (12 slices 2 mm apart" in note
    assert "--acquisition N" in note
    assert places(open_series(tmp_path, acquisition=1)) == (0, 22, 12)
    with pytest.raises(InputError, match="no acquisition 3 in the series; there are: 1: 12 slices"):
        open_series(tmp_path, acquisition=3)


def test_the_pass_with_most_slices_in_regular_steps_is_taken(tmp_path: Path) -> None:
    passes(tmp_path, np.arange(14) * 2.0, 1 + np.arange(8) * 2.0, AcquisitionNumber=[5, 9])
    assert places(open_series(tmp_path)) == (0, 26, 14)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("TemporalPositionIdentifier", [1, 2]),
        ("NominalPercentageOfCardiacPhase", [40, 75]),
        ("TriggerTime", [100, 600]),
        ("EchoNumbers", [1, 2]),
        ("KVP", [80, 140]),
        ("ConvolutionKernel", ["B30f", "B70f"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL", "MIP"]]),
    ],
)
def test_phases_and_reconstructions_at_the_same_places_are_distinguished(
    tmp_path: Path, keyword: str, values: list[object]
) -> None:
    passes(tmp_path, np.arange(6) * 3.0, np.arange(6) * 3.0, **{keyword: values})
    series = open_series(tmp_path)
    assert places(series) == (0, 15, 6)
    assert any("2 acquisitions in one series" in note for note in series.notes)
    numbers = [open_series(tmp_path, acquisition=n).numbers for n in (1, 2)]
    assert {frozenset(n) for n in numbers} == {frozenset(range(1, 7)), frozenset(range(7, 13))}


def test_slices_that_watch_a_contrast_agent_are_left_out(tmp_path: Path) -> None:
    passes(
        tmp_path, *[np.array([30.0])] * 9, np.arange(20) * 2.0, AcquisitionNumber=list(range(1, 11))
    )
    series = open_series(tmp_path)
    assert places(series) == (0, 38, 20)
    assert any("10 acquisitions in one series; no. 10 was taken" in note for note in series.notes)


def test_monitor_slices_are_known_by_their_kind(tmp_path: Path) -> None:
    kinds = [["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "MONITORING"]]
    passes(tmp_path, np.arange(8) * 2.0, np.array([6.0, 6.0]), ImageType=kinds)
    series = open_series(tmp_path)
    assert places(series) == (0, 14, 8)
    assert "2 localiser(s) were left out" in series.notes


def test_a_scan_in_steps_is_one_scan(tmp_path: Path) -> None:
    """Every stretch has its own AcquisitionNumber, and they follow each other."""
    blocks = np.arange(12.0).reshape(3, 4) * 2
    passes(tmp_path, *blocks, AcquisitionNumber=[1, 2, 3])
    series = open_series(tmp_path)
    assert (places(series), series.notes) == ((0, 22, 12), ())


def test_passes_with_room_between_them_are_not_joined(tmp_path: Path) -> None:
    passes(tmp_path, np.arange(6) * 2.0, 40 + np.arange(9) * 2.0, AcquisitionNumber=[1, 2])
    assert places(open_series(tmp_path)) == (40, 56, 9)


def test_notes_hold_nothing_of_a_header_but_numbers(tmp_path: Path) -> None:
    marks = {
        "ConvolutionKernel": ["ZZKERNELA", "ZZKERNELB"],
        "ProtocolName": ["ZZPROTOCOL"] * 2,
        "SeriesDescription": ["ZZSERIES"] * 2,
        "StudyDescription": ["ZZSTUDY"] * 2,
        "BodyPartExamined": ["ZZBODY"] * 2,
        "ContrastBolusAgent": ["ZZAGENT"] * 2,
        "Modality": ["CT"] * 2,
    }
    passes(tmp_path, np.arange(6) * 3.0, np.arange(6) * 3.0, **marks)
    write_slices(tmp_path / "other", np.arange(3), SeriesInstanceUID="1.9", Modality="ZZMOD")
    series = open_series(tmp_path)
    assert "ZZ" not in " ".join(series.notes)
    with pytest.raises(InputError) as refused:
        open_series(tmp_path, series=7)
    assert "ZZ" not in str(refused.value)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionTime", ["100000.5", "100100"]),
        ("AcquisitionDateTime", ["20260101100000", "20260101100100.25+0100"]),
        ("ContrastBolusAgent", ["", "IOMERON"]),
        ("FilterType", ["HEAD", "BODY"]),
        ("InstanceNumber", [None, None]),
    ],
)
def test_passes_half_a_step_apart_are_not_mixed(
    tmp_path: Path, keyword: str, values: list[object]
) -> None:
    """Together they would look like one scan in even steps."""
    changes = {} if keyword == "InstanceNumber" else {keyword: values}
    passes(tmp_path, np.arange(9) * 2.0, 1 + np.arange(9) * 2.0, **changes)
    series = open_series(tmp_path)
    assert places(series) == (1, 17, 9)
    assert any("no. 2 was taken (9 slices 2 mm apart" in note for note in series.notes)
    assert places(open_series(tmp_path, acquisition=1)) == (0, 16, 9)


def test_passes_are_distinguished_by_the_time_of_each_slice(tmp_path: Path) -> None:
    """The second one runs the other way, and numbers say nothing."""
    up = write_slices(tmp_path, np.arange(9) * 2.0, name="a", AcquisitionNumber=None)
    down = write_slices(tmp_path, 9 + np.arange(9) * 2.0, name="b", AcquisitionNumber=None)
    for second, path in enumerate((*up, *down[::-1])):
        edit(path, AcquisitionTime=f"1000{second:02d}", InstanceNumber=(7 * second) % 18 + 1)
    assert places(open_series(tmp_path)) == (9, 25, 9)


def test_thin_and_thick_slices_of_one_series_are_not_mixed(tmp_path: Path) -> None:
    passes(tmp_path, np.arange(24.0), 0.5 + np.arange(5) * 5.0, SliceThickness=["1", "5"])
    series = open_series(tmp_path)
    assert places(series) == (0, 23, 24)
    assert any("2: 5 slices 5 mm apart" in note and "5 mm thick" in note for note in series.notes)


def test_stretches_of_other_thickness_that_follow_each_other_are_one_scan(tmp_path: Path) -> None:
    passes(tmp_path, np.arange(9) * 6.0, 54 + np.arange(9) * 3.0, SliceThickness=["6", "3"])
    assert len(open_series(tmp_path)) == 18


def test_times_and_numbers_without_order_part_nothing(tmp_path: Path) -> None:
    for k, path in enumerate(write_slices(tmp_path, np.arange(12) * 2.0)):
        edit(path, AcquisitionTime=f"1000{(5 * k) % 12:02d}", InstanceNumber=(7 * k) % 12 + 1)
    series = open_series(tmp_path)
    assert (len(series), series.notes) == (12, ())


def test_a_localiser_that_is_not_called_one_hinders_nothing(tmp_path: Path) -> None:
    across = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    write_slices(tmp_path, np.arange(12) * 2.0)
    write_slices(tmp_path, [0.0], first=99, **across)
    series = open_series(tmp_path)
    assert places(series) == (0, 22, 12)
    assert any("2: 1 slices" in note for note in series.notes)
