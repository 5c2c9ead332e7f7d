"""Slices of several patients, and series of other values than HU: never mixed, never chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_files import write_slices

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.series import open_series
from hilum.systems.studies import find_studies

HALF_WAY = (np.arange(12) * 2.0, 1 + np.arange(9) * 2.0)
MAP = {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}


def two(folder: Path, keyword: str, values: tuple[object, object], **others: object) -> None:
    """Two stretches of slices that differ in one attribute."""
    first = 1
    for number, places in enumerate(HALF_WAY):
        changes = {keyword: values[number], **others}
        write_slices(folder, places, first=first, name=f"{number}-", **changes)
        first += len(places)


@pytest.mark.parametrize("uid", ["1.2.3", None])
def test_slices_of_two_patients_under_one_identifier_are_not_mixed(
    tmp_path: Path, uid: str | None
) -> None:
    two(tmp_path, "PatientID", ("DOE-A", "DOE-B"), SeriesInstanceUID=uid)
    with pytest.raises(InputError, match=r"CT series of 2 patients.*--series N: 1: CT, 12") as told:
        open_series(tmp_path)
    assert "DOE" not in str(told.value)
    assert [len(open_series(tmp_path, series=n)) for n in (1, 2)] == [12, 9]


def test_two_patients_of_one_folder_are_not_chosen_between(tmp_path: Path) -> None:
    write_slices(tmp_path, np.arange(12) * 2.0, name="a", PatientID="A")
    write_slices(tmp_path, np.arange(9) * 2.0, name="b", PatientID="B", SeriesInstanceUID="1.9")
    with pytest.raises(InputError, match="CT series of 2 patients"):
        open_series(tmp_path)


def test_a_localiser_of_another_patient_hinders_nothing(tmp_path: Path) -> None:
    write_slices(tmp_path, np.arange(12) * 2.0, name="a", PatientID="A")
    write_slices(tmp_path, np.arange(1), name="b", PatientID="B", SeriesInstanceUID="1.9")
    assert len(open_series(tmp_path)) == 12


def test_slices_of_two_studies_under_one_identifier_are_not_mixed(tmp_path: Path) -> None:
    two(tmp_path, "StudyInstanceUID", ("1.2", "1.5"))
    series = open_series(tmp_path)
    assert len(series) == 12
    assert series.notes[0].startswith("one of 2 series of 2 studies in the folder: no. 1")


def test_series_without_identifiers_are_distinguished_by_number(tmp_path: Path) -> None:
    two(tmp_path, "SeriesNumber", (4, 5), SeriesInstanceUID=None)
    assert len(open_series(tmp_path)) == 12


@pytest.mark.parametrize(
    ("keyword", "values"), [("PatientID", ("A", "B")), ("StudyInstanceUID", ("1.2", "1.5"))]
)
def test_another_patient_below_a_study_is_a_study(
    tmp_path: Path, keyword: str, values: tuple[str, str]
) -> None:
    write_slices(tmp_path, np.arange(5) * 2.0, **{keyword: values[0]})
    write_slices(tmp_path / "below", np.arange(5) * 2.0, **{keyword: values[1]})
    assert find_studies(tmp_path) == [tmp_path, tmp_path / "below"]


@pytest.mark.parametrize("unit", ["MGML", "Z_EFF", "ED", "EDW", "PCT"])
def test_a_map_of_other_values_is_no_ct(tmp_path: Path, unit: str) -> None:
    places = np.arange(9) * 2.0
    write_slices(tmp_path, places, name="m", SeriesInstanceUID="1.9", RescaleType=unit, **MAP)
    with pytest.raises(InputError, match=r"no CT series; there are: 1: CT, 9.*no Hounsfield units"):
        open_series(tmp_path)
    with pytest.raises(InputError, match="series 1 has no Hounsfield units"):
        open_series(tmp_path, series=1)
    write_slices(tmp_path, places[:5], name="c", RescaleType="HU")
    assert len(open_series(tmp_path)) == 5


def test_an_enhanced_series_of_ours_is_never_taken_for_its_source(tmp_path: Path) -> None:
    kind = ["DERIVED", "SECONDARY", "AXIAL", "DLPE_ENHANCED"]
    write_slices(tmp_path, np.arange(5) * 2.0, name="c", BodyPartExamined="")
    write_slices(
        tmp_path, np.arange(5) * 2.0, name="e", SeriesInstanceUID="1.9", RescaleType="US",
        ImageType=kind, BodyPartExamined="CHEST",
    )  # fmt: skip
    series = open_series(tmp_path)
    assert {path.name[0] for path in series.files} == {"c"}


def test_values_of_an_unspecified_unit_come_last_and_are_noted(tmp_path: Path) -> None:
    write_slices(tmp_path, np.arange(9) * 2.0, name="p", SeriesInstanceUID="1.9", RescaleType="US")
    (note,) = open_series(tmp_path).notes
    assert "RescaleType" in note
    write_slices(tmp_path, np.arange(5) * 2.0, name="c")
    assert len(open_series(tmp_path)) == 5
