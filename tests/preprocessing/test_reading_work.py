"""The work of every reader grows with the length of its input, and not with its square.

Counted are files that are opened, bytes that are unpacked and frames that are taken apart: unlike
seconds, these are the same on every machine.
"""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from ct_files import edit_all, write_slices
from PIL import Image
from pydicom.uid import RLELossless
from test_ct_series import enhanced

from hilum.catalog.errors import InputError
from hilum.catalog.terms import Window
from hilum.preprocessing.covid_mtl import container as mtl_container
from hilum.preprocessing.covid_mtl.container import read_container, write_container
from hilum.preprocessing.reading import ct_pixels, nifti
from hilum.preprocessing.reading.series import list_series, open_series
from hilum.systems.ct_slices import Grey, open_slices
from hilum.systems.studies import find_studies

_COUNTING: list[Counter[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _COUNTING and isinstance(arguments[0], (str, bytes)):
        _COUNTING[-1][str(arguments[0])] += 1


sys.addaudithook(_audit)


@contextmanager
def opened() -> Iterator[Counter[str]]:
    """How often each path is opened within."""
    _COUNTING.append(Counter())
    try:
        yield _COUNTING[-1]
    finally:
        _COUNTING.pop()


def below(counts: Counter[str], folder: Path) -> dict[str, int]:
    return {path: n for path, n in counts.items() if path.startswith(str(folder))}


def series(folder: Path, count: int) -> Path:
    write_slices(folder, np.arange(count) * 2.0)
    return folder


@pytest.mark.parametrize("count", [4, 16])
def test_each_dicom_file_is_opened_once_for_its_header_and_once_for_its_pixels(
    tmp_path: Path, count: int
) -> None:
    folder = series(tmp_path, count)
    with opened() as counts:
        found = open_series(folder)
    assert set(below(counts, tmp_path).values()) == {1}
    with opened() as counts:
        found.volume()
    assert sorted(below(counts, tmp_path).values()) == [1] * count
    with opened() as counts:
        list_series(folder)
    assert sorted(below(counts, tmp_path).values()) == [1] * count


@pytest.mark.parametrize("count", [4, 16])
def test_studies_are_found_by_one_file_of_each_folder(tmp_path: Path, count: int) -> None:
    for name in ("a", "b", "c"):
        series(tmp_path / name, count)
    with opened() as counts:
        assert len(find_studies(tmp_path)) == 3
    assert sum(below(counts, tmp_path).values()) == 3


def test_copies_are_compared_once_each(tmp_path: Path) -> None:
    write_slices(tmp_path, np.arange(8) * 2.0)
    for n in range(5):
        (tmp_path / f"copy{n}.dcm").write_bytes((tmp_path / "0003.dcm").read_bytes())
    with opened() as counts:
        open_series(tmp_path)
    assert sum(below(counts, tmp_path).values()) == 13 + 6


def test_different_slices_at_one_place_are_refused_by_the_first_two(tmp_path: Path) -> None:
    write_slices(tmp_path, np.zeros(12))
    with opened() as counts, pytest.raises(InputError, match="at one position"):
        open_series(tmp_path)
    assert sum(below(counts, tmp_path).values()) == 12 + 2


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_of_many_frames_is_taken_apart_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    whole = enhanced(sorted(folder.glob("*.dcm")))
    if compressed:
        whole.compress(RLELossless)
    path = tmp_path / "enhanced.dcm"
    whole.save_as(path)
    calls = []
    real = ct_pixels.generate_frames
    monkeypatch.setattr(
        ct_pixels, "generate_frames", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    with opened() as counts:
        open_series(path).volume()
    assert below(counts, path) == {str(path): 2}
    assert len(calls) == int(compressed)


class Counted(gzip.GzipFile):
    """Counts what is unpacked."""

    files = unpacked = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        type(self).files += 1
        super().__init__(*args, **options)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        type(self).unpacked += len(data)
        return data


@pytest.mark.parametrize("count", [10, 40])
def test_a_compressed_nifti_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    data = np.random.default_rng(0).integers(-1000, 400, (24, 20, count)).astype(np.int16)
    image = nibabel.Nifti1Image(data, np.diag([-1, -1, 2, 1]))
    nibabel.save(image, tmp_path / "x.nii.gz")
    monkeypatch.setattr(nifti.gzip, "GzipFile", Counted)
    Counted.files = Counted.unpacked = 0
    found = open_series(tmp_path / "x.nii.gz")
    for index in range(count):
        assert np.array_equal(found.slice(index), data[:, :, index].T)
    found.volume()
    # Twice the header and once the voxels, whatever the number of slices.
    assert Counted.unpacked <= data.nbytes + 2 * 1024
    assert Counted.files <= 3


@pytest.mark.parametrize("count", [10, 40])
def test_a_slice_of_a_plain_nifti_is_read_alone(tmp_path: Path, count: int) -> None:
    data = np.zeros((24, 20, count), np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1, -1, 2, 1])), tmp_path / "x.nii")
    found = open_series(tmp_path / "x.nii")
    with opened() as counts:
        for index in range(count):
            found.slice(index)
    assert below(counts, tmp_path) == {str(tmp_path / "x.nii"): count}


def test_nifti_reads_no_more_than_a_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((24, 20, 12), np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1, -1, 2, 1])), tmp_path / "x.nii")
    found = open_series(tmp_path / "x.nii")
    sizes: list[int] = []
    real = nifti.NiftiStack._exactly

    def exactly(stack: Any, stream: Any, count: int, index: int) -> bytes:
        sizes.append(count)
        return real(stack, stream, count, index)

    monkeypatch.setattr(nifti.NiftiStack, "_exactly", exactly)
    found.volume()
    assert sizes == [24 * 20 * 2] * 12


@pytest.mark.parametrize("count", [4, 16])
def test_each_picture_is_opened_as_often_however_many_there_are(tmp_path: Path, count: int) -> None:
    for n in range(count):
        Image.fromarray(np.full((64, 64), n, np.uint8)).save(tmp_path / f"{n}.png")
    with opened() as counts:
        found = open_slices(tmp_path, Grey(Window(1500, -600)))
        for index in range(count):
            found.read(index)
    assert set(below(counts, tmp_path).values()) <= {2, 3, 4}


@pytest.mark.parametrize("count", [4, 16])
def test_a_container_is_taken_apart_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    write_container(tmp_path / "x.dtm", np.ones((count, 8, 8), np.uint16))
    calls: list[int] = []
    real = mtl_container._decoded
    monkeypatch.setattr(
        mtl_container, "_decoded", lambda frame, n: calls.append(len(frame)) or real(frame, n)
    )
    with opened() as counts:
        read_container(tmp_path / "x.dtm")
    assert below(counts, tmp_path) == {str(tmp_path / "x.dtm"): 1}
    assert len(calls) == count + 1  # the first is looked at before memory is set aside


def test_instance_numbers_are_checked_in_one_go(tmp_path: Path) -> None:
    folder = series(tmp_path, 6)
    edit_all(folder, InstanceNumber=1)
    found = open_series(folder)
    with opened() as counts, pytest.raises(InputError, match="InstanceNumber 1 occurs more than"):
        found.numbering()
    assert not below(counts, tmp_path)
    assert pydicom.dcmread(folder / "0001.dcm").InstanceNumber == 1
