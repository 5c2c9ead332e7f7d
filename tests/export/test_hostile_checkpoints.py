"""Checkpoints whose records are short, doubled or huge, that crash HDF5, or are no numbers."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import WeightsError
from hilum.export.checkpoints import Checkpoint, hdf5_probe, keras, pickles
from hilum.export.checkpoints.pickles import read_state_dict
from hilum.export.store import _import_one

Records = dict[str, bytes]


def rewritten(path: Path, change: Callable[[Records], object], kind: int = 0) -> Path:
    """A checkpoint whose records are changed, by their names within the archive's folder."""
    torch.save({"a": torch.arange(64.0), "b": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        records = {name.partition("/")[2]: archive.read(name) for name in names}
    folder = names[0].partition("/")[0]
    change(records)
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in records.items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def test_rewritten_archives_are_read_when_nothing_is_changed(tmp_path: Path) -> None:
    tensors = read_state_dict(rewritten(tmp_path / "a.pth", lambda records: None))
    assert tensors["a"].tolist() == list(range(64))


@pytest.mark.parametrize("length", [0, 4, 252, 260])
def test_a_record_of_another_size_than_its_tensor_is_refused(tmp_path: Path, length: int) -> None:
    def change(records: Records) -> None:
        records["data/0"] = (records["data/0"] * 2)[:length]

    with pytest.raises(WeightsError, match="not all there"):
        read_state_dict(rewritten(tmp_path / "a.pth", change))


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.pth", lambda records: records.pop("data/0"))
    with pytest.raises(WeightsError, match="truncated"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_record_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.pth", lambda records: None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[-1], b"again")
    with pytest.raises(WeightsError, match="twice"):
        read_state_dict(path)


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    def change(records: Records) -> None:
        records["data/9"] = bytes(2**24)

    path = rewritten(tmp_path / "a.pth", change, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(WeightsError, match="unpacks to 16 MiB"):
        read_state_dict(path)


def test_the_format_before_archives_does_not_set_memory_aside_for_what_is_not_there(
    tmp_path: Path,
) -> None:
    target = io.BytesIO()
    torch.save({"a": torch.arange(64.0)}, target, _use_new_zipfile_serialization=False)
    sound = target.getvalue()
    # In the pickle, the number of values follows the name of the place.
    count = b"K@"
    assert sound.count(count) >= 1
    huge = sound.replace(count, b"\x8a\x05\x00\x00\x00\x00\x0c")
    path = tmp_path / "a.pth"
    path.write_bytes(huge)
    with pytest.raises(WeightsError):
        read_state_dict(path)
    path.write_bytes(sound)
    assert read_state_dict(path)["a"].tolist() == list(range(64))


def test_a_pickle_that_calls_something_is_not_run(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    def change(records: Records) -> None:
        records["data.pkl"] = pickle.dumps({"a": Call()})

    with pytest.raises(WeightsError):
        read_state_dict(rewritten(tmp_path / "a.pth", change))
    assert not (tmp_path / "ran").exists()


def test_a_file_that_crashes_the_hdf5_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
    sound = path.read_bytes()
    hdf5_probe.check_readable(path)
    # A type of variable length says "text" in its second byte; of another kind it has no parts.
    text = b"\x19\x01\x01\x00\x10\x00\x00\x00"
    assert sound.count(text) == 1
    path.write_bytes(sound.replace(text, b"\x19\x68" + text[2:]))
    with pytest.raises(WeightsError, match="crashes the HDF5 library"):
        hdf5_probe.check_readable(path)
    with pytest.raises(WeightsError, match="crashes the HDF5 library"):
        keras.read_keras(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_imported(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    tensors = {"a": torch.ones(2), "b": torch.tensor([1.0, value])}
    checkpoint = Checkpoint("r231", "a.pth", "layout", path, lambda: tensors)
    with pytest.raises(WeightsError, match=r"b holds NaN or infinite"):
        _import_one(SYSTEMS["lungmask"], checkpoint, tmp_path / "store")
    assert not list(tmp_path.rglob("*.safetensors"))
    tensors["b"] = torch.ones(2)
    _import_one(SYSTEMS["lungmask"], checkpoint, tmp_path / "store")
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_value_that_stands_for_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(()).expand(1 << 20, 1 << 12)}, path)
    assert path.stat().st_size < 4096
    with pytest.raises(WeightsError, match=r"unfold to 16\.0 GiB"):
        read_state_dict(path)


@pytest.mark.parametrize("seed", range(4))
def test_tensors_may_unfold_to_the_limit_and_no_further(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that repeat one number: a file of a kilobyte stands for as much as it likes."""
    draw = np.random.default_rng(seed)
    lengths = [int(n) for n in draw.integers(1, 10**6, 3)]
    monkeypatch.setattr(pickles, "MAX_UNFOLDED", 4 * sum(lengths))
    for more, right in ((0, True), (1, False)):
        lengths[0] += more
        tensors = {f"t{n}": torch.ones(1).expand(length) for n, length in enumerate(lengths)}
        torch.save(tensors, tmp_path / "a.pth")
        assert (tmp_path / "a.pth").stat().st_size < 10_000
        if right:
            assert [len(t) for t in read_state_dict(tmp_path / "a.pth").values()] == lengths
        else:
            with pytest.raises(WeightsError, match="unfold to"):
                read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("seed", range(4))
def test_arrays_of_hdf5_may_be_so_many_times_larger_than_the_file(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(seed)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for number in range(3):
            array = np.zeros(int(draw.integers(10**4, 10**5)))
            array[: len(array) // 10] = draw.normal(size=len(array) // 10)
            file.create_dataset(f"{number}/a", data=array, compression="gzip")
        held = sum(file[f"{number}/a"].nbytes for number in range(3))
    size = path.stat().st_size
    monkeypatch.setattr(hdf5_probe, "MAX_GROWTH", held / size)
    hdf5_probe.probe(path)
    monkeypatch.setattr(hdf5_probe, "MAX_GROWTH", (held - 1) / size)
    with pytest.raises(ValueError, match="larger than the file"):
        hdf5_probe.probe(path)
