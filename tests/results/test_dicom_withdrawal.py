"""DICOM objects that cannot be written, and those of an earlier result."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from hilum.catalog.errors import InputError, OutputError

pytest.importorskip("highdicom")

from dicom_content import PROVENANCE, content, made_series, walk
from dicom_judges import complaints

from hilum.results.dicom.identity import Identity
from hilum.results.dicom.source import read_source
from hilum.results.dicom.withdrawal import withdrawal
from hilum.results.dicom.writer import write_objects


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    (tmp_path / "out").write_text("a file in the folder's place")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_objects(content(series), series.files, PROVENANCE, tmp_path / "out")
    assert (tmp_path / "out").is_file()


def test_objects_that_fail_half_way_leave_the_earlier_ones(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    names = write_objects(content(series), series.files, PROVENANCE, tmp_path)
    broken = replace(content(series), pictures={"overview": np.zeros((4, 4), np.uint8)})
    with pytest.raises(ValueError):
        write_objects(broken, series.files, PROVENANCE, tmp_path)
    assert all((tmp_path / name).is_file() for name in names)
    assert not list(tmp_path.glob("*.partial"))


def test_an_earlier_result_is_withdrawn_by_a_key_object(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    names = write_objects(content(series), series.files, PROVENANCE, tmp_path)
    earlier = [dcmread(tmp_path / n, stop_before_pixels=True) for n in names[:3]]
    identity = Identity.of("e" * 64, earlier[0])
    note = withdrawal(earlier, identity=identity, provenance=PROVENANCE)
    referred = {
        str(item.ReferencedSOPInstanceUID)
        for item in walk(note)
        if "ReferencedSOPInstanceUID" in item
    }
    assert referred == {str(e.SOPInstanceUID) for e in earlier}
    path = tmp_path / "withdrawn.dcm"
    note.save_as(path, enforce_file_format=True)
    if shutil.which("dciodvfy"):
        assert complaints(path) == []


def test_a_later_result_in_the_same_folder_withdraws_the_earlier_one(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    given = content(series)
    first = write_objects(given, series.files, PROVENANCE, tmp_path)
    old = {str(dcmread(tmp_path / n, stop_before_pixels=True).SOPInstanceUID) for n in first}
    assert write_objects(given, series.files, PROVENANCE, tmp_path) == first
    later = replace(PROVENANCE, key="f" * 64)
    second = write_objects(given, series.files, later, tmp_path)
    assert second == [*first, "dicom/withdrawal.dcm"]
    note = dcmread(tmp_path / "dicom/withdrawal.dcm")
    assert {
        str(item.ReferencedSOPInstanceUID)
        for item in walk(note)
        if "ReferencedSOPInstanceUID" in item
    } == old
    assert note.PatientName == dcmread(series.files[0]).PatientName


def test_images_of_two_studies_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    dataset = dcmread(series.files[2])
    dataset.StudyInstanceUID = "1.2.3"
    dataset.save_as(series.files[2])
    with pytest.raises(InputError, match="differ in StudyInstanceUID"):
        write_objects(content(series), series.files, PROVENANCE, tmp_path)
    assert not (tmp_path / "dicom").exists()


def test_a_source_without_what_results_refer_to_is_refused_by_name(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    dataset = dcmread(series.files[0])
    del dataset.StudyInstanceUID
    dataset.save_as(series.files[0])
    with pytest.raises(InputError, match="has no StudyInstanceUID"):
        read_source(series.files)
