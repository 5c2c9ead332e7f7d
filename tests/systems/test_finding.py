"""What a folder stands for: each series once, nothing that Hilum wrote itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from hilum.client.registry import INSTALLED
from hilum.preprocessing.covid_mtl.container import write_container
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.preprocessing.reading.series import open_series
from hilum.systems import ct_slices
from hilum.systems.covid_mtl import source as covid_mtl_source
from hilum.systems.cxr_severity.system import CxrSeverity
from hilum.systems.dlpe.system import Dlpe
from hilum.systems.studies import find_studies, open_study

VOLUME = chest_ct(3, slices=5, size=32).volume


def series(folder: Path, number: int = 1) -> Path:
    write_dicom_series(VOLUME, folder, series_number=number)
    return folder


def other(path: Path, kind: str, **attributes: object) -> Path:
    """A DICOM file that is no CT image."""
    dataset, dataset.file_meta = Dataset(), FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, "1.2.3"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_an_index_above_two_series_is_no_study(tmp_path: Path) -> None:
    one, two = series(tmp_path / "cd/DICOM/S1"), series(tmp_path / "cd/DICOM/S2", 2)
    other(tmp_path / "cd/DICOMDIR", MediaStorageDirectoryStorage)
    assert find_studies(tmp_path / "cd") == [one, two]


def test_links_that_lead_back_give_each_series_once(tmp_path: Path) -> None:
    folder = series(tmp_path / "study/loop")
    (folder / "again").symlink_to(".")
    (folder / "up").symlink_to("..")
    (folder / "outside").symlink_to(tmp_path)
    (tmp_path / "study/twice").symlink_to(folder)
    assert find_studies(tmp_path / "study") == [folder]
    assert find_studies(folder) == [folder]
    assert len(open_series(folder)) == 5


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    series(tmp_path / "archive/a")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/one").symlink_to(tmp_path / "archive/a")
    assert find_studies(tmp_path / "list") == [tmp_path / "list/one"]


def test_reports_beside_a_series_are_no_studies(tmp_path: Path) -> None:
    folder = series(tmp_path / "in/series")
    other(tmp_path / "in/report.dcm", BasicTextSRStorage, Modality="SR")
    other(tmp_path / "in/dose/page", SecondaryCaptureImageStorage, Rows=8, Columns=8)
    other(folder / "report", BasicTextSRStorage, Modality="SR")
    assert find_studies(tmp_path / "in") == [folder]
    assert len(open_series(folder)) == 5


def test_pictures_of_a_report_alone_fail_with_a_message(tmp_path: Path) -> None:
    other(tmp_path / "in/page", SecondaryCaptureImageStorage, Rows=8, Columns=8)
    assert find_studies(tmp_path / "in") == [tmp_path / "in"]


def test_a_folder_below_a_study_is_one_if_it_holds_another_series(tmp_path: Path) -> None:
    top = series(tmp_path / "in")
    below = series(tmp_path / "in/below", 2)
    rest = tmp_path / "in/rest"
    rest.mkdir()
    for path in sorted(top.glob("*.dcm"))[:2]:
        path.rename(rest / path.name)
    assert find_studies(top) == [top, below]
    assert len(open_series(top)) == 5
    assert any("one of 2 series" in note and "no. 1" in note for note in open_series(top).notes)


def test_damaged_files_are_studies_that_someone_hears_of(tmp_path: Path) -> None:
    folder = series(tmp_path / "in/a")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:400])
    assert find_studies(tmp_path / "in") == [folder]


def test_pipes_and_unreadable_links_end_nothing(tmp_path: Path) -> None:
    folder = series(tmp_path / "in")
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("missing")
    assert find_studies(folder) == [folder]
    assert len(open_series(folder)) == 5


@pytest.mark.parametrize("implicit", [False, True])
def test_dicom_without_preamble_and_meta_header_is_found_everywhere(
    tmp_path: Path, implicit: bool
) -> None:
    bare = tmp_path / "in/bare"
    bare.mkdir(parents=True)
    for n, path in enumerate(write_dicom_series(VOLUME, tmp_path / "whole")):
        dataset = pydicom.dcmread(path)
        dataset.preamble, dataset.file_meta = None, FileMetaDataset()
        pydicom.dcmwrite(
            bare / f"IM{n}", dataset, implicit_vr=implicit, little_endian=True,
            enforce_file_format=False,
        )  # fmt: skip
    (bare / "readme.txt").write_text("not an image")
    assert find_studies(tmp_path / "in") == [bare]
    assert np.array_equal(open_series(bare).volume().voxels, VOLUME.voxels)
    assert np.array_equal(open_series(bare / "IM2").slice(0), VOLUME.voxels[2])
    content = (bare / "IM2").read_bytes()
    assert np.array_equal(open_study(content).slice(0), VOLUME.voxels[2])


def report(folder: Path, *entries: dict[str, object], name: str = "report.json") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"system": "lungmask", "hilum_version": "1", "results": list(entries)})
    (folder / name).write_text(text)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((80, 80), 90, np.uint8))
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)
    return path


def test_results_beside_a_report_are_no_studies(tmp_path: Path) -> None:
    study = picture(tmp_path / "study/a.png")
    results = tmp_path / "study/results"
    report(results, {"name": "0001", "files": ["0001.png", "0001-windowed/"]})
    picture(results / "0001.png")
    picture(results / "0001-windowed/0003.png")
    picture(results / "0001-heat.png")
    mask(results / "0001-lung.nii.gz")
    assert CxrSeverity().find(tmp_path / "study") == [study]
    assert find_studies(tmp_path / "study") == [study]
    assert ct_slices.find_studies(tmp_path / "study") == [tmp_path / "study"]
    assert find_studies(results) == []
    assert CxrSeverity().find(results) == []


def test_inputs_beside_a_report_stay_studies(tmp_path: Path) -> None:
    study = picture(tmp_path / "a.png")
    numbered = picture(tmp_path / "0007.png")
    report(tmp_path, {"name": "0001", "files": ["0001.png"]})
    picture(tmp_path / "0001.png")
    assert CxrSeverity().find(tmp_path) == [numbered, study]


def test_the_folder_of_a_study_is_hilums_own(tmp_path: Path) -> None:
    folder = series(tmp_path / "in/series")
    own = tmp_path / "in/results/0001"
    report(own, name="result.json")
    mask(own / "lung.nii.gz")
    shutil.copytree(folder, own / "dicom")
    np.savez(own / "arrays.npz", array=np.zeros(3))
    assert find_studies(tmp_path / "in") == [folder]
    assert Dlpe().find(tmp_path / "in/results") == []
    assert is_own_result(own)
    assert is_own_result(own / "dicom/x.dcm")
    assert not is_own_result(tmp_path / "in/results")


def test_a_report_of_somebody_else_hides_nothing(tmp_path: Path) -> None:
    study = picture(tmp_path / "0001.png")
    (tmp_path / "report.json").write_text('{"results": [{"name": "0001", "files": ["0001.png"]}]}')
    assert CxrSeverity().find(tmp_path) == [study]
    (tmp_path / "result.json").write_text("[" * 100_000)
    assert CxrSeverity().find(tmp_path) == [study]


def test_published_containers_are_studies_of_covid_mtl(tmp_path: Path) -> None:
    folder = series(tmp_path / "in/series")
    held = tmp_path / "in/held/case.dtm"
    held.parent.mkdir()
    write_container(held, np.ones((3, 8, 8), np.uint16))
    write_container(held.with_suffix(".dmm"), np.ones((3, 8, 8), np.uint16))
    assert covid_mtl_source.find(tmp_path / "in") == [held, folder]


def test_xrays_behind_a_link_to_a_folder_are_found_and_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/a.png").write_bytes(b"")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/one").symlink_to(tmp_path / "archive")
    (tmp_path / "list/round").symlink_to(".")
    assert INSTALLED["cxr-severity"].find(tmp_path / "list") == [tmp_path / "list/one/a.png"]
