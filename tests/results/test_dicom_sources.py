"""Sources of many programs as what DICOM results refer to: what is lacking, empty or unusual."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset

from hilum.catalog.errors import InputError
from hilum.client.registry import INSTALLED
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.series import Series, open_series
from hilum.systems.studies import find_studies

pytest.importorskip("highdicom")

from dicom_content import PROVENANCE, content, made_series
from dicom_judges import assert_valid

from hilum.results.dicom.source import read_source
from hilum.results.dicom.writer import write_objects

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def changed(folder: Path, **changes: object) -> Series:
    """A series with other attributes; None takes one away."""
    for path in made_series(folder).files:
        dataset = dcmread(path)
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path)
    return open_series(folder)


def objects(series: Series, folder: Path) -> list[Path]:
    names = write_objects(content(series), series.files, PROVENANCE, folder)
    return [folder / name for name in names]


def test_what_a_source_lacks_of_patient_and_study_is_there_and_empty(tmp_path: Path) -> None:
    series = changed(tmp_path / "in", **dict.fromkeys(TYPE_2))
    written = objects(series, tmp_path)
    for path in written:
        dataset = dcmread(path)
        assert [str(dataset[keyword].value or "") for keyword in TYPE_2] == [""] * len(TYPE_2)
    if shutil.which("dciodvfy"):
        assert_valid(written)


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO 2022 IR 6", "PLAIN^NAME"),
        ("ISO_IR 6", "PLAIN^NAME"),
        ("ISO-IR 100", "Müller^Jörg"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Буйнов^Иван"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("", "PLAIN^NAME"),
    ],
)
def test_names_in_every_character_set_come_through(
    tmp_path: Path, sets: str | list[str], name: str
) -> None:
    series = changed(tmp_path / "in", SpecificCharacterSet=sets, PatientName=name)
    for path in objects(series, tmp_path):
        written = dcmread(path)
        assert str(written.PatientName) == name
        assert written.get("SpecificCharacterSet") == (sets or None)


def test_files_without_preamble_and_meta_header_are_referred_to(tmp_path: Path) -> None:
    series = made_series(tmp_path / "in")
    for path in series.files:
        dataset = dcmread(path)
        dataset.preamble, dataset.file_meta = None, FileMetaDataset()
        dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert len(objects(open_series(tmp_path / "in"), tmp_path)) == 12


@pytest.mark.parametrize("modality", [None, ""])
def test_a_ct_that_does_not_say_so_is_one_by_its_class(
    tmp_path: Path, modality: str | None
) -> None:
    series = changed(tmp_path / "in", Modality=modality)
    assert tmp_path / "dicom/window.dcm" in objects(series, tmp_path)


def test_images_that_share_an_identifier_are_refused(tmp_path: Path) -> None:
    """Instances of the enhanced series would share one, too, and a PACS would keep one of them."""
    series = changed(tmp_path / "in", SOPInstanceUID="1.2.3.4")
    with pytest.raises(InputError, match="several images have one SOPInstanceUID"):
        objects(series, tmp_path)
    assert not (tmp_path / "dicom").exists()


@pytest.mark.parametrize("thickness", [None, ""])
def test_slices_that_do_not_say_how_thick_they_are_count_by_their_distance(
    tmp_path: Path, thickness: str | None
) -> None:
    series = changed(tmp_path / "in", SliceThickness=thickness)
    (path,) = (p for p in objects(series, tmp_path) if p.name == "seg-anatomy.dcm")
    measures = dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == pytest.approx(3.0)


def test_several_values_where_one_belongs(tmp_path: Path) -> None:
    series = changed(tmp_path / "in", ReferringPhysicianName="A^B\\C^D")
    for path in objects(series, tmp_path):
        assert str(dcmread(path).ReferringPhysicianName) == "A^B"
    changed(tmp_path / "two", StudyInstanceUID="1.2\\1.3")
    with pytest.raises(InputError, match="has no StudyInstanceUID"):
        read_source(sorted((tmp_path / "two").iterdir()))


def test_an_xray_without_attributes_of_the_patient_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "xray.dcm"
    write_dicom(chest_xray(1, height=300, width=300), path)
    dataset = dcmread(path)
    del dataset.PatientID, dataset.PatientName
    dataset.save_as(path)
    source = read_source([path])
    assert source.first.PatientID == ""
    assert source.patient_name is not None
    assert str(source.patient_name.value) == ""


def test_results_that_a_pacs_gives_back_with_their_study_are_no_studies(tmp_path: Path) -> None:
    pacs = tmp_path / "pacs"
    series = made_series(pacs / "1")
    for number, path in enumerate(objects(series, tmp_path)):
        (pacs / f"9{number}").mkdir()
        path.rename(pacs / f"9{number}/1.dcm")
    (pacs / "xray").mkdir()
    write_dicom(chest_xray(1, height=300, width=300), pacs / "xray/1.dcm")
    studies = [path.relative_to(pacs).parts[0] for path in INSTALLED["cxr-severity"].find(pacs)]
    assert set(studies) == {"1", "xray"}
    shutil.rmtree(pacs / "xray")
    assert find_studies(pacs) == [pacs / "1"]
