"""Where slices lie: steps from end to end, uneven ones, several at one place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ct_files import edit, write_slices

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import extent_mm, is_even, slice_widths
from hilum.results.nifti import nifti_image


def test_slices_that_share_an_identifier_but_not_a_place_are_slices(tmp_path: Path) -> None:
    write_slices(tmp_path, np.arange(10) * 2.0, SOPInstanceUID="1.2.3")
    series = open_series(tmp_path)
    assert (len(series), series.notes) == (10, ())


def test_different_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, np.zeros(10))
    with pytest.raises(InputError, match="10 slices at one position, of which file 1, 2 in"):
        open_series(tmp_path)


def test_one_of_two_different_slices_at_a_place_is_not_dropped(tmp_path: Path) -> None:
    write_slices(tmp_path, [0, 2, 4, 4, 6, 8])
    with pytest.raises(InputError, match="2 slices at one position"):
        open_series(tmp_path)


def test_a_slice_that_came_twice_counts_once(tmp_path: Path) -> None:
    paths = write_slices(tmp_path, np.arange(6) * 2.0)
    shutil.copy(paths[2], tmp_path / "again.dcm")
    edit(tmp_path / "again.dcm", SOPInstanceUID="1.2.3.99")
    series = open_series(tmp_path)
    assert len(series) == 6
    assert any("1 slice(s) at the place of another" in note for note in series.notes)


@pytest.mark.parametrize(("step", "count"), [(0.75, 60), (0.625, 80), (1.25, 60)])
def test_rounding_of_positions_changes_no_volume(tmp_path: Path, step: float, count: int) -> None:
    places = np.round(np.arange(count) * step, 1)
    write_slices(tmp_path, places)
    series = open_series(tmp_path)
    assert series.even
    assert series.flags == ()
    assert series.geometry.spacing[0] == pytest.approx(places[-1] / (count - 1), abs=1e-6)
    assert series.geometry.spacing[0] == pytest.approx(step, rel=0.002)
    assert series.geometry.point((count - 1, 0, 0))[2] == pytest.approx(places[-1], abs=1e-6)
    whole = np.ones(series.geometry.shape, np.uint8)
    real = count * step * 32 * 40 * 1.5 * 1.25 / 1000
    assert series.millilitres(whole) == pytest.approx(real, rel=0.002)
    assert series.length_mm(0, count - 1) == pytest.approx(count * step, rel=0.002)


THIN_THICK = np.cumsum([0, *[3.0] * 10, *[6.0] * 12])


@pytest.mark.parametrize("places", [THIN_THICK, np.sort(-THIN_THICK)], ids=["up", "down"])
def test_slices_of_two_steps_count_by_their_own(tmp_path: Path, places: np.ndarray) -> None:
    write_slices(tmp_path, places)
    series = open_series(tmp_path)
    assert not series.even
    assert series.flags == ("uneven_slices",)
    assert series.geometry.point((22, 0, 0))[2] == pytest.approx(places[-1])
    plane = 32 * 40 * 1.5 * 1.25 / 1000
    mask = np.zeros(series.geometry.shape, np.uint8)
    mask[np.argsort(np.abs(places - places.mean()))[0]] = 1
    whole = np.ones_like(mask)
    assert series.millilitres(whole) == pytest.approx(plane * (102 + 1.5 + 3))
    thin = np.zeros_like(mask)
    inner = 3 if places[1] - places[0] == 3 else -4
    thin[inner] = 1
    assert series.millilitres(thin) == pytest.approx(plane * 3)
    thick = np.zeros_like(mask)
    thick[-4 if inner == 3 else 3] = 1
    assert series.millilitres(thick) == pytest.approx(plane * 6)
    assert series.length_mm(0, 22) == pytest.approx(102 + 1.5 + 3)


def test_a_written_grid_ends_at_the_last_slice(tmp_path: Path) -> None:
    write_slices(tmp_path, THIN_THICK)
    series = open_series(tmp_path)
    mask = np.zeros(series.geometry.shape, np.uint8)
    image = nifti_image(series.reorientation.undo(mask), series.stored_geometry)
    assert (image.affine @ [0, 0, 22, 1])[2] == pytest.approx(THIN_THICK[-1])


def test_uneven_slices_count_the_same_from_the_bytes_of_one_file(tmp_path: Path) -> None:
    from hilum.preprocessing.reading.series import Series
    from hilum.systems.studies import VolumeStack

    write_slices(tmp_path, THIN_THICK)
    series = open_series(tmp_path)
    again = Series(VolumeStack.of_series(series))
    assert again.flags == series.flags
    assert again.notes == series.notes
    assert again.numbers == series.numbers
    mask = np.ones(series.geometry.shape, np.uint8)
    assert again.millilitres(mask) == pytest.approx(series.millilitres(mask))


def test_even_means_within_rounding_and_never_a_missing_slice() -> None:
    assert is_even([0, 1])
    assert is_even([0, 0.8, 1.5, 2.2, 3.0], rounding=0.1)
    assert not is_even([0, 0.8, 1.5, 2.2, 3.0])
    for missing in range(1, 11):
        places = np.delete(np.arange(12) * 0.2, missing)
        assert not is_even(places.tolist(), rounding=0.1)


def test_widths_and_lengths() -> None:
    assert slice_widths([0, 1, 3], 5).tolist() == [1, 1.5, 2]
    assert slice_widths([7], 5).tolist() == [5]
    assert extent_mm([0, 1, 2, 3], 1, 2) == 2
    assert extent_mm([0, 1, 2, 12], 0, 2) == 3
    assert extent_mm([0, 1, 2, 12], 2, 2) == 1
    assert extent_mm([0, 3, 9, 15], 0, 3) == 15 + 1.5 + 3


def test_slices_count_from_the_head_beside_the_files_own_order(tmp_path: Path) -> None:
    write_slices(tmp_path, [0, 2, 4, 6, 12])
    series = open_series(tmp_path)
    assert series.from_head(4) == 1
    assert series.where(4) == "slice 1, InstanceNumber 5"
    assert series.where_missing() == "1 and 2"
    assert series.file_order == (1, 2, 3, 4, 5)


def test_padding_is_found_before_words_are_masked(tmp_path: Path) -> None:
    """−2000 in words of which 12 bits are stored would be tissue once they are masked."""
    import pydicom

    (path,) = write_slices(tmp_path, [0.0])
    dataset = pydicom.dcmread(path)
    words = np.full((32, 40), 1000, "<u2")
    words[:4] = np.array(-2000, "<i2").view("<u2")
    dataset.PixelData = words.tobytes()
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(path)
    series = open_series(tmp_path)
    assert (series.slice(0)[:4] <= -1024).all()
    assert (series.stored_slice(0, padding_to_air=True)[:4] == -1024).all()
    assert (series.slice(0)[4:] == 1000 - 1024).all()


@pytest.mark.parametrize("value", [0, -900, 40])
def test_padding_of_a_tissues_value_becomes_air_where_it_reaches_the_edge(
    tmp_path: Path, value: int
) -> None:
    """In spite of the standard a voxel within may have the value, and is kept."""
    import pydicom

    (path,) = write_slices(tmp_path, [0.0], RescaleIntercept=0)
    dataset = pydicom.dcmread(path)
    words = np.full((32, 40), 60, "<i2")
    words[:4] = words[10, 10] = value
    dataset.PixelData = words.tobytes()
    dataset.add_new("PixelPaddingValue", "SS", value)
    dataset.save_as(path)
    series = open_series(tmp_path)
    for plane in (series.slice(0), series.stored_slice(0, padding_to_air=True)):
        assert (plane[:4] == -1024).all()
        assert plane[10, 10] == value
        assert (plane[20:] == 60).all()
