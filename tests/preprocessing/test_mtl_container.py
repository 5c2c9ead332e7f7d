"""COVID-MTL's container files: the golden one, our own, and broken ones."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from hilum.catalog.errors import InputError, OutputError
from hilum.preprocessing.covid_mtl import container as mtl_container
from hilum.preprocessing.covid_mtl.container import (
    container_bytes,
    is_container,
    read_container,
    write_container,
)
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Geometry, Volume

# What these files are like by design.
pytestmark = pytest.mark.filterwarnings("ignore:Expected explicit VR")

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def tiny(golden: Path) -> bytes:
    return (golden / "mtl/tiny.dtm").read_bytes()


@pytest.fixture(scope="module")
def frames(golden: Path) -> np.ndarray:
    return np.load(golden / "mtl/tiny_dtm_decoded.npz")["frames"]


def test_golden_container(golden: Path, tiny: bytes, frames: np.ndarray) -> None:
    for source in (golden / "mtl/tiny.dtm", str(golden / "mtl/tiny.dtm"), tiny):
        found = read_container(source)
        assert found.dtype == np.uint16
        assert np.array_equal(found, frames)
    assert is_container(tiny)


@pytest.mark.parametrize("suffix", mtl_container.SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    volume = np.random.default_rng(1).integers(0, 2**16, (3, 17, 22)).astype(np.uint16)
    write_container(tmp_path / f"a{suffix}", volume)
    assert np.array_equal(read_container(tmp_path / f"a{suffix}"), volume)


def test_masks_are_written(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((3, 17, 22)) > 0.5
    write_container(tmp_path / "a.dmm", mask)
    assert np.array_equal(read_container(tmp_path / "a.dmm"), mask)


def test_a_dicom_reader_finds_the_same_frames(frames: np.ndarray, tiny: bytes) -> None:
    """pydicom takes ours and the published file apart in the same way."""
    ours, theirs = (pydicom.dcmread(io.BytesIO(d)) for d in (container_bytes(frames), tiny))
    assert ours.file_meta == theirs.file_meta
    for dataset in (ours, theirs):
        pictures = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=len(frames))
        for picture, wanted in zip(pictures, frames, strict=True):
            found = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(found, wanted)


def test_no_names_numbers_or_dates_are_written(frames: np.ndarray, tiny: bytes) -> None:
    assert b"Patient" in tiny
    dataset = pydicom.dcmread(io.BytesIO(container_bytes(frames)))
    assert [e.keyword for e in dataset if e.value and e.keyword != "PixelData"] == []


def test_elements_that_name_their_types_are_read(frames: np.ndarray) -> None:
    ours = pydicom.dcmread(io.BytesIO(container_bytes(frames)))
    ours["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ours, implicit_vr=False, little_endian=True, force_encoding=True)
    assert np.array_equal(read_container(buffer.getvalue()), frames)


@pytest.mark.parametrize("cut", [100, 131, 200, 290, 300, 400, 2000, 7000, 7160])
def test_truncated_files_are_refused(tiny: bytes, cut: int) -> None:
    with pytest.raises(InputError):
        read_container(tiny[:cut])


def test_any_damaged_byte_is_refused_or_harmless(tiny: bytes, frames: np.ndarray) -> None:
    rng = np.random.default_rng(8)
    refused = 0
    for at in rng.integers(128, len(tiny), 150):
        data = bytearray(tiny)
        data[at] ^= 1 << int(rng.integers(8))
        try:
            assert read_container(bytes(data)).dtype == np.uint16
        except InputError as error:
            refused += 1
            assert "Patient" not in str(error)
    assert refused > 100


def test_frames_of_another_kind_are_refused(frames: np.ndarray) -> None:
    def replaced(picture: np.ndarray, suffix: str = ".png") -> bytes:
        content = cv2.imencode(suffix, picture)[1].tobytes()
        data = container_bytes(frames[:2])
        start = data.rindex(b"\x89PNG")
        end = data.rindex(b"\xfe\xff\xdd\xe0")
        return data[: start - 4] + len(content).to_bytes(4, "little") + content + data[end:]

    with pytest.raises(InputError, match="frame 2 of a container has"):
        read_container(replaced(frames[0][:, :20]))
    with pytest.raises(InputError, match="frame 2 of a container is no grey PNG of 16 bits"):
        read_container(replaced(frames[0].astype(np.uint8)))
    with pytest.raises(InputError, match="frame 2 of a container is no grey PNG of 16 bits"):
        read_container(replaced(frames[0].astype(np.uint8), ".jpg"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    hu = np.zeros((1, 8, 8), np.int16)
    image = Volume(hu, Geometry(hu.shape, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), AXES))
    (path,) = write_dicom_series(image, tmp_path)
    assert not is_container(path.read_bytes())
    with pytest.raises(InputError, match="a DICOM image and no container"):
        read_container(path)
    with pytest.raises(InputError, match="does not begin like one"):
        read_container(b"\x89PNG" + b"\0" * 300)
    with pytest.raises(InputError, match="no such file"):
        read_container(tmp_path / "none.dtm")
    assert not is_container(b"")


def test_an_empty_container_is_refused(frames: np.ndarray) -> None:
    data = container_bytes(frames)
    start = data.index(b"\xe0\x7f\x10\x00") + 8
    with pytest.raises(InputError, match="without frames"):
        read_container(data[: start + 8 + 20] + data[-8:])


def test_sizes_are_limited(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = container_bytes(frames)
    monkeypatch.setattr(mtl_container, "MAX_VOXELS", frames.size - 1)
    with pytest.raises(InputError, match="more than the limit"):
        read_container(data)
    monkeypatch.setattr(mtl_container, "MAX_SLICES", 4)
    with pytest.raises(InputError, match="5 frames, more than 4"):
        read_container(data)


@pytest.mark.parametrize(
    "volume",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((0, 4, 4), np.uint16),
        np.zeros((2, 4, 4), np.float32),
        np.full((2, 4, 4), -1, np.int16),
        np.full((2, 4, 4), 70000, np.int32),
    ],
)
def test_unfit_volumes_are_refused(volume: np.ndarray) -> None:
    with pytest.raises(InputError, match="whole numbers from 0 to 65535"):
        container_bytes(volume)


def test_a_missing_folder_is_reported(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(OutputError, match="check the folder"):
        write_container(tmp_path / "none" / "a.dtm", frames)
