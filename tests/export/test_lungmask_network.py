"""lungmask's network and checkpoint reader against their specification."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from ct_networks import calibrated, hand_core, macs, run

from hilum.catalog import lungmask as catalog
from hilum.catalog.errors import WeightsError
from hilum.export.onnx_export import to_onnx
from hilum.export.systems.lungmask import checkpoint as checkpoints
from hilum.export.systems.lungmask import network as lungmask
from hilum.export.systems.lungmask.recipe import RECIPE

SIDE = 64


@pytest.fixture(scope="module")
def network() -> lungmask.UNet:
    return calibrated(lungmask.build, (4, 1, SIDE, SIDE), 1.0, seed=5)


def published_order(network: lungmask.UNet, published: bool) -> None:
    for level in network.up_path:
        level.narrow_first = not published


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = lungmask.build()
        assert sum(p.numel() for p in network.parameters()) == 28_953_539
        narrow = macs(network, torch.zeros(1, 1, 256, 256))["Global"]
        published_order(network, True)
        assert macs(network, torch.zeros(1, 1, 256, 256))["Global"] == 48_100_278_272
    assert 48_100_278_272 - narrow == round(0.75 * 2_147_483_648)


def test_narrowing_before_upsampling_changes_nothing(network: lungmask.UNet) -> None:
    x = torch.rand(2, 1, SIDE, SIDE)
    with torch.no_grad():
        (narrow,) = network(x)
        published_order(network, True)
        (published,) = network(x)
    published_order(network, False)
    assert (narrow - published).abs().max() <= 1e-5


def test_normalisation_limits_and_scale() -> None:
    hu = np.array([[[-1024, 600, -212], [-2000, 3000, -1023]]], np.int16)
    x = RECIPE.core_input(catalog.R231, {}, {"hu": hu})
    assert x.shape == (1, 1, 2, 3)
    assert x.ravel().tolist() == pytest.approx([0, 1, 0.5, 0, 1, 1 / 1624])


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (np.nextafter(np.float32(0), np.float32(-1)), [1, 1, 1, 1]),
        (0.0, [0, 1, 1, 1]),
        (np.nextafter(np.float32(0.5), np.float32(0)), [0, 1, 1, 1]),
        (0.5, [0, 0, 1, 1]),
        (np.nextafter(np.float32(1), np.float32(0)), [0, 0, 0, 1]),
        (1.0, [0, 0, 0, 0]),
    ],
)
def test_the_graph_scales_exactly_and_gives_the_first_of_equal_labels(
    above: float, expected: list[int]
) -> None:
    """Class 1 wins where x is above a number: so the values of x are seen from outside."""

    def write(n) -> None:
        zero = n.add("Mul", "x", n.floats(0))
        level = n.add("Add", zero, n.floats(above))
        n.add("Concat", level, "x", n.add("Sub", zero, n.floats(9)), out="scores", axis=1)

    served = RECIPE.wrap(hand_core(write, {"x": (1, 2, 2)}, ["scores"]), catalog.R231, {"R": 2})
    hu = np.array([[[-2000, -212], [-211, 3000]]], np.int16)
    label = run(served, hu=hu)["label"]
    assert label.dtype == np.uint8
    assert label.ravel().tolist() == expected


def test_the_served_graph_agrees_with_pytorch(network: lungmask.UNet) -> None:
    core = to_onnx(network, (1, SIDE, SIDE), inputs=["x"], outputs=["scores"])
    session = ort.InferenceSession(core.SerializeToString(), providers=["CPUExecutionProvider"])
    hu = np.random.default_rng(6).integers(-1100, 700, (3, SIDE, SIDE)).astype(np.int16)
    x = RECIPE.core_input(catalog.R231, {"R": SIDE}, {"hu": hu})
    with torch.no_grad():
        (scores,) = network(x)
    assert scores.std() > 0.01
    for count in (1, 3):
        (got,) = session.run(None, {"x": x[:count].numpy()})
        assert np.abs(got - scores[:count].numpy()).max() <= 1e-5

    wanted = RECIPE.outputs(catalog.R231, (scores,))
    assert np.array_equal(wanted["label"], scores.argmax(1).numpy())
    assert len(np.unique(wanted["label"])) > 1
    got = run(RECIPE.wrap(core, catalog.R231, {"R": SIDE}), hu=hu)["label"]
    near = wanted["probability of label"] <= 0.5 + 2e-5
    assert ((got == wanted["label"]) | near).all()


def published_tensors() -> dict[str, torch.Tensor]:
    """A whole state dict of one value, so that the file is small."""
    return {
        name: torch.zeros((), dtype=t.dtype).expand(t.shape)
        for name, t in checkpoints.expected().items()
    }


def write(folder: Path, tensors: object, name: str = "unet_r231-{}.pth") -> Path:
    """Save, named after the digest as published files are."""
    path = folder / "file"
    torch.save(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / name.format(digest[:8]))


def test_the_published_state_dict_has_227_entries() -> None:
    expected = checkpoints.expected()
    assert len(expected) == 227
    assert sum(t.numel() for t in expected.values()) == 31_073_890
    parameters = [t for n, t in expected.items() if "running" not in n and "num_b" not in n]
    assert sum(t.numel() for t in parameters) == 31_054_275
    assert "up_path.0.conv_block.residual_batchnorm.running_var" in expected


def test_a_published_file_loads_strictly_and_drops_the_unused(
    tmp_path: Path, network: lungmask.UNet
) -> None:
    path = write(tmp_path, published_tensors() | dict(network.state_dict()))
    tensors = checkpoints.read_checkpoint(path, allow_unknown=True)
    path.unlink()
    loaded = lungmask.build()
    loaded.load_state_dict(tensors, strict=True)
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], network(x)[0])


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    tensors = published_tensors()
    missing = {n: t for n, t in tensors.items() if n != "up_path.2.residual_input_conv.bias"}
    extra = tensors | {"up_path.4.up.1.bias": torch.zeros(1)}
    odd = tensors | {"down_path.1.block.3.weight": torch.zeros(1).expand(128, 64, 3, 3)}
    lobes = tensors | {"last.bias": torch.zeros(6)}
    for wrong, words in (
        (missing, r"lacks up_path\.2\.residual_input_conv\.bias"),
        (extra, r"unknown up_path\.4\.up\.1\.bias"),
        (odd, r"down_path\.1\.block\.3\.weight is float32 \[128, 64, 3, 3\].*\[128, 128, 3, 3\]"),
        (lobes, "6 classes"),
    ):
        with pytest.raises(WeightsError, match=words):
            checkpoints.read_checkpoint(write(tmp_path, wrong), allow_unknown=True)


def test_the_digest_must_be_that_of_the_name_and_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, published_tensors())
    with pytest.raises(WeightsError, match="not that of a published R231 file"):
        checkpoints.read_checkpoint(path)
    renamed = path.rename(tmp_path / "unet_r231-d5d2fc3d.pth")
    with pytest.raises(WeightsError, match="damaged or renamed"):
        checkpoints.read_checkpoint(renamed, allow_unknown=True)
    digest = hashlib.sha256(renamed.read_bytes()).hexdigest()
    monkeypatch.setattr(catalog, "WEIGHT_FILES", {digest[:8]: "this file"})
    good = renamed.rename(path)
    assert checkpoints.check_digest(good, allow_unknown=False) == digest
    assert len(checkpoints.read_checkpoint(good)) == 136
    (found,) = checkpoints.find(tmp_path)
    assert (found.network, found.path) == ("r231", good)


def test_pointers_and_empty_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint"):
        checkpoints.find(tmp_path)
    pointer = tmp_path / "unet_r231-d5d2fc3d.pth"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        checkpoints.read_checkpoint(pointer)
