"""Which series of a folder is taken, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import edit_all, files, write_slices

from hilum.catalog.errors import InputError, OutOfMemory
from hilum.preprocessing.reading import ct_words
from hilum.preprocessing.reading.series import list_series, open_series


def two(folder: Path, chest: dict[str, object], other: dict[str, object]) -> int:
    """Slices of the series that is taken: 6 of the chest, 9 of another."""
    write_slices(folder, np.arange(6) * 2.0, name="c", SeriesNumber=1, **chest)
    write_slices(
        folder, np.arange(9) * 2.0, name="o", SeriesInstanceUID="1.9", SeriesNumber=2, **other
    )
    return len(open_series(folder))


OTHERS = (
    "ABDOMEN", "NECK", "CSPINE", "TSPINE", "LSPINE", "LIVER", "HEART", "ABDOMENPELVIS", "HEADNECK",
    "PELVIS", "HEAD", "KNEE", "SHOULDER", "KIDNEY", "HIP",
)  # fmt: skip


@pytest.mark.parametrize("part", OTHERS)
def test_the_chest_wins_by_its_body_part_whatever_is_larger(tmp_path: Path, part: str) -> None:
    assert two(tmp_path, {"BodyPartExamined": "CHEST"}, {"BodyPartExamined": part}) == 6


@pytest.mark.parametrize(
    ("chest", "other"),
    [
        ({"ProtocolName": "1_Thorax_Routine"}, {"ProtocolName": "AbdomenRoutine"}),
        ({"ProtocolName": "CT LUNG LOW DOSE"}, {}),
        ({"BodyPartExamined": "CHEST", "ProtocolName": "Thorax"}, {"BodyPartExamined": "CHEST",
          "ProtocolName": "Abdomen"}),
        ({"SeriesDescription": "Chest 5.0"}, {"SeriesDescription": "Neck 3.0"}),
        ({}, {"BodyPartExamined": "ABDOMEN"}),
        ({"BodyPartExamined": "CHESTABDPELVIS"}, {"BodyPartExamined": "ABDOMENPELVIS"}),
        ({"ProtocolName": "CHEST_TO_PELVIS"}, {"ProtocolName": "LEG"}),
    ],
)  # fmt: skip
def test_the_chest_wins_by_all_that_names_it(
    tmp_path: Path, chest: dict[str, object], other: dict[str, object]
) -> None:
    assert two(tmp_path, chest, other) == 6


def test_of_two_chests_the_larger_wins(tmp_path: Path) -> None:
    assert two(tmp_path, {"BodyPartExamined": "CHEST"}, {"ProtocolName": "Thorax Abdomen"}) == 9


def test_slices_that_watch_a_contrast_agent_are_no_chest(tmp_path: Path) -> None:
    write_slices(tmp_path, np.zeros(2), name="m", BodyPartExamined="CHEST", SeriesNumber=1)
    write_slices(tmp_path, np.arange(9) * 2.0, SeriesInstanceUID="1.9", SeriesNumber=2)
    assert len(open_series(tmp_path)) == 9


def test_words() -> None:
    assert ct_words.region("THORACIC SPINE") == "elsewhere"
    assert ct_words.region("Thorax^1_ThoraxRoutine (Adult)") == "chest"
    assert ct_words.region("NECKCHESTABDPELV") == "chest"
    assert ct_words.region("SUPINE HEAD FIRST") == ""
    assert ct_words.kernel("B70f") == ct_words.kernel("LUNG") == ct_words.kernel("FC51") == "sharp"
    assert ct_words.kernel("B30f") == ct_words.kernel("STANDARD") == "soft"
    assert ct_words.kernel("DOE^JANE") == ct_words.modality("DOE^JANE") == ""


def test_ten_series_are_distinguished(tmp_path: Path) -> None:
    for n in range(1, 11):
        write_slices(
            tmp_path, np.arange(3 + n % 2) * float(1 + n // 2), name=f"s{n}-",
            SeriesInstanceUID=f"1.2.{n}", SeriesNumber=100 + n,
            BodyPartExamined="CHEST" if n % 3 else "HEAD", ContrastBolusAgent="IV" * (n % 2),
            ConvolutionKernel="B70f" if n % 2 else "B30f", SeriesDescription="DOE^JANE",
        )  # fmt: skip
    listed = list_series(tmp_path)
    texts = [info.description for info in listed]
    assert len(set(texts)) == 10
    assert "DOE" not in " ".join(texts)
    assert texts[1] == (
        "CT, 3 slices of 40 × 32, 2 mm apart, 2 mm thick, chest, soft kernel, SeriesNumber 102"
    )
    with pytest.raises(InputError, match=r"no series of that name; there are: 1: CT.*--series N"):
        open_series(tmp_path, series=11)
    with pytest.raises(InputError, match="3 CT series have equal claims; choose one by --series N"):
        open_series(tmp_path)
    (note, *_) = open_series(tmp_path, series=2).notes
    assert note.startswith("one of 10 series in the folder: no. 2, CT, 3 slices")


def test_ten_series_are_told_apart_by_their_descriptions_alone(tmp_path: Path) -> None:
    texts = (
        "Chest 5.0 MEDIASTINUM", "Lung 1.25 DOE^JANE", "BONE", "COR MPR", "SAG MPR DOE",
        "AX MIP 10", "THIN native", "Portal venous 3.0", "Delayed 10 min", "Expiration, prone",
    )  # fmt: skip
    for n, text in enumerate(texts, 1):
        write_slices(
            tmp_path, np.arange(3) * 2.0, name=f"s{n:02d}-", SeriesInstanceUID=f"1.2.{10 + n}",
            SeriesDescription=text, PatientName="DOE^JANE", ProtocolName="DOE^JANE Thorax",
        )  # fmt: skip
    found = [info.description for info in list_series(tmp_path)]
    start = "CT, 3 slices of 40 × 32, 2 mm apart, 2 mm thick, chest, "
    assert [text.removeprefix(start).removesuffix(", SeriesNumber 1") for text in found] == [
        "soft-tissue window", "lung window", "bone window", "coronal, reformatted",
        "sagittal, reformatted", "axial, maximum intensity", "thin, without contrast agent",
        "venous", "delayed", "expiration, prone",
    ]  # fmt: skip
    with pytest.raises(InputError, match="10 CT series have equal claims") as refused:
        open_series(tmp_path)
    assert "--series N: 1: CT" in str(refused.value)
    assert "DOE" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kernel", "agent", "codes"),
    [("B70f", "", ["sharp_kernel"]), ("B30f", "NONE", []), ("", "without contrast", []),
     ("LUNG", "Ultravist 370", ["sharp_kernel", "contrast_agent"])],
)  # fmt: skip
def test_a_sharp_kernel_and_a_contrast_agent_are_seen(
    tmp_path: Path, kernel: str, agent: str, codes: list[str]
) -> None:
    write_slices(tmp_path, np.arange(3) * 2.0, ConvolutionKernel=kernel, ContrastBolusAgent=agent)
    look = open_series(tmp_path).look
    assert [doubt.code for doubt in look] == codes
    assert "Ultravist" not in "".join(doubt.text for doubt in look)


def test_a_transfer_syntax_that_does_not_exist_is_named(folder: Path) -> None:
    for path in files(folder):
        data = path.read_bytes()
        assert data.count(b"1.2.840.10008.1.2.1\0") == 1
        path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"))
    with pytest.raises(InputError, match=r"12 DICOM file\(s\) .* transfer syntax 1\.2\.840\.10008"):
        open_series(folder)
    for path in files(folder):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1.2.840.10008.1.2.99", b"MARK.OF.A.PATIENT.12"))
    with pytest.raises(InputError, match="transfer syntax is not one of") as refused:
        open_series(folder)
    assert "MARK" not in str(refused.value)


def test_frames_without_positions_are_named(folder: Path) -> None:
    path = files(folder)[0]
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames, dataset.PixelData = 4, dataset.PixelData * 4
    dataset.save_as(path)
    with pytest.raises(InputError, match="4 frames without their positions"):
        open_series(path)


def test_an_absurd_rescale_is_refused(folder: Path) -> None:
    edit_all(folder, RescaleIntercept="1e30")
    with pytest.raises(InputError, match="no usable RescaleSlope"):
        open_series(folder)


def test_lack_of_memory_is_not_blamed_on_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pydicom, "dcmread", none_left)
    with pytest.raises(OutOfMemory):
        open_series(folder)
