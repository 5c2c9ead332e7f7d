"""Reading published checkpoints: strict, and without running what is in them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import WeightsError
from hilum.export.repository import export_system
from hilum.export.store import import_weights, list_store, load_weights, store_folder
from hilum.export.systems.cxr_severity import checkpoint as checkpoints
from hilum.export.systems.cxr_severity import network as cxr

SYSTEM = SYSTEMS["cxr-severity"]
FOLDER = "PSPNet_efficientnet-b0_imagenet_030921_1848"
NORM = "encoder._bn0.weight"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """A PSPNet's random weights under their published names."""
    torch.manual_seed(1)
    state = cxr.build("pspnet").state_dict()
    return {cxr.published_name("pspnet", name): t for name, t in state.items()}


@pytest.fixture
def write(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Callable[..., Path]:
    """Writes a checkpoint, changed by a function of its tensors; returns the models' folder."""

    def make(change: Callable[[dict], object] = lambda _: None, folder: str = FOLDER) -> Path:
        changed = dict(tensors)
        change(changed)
        path = tmp_path / "models" / "models_covid" / folder / "weights.pth"
        path.parent.mkdir(parents=True)
        torch.save(changed, path)
        return tmp_path / "models"

    return make


def test_import_keeps_every_value(
    write: Callable[..., Path], tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    (card,) = import_weights(SYSTEM, write(), tmp_path / "store")
    assert (card.network, card.source, card.tensors) == ("pspnet", FOLDER, len(tensors))
    assert len(card.sha256) == 64
    assert list_store(tmp_path / "store") == [card]
    loaded, same = load_weights("cxr-severity", "pspnet", tmp_path / "store")
    assert same == card
    for name, tensor in loaded.items():
        assert torch.equal(tensor, tensors[cxr.published_name("pspnet", name)])


def test_no_path_of_this_machine_enters_the_store(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    import_weights(SYSTEM, write(), tmp_path / "store")
    text = (tmp_path / "store" / "cxr-severity" / "pspnet.json").read_text()
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(NORM), ["lacks", NORM]),
        (lambda t: t.update(extra=torch.zeros(1)), ["has unknown", "extra"]),
        (lambda t: t.update({NORM: torch.zeros(31)}), [NORM, "[31]", "[32]"]),
        (lambda t: t.update({NORM: t[NORM].double()}), [NORM, "float64", "float32"]),
        (lambda t: t.update(epoch=3), ["'epoch'", "int", "not a tensor"]),
    ],
)
def test_a_checkpoint_of_another_layout_names_the_tensor(
    write: Callable[..., Path], tmp_path: Path, change: Callable[[dict], object], words: list[str]
) -> None:
    with pytest.raises(WeightsError) as error:
        import_weights(SYSTEM, write(change), tmp_path / "store")
    for word in [FOLDER, *words]:
        assert word in str(error.value)
    assert list_store(tmp_path / "store") == []


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    target = tmp_path / "made-by-the-pickle"
    path = tmp_path / FOLDER / "weights.pth"
    path.parent.mkdir()
    torch.save({"a": Malicious(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="runs code"):
        checkpoints.read_checkpoint("pspnet", path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello\n" * 100, "not a PyTorch file"),
        (b"PK\x03\x04" + bytes(500), "not a PyTorch file"),
        (pickle.dumps([1, 2, 3]), "not a PyTorch file"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / FOLDER / "weights.pth"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        checkpoints.read_checkpoint("pspnet", path)


def test_a_truncated_file_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    (path,) = write().glob("**/weights.pth")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match="download it again"):
        checkpoints.read_checkpoint("pspnet", path)


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(2)], path)
    with pytest.raises(WeightsError, match="holds a list"):
        checkpoints.read_checkpoint("pspnet", path)


def test_a_bad_checkpoint_does_not_keep_the_others_out(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    models = write()
    bad = models / "models_covid" / "FPN_efficientnet-b0_imagenet_050921_1358" / "weights.pth"
    bad.parent.mkdir()
    bad.write_bytes(b"broken")
    with pytest.raises(WeightsError, match=r"(?s)fpn: .*imported: pspnet"):
        import_weights(SYSTEM, models, tmp_path / "store")
    assert [card.network for card in list_store(tmp_path / "store")] == ["pspnet"]


def test_other_stage_one_checkpoints_are_passed_over(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    models = write()
    other = models / "models_lungs" / "FPN_efficientnet-b0_imagenet_240821_1200" / "weights.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"never read")
    assert [c.network for c in checkpoints.find(models)] == ["pspnet"]


def test_two_checkpoints_of_one_network_are_a_question(write: Callable[..., Path]) -> None:
    write()
    with pytest.raises(WeightsError, match="two checkpoints of pspnet"):
        checkpoints.find(write(folder=FOLDER.replace("1848", "1849")))


def test_folders_without_checkpoints(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        checkpoints.find(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no checkpoint below it"):
        checkpoints.find(tmp_path)
    with pytest.raises(WeightsError, match="not that of a published checkpoint"):
        checkpoints.find(write(folder="my_network"))


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("HILUM_STORE", raising=False)
    assert store_folder() == tmp_path / "data" / "hilum" / "weights"
    monkeypatch.setenv("HILUM_STORE", str(tmp_path / "store"))
    assert store_folder() == tmp_path / "store"
    assert store_folder(tmp_path) == tmp_path


def test_weights_that_are_not_there_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hilum weights import cxr-severity DIR"):
        load_weights("cxr-severity", "manet", tmp_path)


def test_imported_weights_are_what_is_served(write: Callable[..., Path], tmp_path: Path) -> None:
    (card,) = import_weights(SYSTEM, write(), tmp_path / "store")
    (found,) = export_system(
        SYSTEM,
        repository=tmp_path / "repository",
        networks=["pspnet"],
        weights="store",
        store=tmp_path / "store",
    )
    assert found["weights"] == {
        "network": "pspnet",
        "source": f"checkpoint {FOLDER}",
        "sha256": card.sha256,
        "kind": "checkpoint",
    }
    assert found["parity"]["largest_difference"]["core mask"] <= 2e-5
