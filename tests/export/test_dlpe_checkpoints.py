"""Published checkpoints of DLPE: layout, awkward pickles, and what does not fit."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import dlpe_checkpoints as golden_networks
import pytest
import torch

from hilum.catalog import SYSTEMS
from hilum.catalog.dlpe import TASKS
from hilum.catalog.errors import WeightsError
from hilum.export.store import import_weights, load_weights
from hilum.export.systems.dlpe.checkpoint import find, read_checkpoint

SYSTEM = SYSTEMS["dlpe"]


@pytest.fixture(scope="module")
def file(golden: Path) -> Path:
    return golden / "dlpe" / "10_pipeline.npz"


@pytest.fixture(scope="module")
def published(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_networks.write_published(tmp_path_factory.mktemp("published"), file)


def test_all_published_models_are_imported(published: Path, file: Path, tmp_path: Path) -> None:
    cards = import_weights(SYSTEM, published, tmp_path, allow_unknown=False)
    assert len(cards) == 24
    states = golden_networks.golden_states(file)
    for task in ("lung", "vessel2", "in_patient"):
        for direction in "xyz":
            tensors, card = load_weights("dlpe", f"{task}_{direction}", tmp_path)
            expected = states[TASKS[task].folder][direction.upper()]
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(t, expected[name]) for name, t in tensors.items())
            assert TASKS[task].folder in card.source


@pytest.mark.parametrize(("legacy", "cuda"), [(True, False), (False, True), (True, True)])
def test_old_formats_and_storages_of_a_gpu_are_read(
    file: Path, tmp_path: Path, legacy: bool, cuda: bool
) -> None:
    task = TASKS["heart"]
    folder = golden_networks.write_published(
        tmp_path, file, ["blood_vessel_seg_stage_one"], legacy=legacy, cuda=cuda
    )
    path = folder / "blood_vessel_seg_stage_one" / "X" / "best_model-X.pth"
    expected = golden_networks.golden_states(file)["blood_vessel_seg_stage_one"]["X"]
    found = read_checkpoint(path, task)
    assert all(torch.equal(found[name], t) for name, t in expected.items())


def test_a_file_that_would_run_code_is_refused(published: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "t" / "lung_seg" / "X"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {}, "history": Evil()}, folder / "best_model-X.pth")
    with pytest.raises(WeightsError, match=r"best_model-X\.pth"):
        read_checkpoint(folder / "best_model-X.pth", TASKS["lung"])
    assert not (tmp_path / "ran").exists()
    (folder / "plain.pth").write_bytes(pickle.dumps({"state_dict": 1}))
    with pytest.raises(WeightsError, match="plain"):
        read_checkpoint(folder / "plain.pth", TASKS["lung"])


def test_what_does_not_fit_is_named(published: Path, file: Path, tmp_path: Path) -> None:
    path = published / "lung_seg" / "X" / "best_model-X.pth"
    with pytest.raises(WeightsError, match=r"takes 5 channels, but heart_seg takes 3 \(3 slices\)"):
        read_checkpoint(path, TASKS["heart"])
    with pytest.raises(WeightsError, match=r"takes 5 channels, but blood_vessel_root takes 7"):
        read_checkpoint(path, TASKS["root"])
    state = golden_networks.golden_states(file)["lung_seg"]["X"]
    del state["decoder2.dec2conv1.weight"]
    broken = golden_networks.write_checkpoint(tmp_path / "missing.pth", state)
    with pytest.raises(WeightsError, match=r"decoder2\.dec2conv1\.weight"):
        read_checkpoint(broken, TASKS["lung"])
    state["conv.weight"] = torch.zeros(3, 4, 1, 1)
    wide = golden_networks.write_checkpoint(tmp_path / "classes.pth", state)
    with pytest.raises(WeightsError, match=r"has 3 classes, but lung_seg has 2"):
        read_checkpoint(wide, TASKS["lung"])


def test_folders_that_are_not_as_published_are_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no published model below it; expected folders"):
        find(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(published / "lung_seg", copy / "lung_seg")
    assert len(find(copy)) == 3
    shutil.rmtree(copy / "lung_seg" / "Y")
    with pytest.raises(WeightsError, match=r"Y: no file; exactly one checkpoint is expected"):
        import_weights(SYSTEM, copy, tmp_path / "store", allow_unknown=False)
    shutil.copytree(published / "lung_seg", copy / "again" / "lung_seg")
    with pytest.raises(WeightsError, match="two folders of lung_seg"):
        find(copy)
