"""Planes that are decoded ahead: which, how many, what becomes of errors, and what comes out."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from array_modules import CUPY, STRICT, imported

from hilum.catalog.errors import InputError
from hilum.preprocessing import staging
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.staging import decoded_ahead

ORDER = [7, 3, 4, 5, 0, 9, 8, 1, 2, 6]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "cores", lambda: 4)


def numbered(index: int) -> np.ndarray:
    """A plane that tells its number; every third one is of a wider type."""
    return np.full((3, 5), index, np.float32 if index % 3 else np.float64)


def test_planes_come_in_their_order_as_arrays_of_the_module() -> None:
    decoded: list[int] = []

    def told(index: int) -> np.ndarray:
        decoded.append(index)
        return numbered(index)

    with decoded_ahead(told, ORDER, array_api_strict) as given:
        found = [given(index) for index in ORDER]
    assert sorted(decoded) == sorted(ORDER)  # each once
    assert {array.__array_namespace__() for array in found} == {array_api_strict}
    for index, array in zip(ORDER, found, strict=True):
        # Each has memory of its own: later planes in the same buffer change nothing.
        assert (np.asarray(array) == index).all()
        assert np.asarray(array).dtype == numbered(index).dtype


def test_a_few_planes_are_decoded_before_they_are_asked_for() -> None:
    begun = set[int]()
    enough, going_on = threading.Event(), threading.Event()

    def slow(index: int) -> np.ndarray:
        begun.add(index)
        if len(begun) == 3:
            enough.set()
        if index != ORDER[0]:
            going_on.wait(10)
        return numbered(index)

    with decoded_ahead(slow, ORDER, array_api_strict) as given:
        assert enough.wait(10)  # three threads at work, nothing asked for yet
        assert begun == set(ORDER[:3])
        given(ORDER[0])
        going_on.set()
        for index in ORDER[1:]:
            given(index)
    assert begun == set(ORDER)


def test_an_error_comes_where_its_plane_is_asked_for() -> None:
    def damaged(index: int) -> np.ndarray:
        if index == ORDER[2]:
            raise InputError(f"slice {index} cannot be decoded")
        return numbered(index)

    with decoded_ahead(damaged, ORDER, array_api_strict) as given:
        given(ORDER[0])
        given(ORDER[1])
        with pytest.raises(InputError, match="slice 4"):
            given(ORDER[2])


def test_whoever_stops_early_decodes_no_more() -> None:
    begun: list[int] = []

    def told(index: int) -> np.ndarray:
        begun.append(index)
        return numbered(index)

    with (
        pytest.raises(KeyboardInterrupt),
        decoded_ahead(told, range(1000), array_api_strict) as given,
    ):
        given(0)
        raise KeyboardInterrupt
    assert len(begun) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("hilum-decode")]


def test_another_order_than_was_said_is_an_error() -> None:
    with (
        decoded_ahead(numbered, ORDER, array_api_strict) as given,
        pytest.raises(ValueError, match="plane 3 is asked for, 7 is the next"),
    ):
        given(3)


def test_what_lies_elsewhere_than_on_the_host_is_given_as_it_is() -> None:
    planes = [array_api_strict.asarray(numbered(index)) for index in range(10)]
    with decoded_ahead(lambda index: planes[index], ORDER, array_api_strict) as given:
        assert all(given(index) is planes[index] for index in ORDER)
    with decoded_ahead(numbered, [], array_api_strict):
        pass  # a scan outside the field has no plane to ask for


class LateCopies(types.ModuleType):
    """CuPy as far as copies need it, each of which happens only when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.pending: list[tuple[np.ndarray, np.ndarray]] = []
        self.cuda = types.SimpleNamespace(get_current_stream=lambda: self)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        there = np.full(shape, -1, dtype).view(Late)
        there.set = lambda values, stream: stream.pending.append((there, values))
        return there

    def record(self) -> types.SimpleNamespace:
        until = len(self.pending)

        def synchronize() -> None:
            for there, values in self.pending[:until]:
                there[...] = values
            self.pending[:until] = [(there, there.copy()) for there, _ in self.pending[:until]]

        return types.SimpleNamespace(synchronize=synchronize)


class Late(np.ndarray):
    """An array that can be given `set`."""


@pytest.mark.parametrize("taken", [len(ORDER), 4])
def test_a_buffer_is_kept_until_its_copy_has_ended(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Also that of the last planes, and of a scan that is given up."""
    cupy = LateCopies()
    memory: list[np.ndarray] = []

    def empty_pinned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        memory.append(np.empty(shape, dtype))
        return memory[-1]

    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=empty_pinned))
    with decoded_ahead(lambda k: numbered(3 * k), ORDER, cupy) as given:
        found = [given(index) for index in ORDER[:taken]]
    assert len(memory) == 4  # of three threads, and one that is copied from
    for held in memory:
        held[:] = 255
    for index, array in zip(ORDER, found, strict=False):
        assert (np.asarray(array) == 3 * index).all()


@pytest.mark.parametrize("mode", ["parity", "corrected"])
@pytest.mark.parametrize("module", [STRICT, pytest.param(CUPY, marks=pytest.mark.gpu)])
def test_a_series_is_the_same_on_every_module(tmp_path: Path, mode: str, module: str) -> None:
    """From DICOM files: more slices than the grid in one case, fewer in the other."""
    xp = imported(module)
    for slices in (20, 40):
        folder = tmp_path / str(slices)
        write_dicom_series(chest_ct(3, slices=slices, size=64).volume, folder)
        expected = normalise(open_series(folder), mode, 32).voxels
        found = normalise(open_series(folder), mode, 32, xp=xp).voxels
        assert isinstance(expected, np.ndarray) and not isinstance(found, np.ndarray)
        np.testing.assert_array_equal(to_host(found), expected)
