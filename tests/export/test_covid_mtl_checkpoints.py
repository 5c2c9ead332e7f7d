"""Reading checkpoints of COVID-MTL and its comparators, from file to exported network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mtl_networks import closed_form
from torch import Tensor

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import WeightsError
from hilum.export.layers.resnet3d import ResNet3D
from hilum.export.repository import export_system
from hilum.export.store import import_weights
from hilum.export.systems.covid_mtl import network as covid_mtl
from hilum.export.systems.covid_mtl.checkpoint import find, read_checkpoint

State = dict[str, Tensor]


def state(name: str) -> State:
    return closed_form(covid_mtl.build(catalog.SYSTEM.network(name)))


def save(path: Path, tensors: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return path


def test_networks_are_known_by_their_tensors(tmp_path: Path) -> None:
    save(tmp_path / "epoch80_rw_shift.pth", state("dual"))
    save(tmp_path / "a.pt", state("volume"))
    save(tmp_path / "b.pt", state("severity"))
    save(tmp_path / "CT" / "best.pth", state("ct"))
    save(tmp_path / "shift_NAT_e79.tar", {"state_dict": state("nat"), "epoch": 79})
    save(tmp_path / "decovnet.ckpt", state("decovnet"))
    (tmp_path / "readme.txt").write_text("not a checkpoint")
    found = {c.network: c for c in find(tmp_path)}
    assert found.keys() == {
        "dual", "volume", "ct", "nat", "severity", "decovnet", "decovnet_parity",
    }  # fmt: skip
    assert found["dual"].source == "epoch80_rw_shift.pth"
    for name, checkpoint in found.items():
        tensors, want = checkpoint.read(), state(name)
        assert tensors.keys() == want.keys()
        assert all(torch.equal(t, want[key]) for key, t in tensors.items())


def test_the_comparators_are_distinguished(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = ResNet3D(3).state_dict()
    few = {name: torch.zeros(t.shape) for name, t in names.items() if t.numel() < 10_000}
    save(tmp_path / "comparator.pth", few)
    (found,) = find(tmp_path)
    assert found.network == "resnet_severity"
    with pytest.raises(WeightsError, match=r"lacks layer1\.0\.conv1\.weight"):
        found.read()


def test_parallel_training_in_half_precision_is_undone(tmp_path: Path) -> None:
    want = state("dual")
    half = {f"module.{k}": t.half() if t.is_floating_point() else t for k, t in want.items()}
    tensors = read_checkpoint(save(tmp_path / "dual.pth", half), catalog.DUAL)
    assert tensors.keys() == want.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == want[name].dtype
        assert torch.equal(tensor, want[name].to(half[f"module.{name}"].dtype).to(tensor.dtype))


def published_volume_only() -> State:
    """With 32 scores for each head and two names for its convolution (spec §9.7)."""
    tensors = state("volume")
    for k in (1, 2, 3):
        for part, shape in (("1.weight", (32, 512, 1, 1, 1)), ("1.bias", (32,))):
            tensors[f"classifier{k}_.{part}"] = torch.rand(shape)
            tensors[f"classifier{k}.{part}"] = tensors[f"classifier{k}_.{part}"]
    return tensors


def test_of_32_scores_those_of_the_classes_are_kept(tmp_path: Path) -> None:
    published = published_volume_only()
    save(tmp_path / "x.pth", published)
    (found,) = find(tmp_path)
    assert "32 scores" in found.layout
    tensors = found.read()
    for k, classes in ((1, 2), (2, 2), (3, 3)):
        for part in ("1.weight", "1.bias"):
            name = f"classifier{k}_.{part}"
            assert torch.equal(tensors[name], published[name][:classes])
    assert covid_mtl.build(catalog.VOLUME_ONLY).load_state_dict(dict(tensors))

    published["classifier2.1.bias"] = torch.zeros(32)
    with pytest.raises(WeightsError, match=r"classifier2\.1\.bias is not classifier2_\.1\.bias"):
        read_checkpoint(save(tmp_path / "y.pth", published), catalog.VOLUME_ONLY)
    two_tasks = {k: t for k, t in published_volume_only().items() if "classifier3" not in k}
    with pytest.raises(WeightsError, match=r"lacks classifier3_\.1\.weight"):
        read_checkpoint(save(tmp_path / "y.pth", two_tasks), catalog.VOLUME_ONLY)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run7"
    with pytest.raises(WeightsError, match="no such folder"):
        find(folder)
    save(folder / "best.pth", state("ct"))
    with pytest.raises(WeightsError, match="2 classes do not show which question"):
        find(folder)
    save(folder / "best.pth", {"w": torch.zeros(3)})
    with pytest.raises(WeightsError, match="none of the networks of covid-mtl has such tensors"):
        find(folder)
    (folder / "best.pth").unlink()
    with pytest.raises(WeightsError, match=r"expected dual\.pth"):
        find(folder)
    save(folder / "dual.pth", state("dual"))
    save(folder / "other.pth", state("dual"))
    with pytest.raises(WeightsError, match="two checkpoints of dual"):
        find(folder)

    broken = state("dual")
    broken["features.convbn.0.weight"] = torch.zeros(64, 3, 3, 3, 3)
    path = save(folder / "dual.pth", broken)
    with pytest.raises(WeightsError, match=r"features\.convbn\.0\.weight is .*64, 3, 3, 3, 3"):
        read_checkpoint(path, catalog.DUAL)
    with pytest.raises(WeightsError, match=r"has unknown radioFNN"):
        read_checkpoint(
            save(path, {**state("ct"), "radioFNN.x": torch.zeros(1)}), catalog.SINGLE["ct"]
        )
    one = state("decovnet") | {"s1.pathway0_stem.conv.weight": torch.zeros(16, 1, 5, 7, 7)}
    with pytest.raises(WeightsError, match=r"s1\.pathway0_stem\.conv\.weight is .*16, 1, 5, 7, 7"):
        read_checkpoint(save(path, one), catalog.DECOVNET)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"dual\.pth: truncated"):
        read_checkpoint(path, catalog.DUAL)


def test_a_checkpoint_becomes_a_served_network(tmp_path: Path) -> None:
    """DeCoVNet, the cheapest one: with stages that are never computed, as published."""
    unused = {f"s5.pathway0_res0.branch2.{k}.weight": torch.zeros(4, 4, 1, 1, 1) for k in "ab"}
    tensors = {f"module.{k}": t for k, t in {**state("decovnet"), **unused}.items()}
    save(tmp_path / "weights" / "epoch_best.pth", tensors)
    store = tmp_path / "store"
    cards = import_weights(catalog.SYSTEM, tmp_path / "weights", store)
    assert [card.network for card in cards] == ["decovnet", "decovnet_parity"]
    assert cards[0].parameters >= 346_978
    (certificate,) = export_system(
        catalog.SYSTEM,
        repository=tmp_path / "repository",
        networks=["decovnet"],
        weights="store",
        store=store,
    )
    model = tmp_path / "repository" / "covid_mtl_decovnet"
    assert json.loads((model / "1" / "certificate.json").read_text()) == certificate
    assert certificate["weights"]["source"] == "checkpoint epoch_best.pth"
    assert certificate["parity"]["batches"] == [1, 2]
    assert max(certificate["parity"]["largest_difference"].values()) <= 1e-5
    assert (model / "p_covid_labels.txt").read_text() == "negative\npositive\n"
    answers = tmp_path / "repository" / catalog.ENSEMBLE.model / "p_severity_labels.txt"
    assert len(answers.read_text().splitlines()) == 3
