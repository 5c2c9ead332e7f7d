"""Keras HDF5 checkpoints of CT-Angel and of the CT classifier."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ct_networks import calibrated
from keras_files import Layers, densenet_config, layer_arrays, network_arrays, write_keras
from torch import Tensor, nn

from hilum.catalog import ct_classifier as catalog
from hilum.catalog.errors import WeightsError
from hilum.export.checkpoints.keras import read_keras, state_dict
from hilum.export.layers import densenet
from hilum.export.systems.ct_angel import checkpoint as angel_files
from hilum.export.systems.ct_angel import network as ct_angel
from hilum.export.systems.ct_classifier import checkpoint as classifier_files

SIDE = 64
HEAD = "dense_3"


@pytest.fixture(scope="module")
def angel() -> ct_angel.NestedUNet:
    return calibrated(ct_angel.build, (4, 3, SIDE, SIDE), 1.0, seed=11)


@pytest.fixture(scope="module")
def classifier() -> densenet.DenseNet:
    return calibrated(densenet.build, (6, 1, SIDE, SIDE), 1.0, seed=12)


@pytest.fixture(scope="module")
def dense_layers(classifier: densenet.DenseNet) -> Layers:
    arrays = network_arrays(dict(classifier.layers.items()))
    arrays[HEAD] = arrays.pop(densenet.HEAD)
    return arrays


@pytest.fixture
def config(classifier: densenet.DenseNet) -> dict:
    return densenet_config(dict(classifier.layers.items()), HEAD)


def seen(channels: int) -> Tensor:
    """Two images that differ enough for outputs that do: [2, C, 64, 64], the second one dark."""
    drawn = torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return drawn * torch.tensor([1.0, 0.2])[:, None, None, None]


def same(loaded: nn.Module, filled: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        pairs = list(zip(loaded(x), filled(x), strict=True))
    assert all(b.std() > 1e-4 for _, b in pairs)
    return max((a - b).abs().max().item() for a, b in pairs) <= 1e-5


@pytest.mark.parametrize("full", [False, True], ids=["weights only", "full"])
def test_ct_angel_files_of_both_layouts_load_strictly(
    tmp_path: Path, angel: ct_angel.NestedUNet, full: bool
) -> None:
    name = "ct_angel_lesion_weights.hdf5" if full else "ct-angel_weights.hdf5"
    layers = network_arrays(dict(angel.layers.items()))
    path = write_keras(tmp_path / name, layers, full=full, as_bytes=not full)
    assert sum(len(a) for a in layers.values()) == 368
    (found,) = angel_files.find(tmp_path)
    assert (found.network, found.path) == ("lesion", path)
    loaded = ct_angel.build()
    loaded.load_state_dict(found.read(), strict=True)
    path.unlink()
    assert same(loaded, angel, seen(3))


def test_both_ct_angel_networks_are_found_by_their_files_names(tmp_path: Path) -> None:
    for name in ("ct_angel_lesion_weights.h5", "ct_angel_lung_weights.h5", "notes.h5"):
        (tmp_path / name).write_bytes(b"x")
    assert [c.network for c in angel_files.find(tmp_path)] == ["lesion", "valid"]
    (tmp_path / "ct-angel_weights.hdf5").write_bytes(b"x")
    with pytest.raises(WeightsError, match="two checkpoints of lesion"):
        angel_files.find(tmp_path)


@pytest.mark.parametrize("layout", ["weights only", "full", "nested", "second session"])
def test_classifier_files_of_all_layouts_load_strictly(
    tmp_path: Path,
    classifier: densenet.DenseNet,
    dense_layers: Layers,
    config: dict,
    layout: str,
) -> None:
    folder = tmp_path / "raw_hu"
    folder.mkdir()
    if layout == "nested":
        *body, pool, dropout, head = config["config"]["layers"]
        inner = {"class_name": "Functional", "config": {"name": "densenet121", "layers": body}}
        outer = {"name": "sequential", "layers": [inner, pool, dropout, head]}
        config = {"class_name": "Sequential", "config": outer}
    path = write_keras(
        folder / "modeloCovid.h5",
        dense_layers,
        full=layout != "weights only",
        config=None if layout == "weights only" else config,
        nested="densenet121" if layout == "nested" else None,
        as_bytes=layout != "full",
        counter="_1" if layout == "second session" else "",
    )
    (found,) = classifier_files.find(tmp_path, allow_unknown=True)
    assert (found.network, found.path) == ("raw_hu", path)
    assert "not a published file" in found.layout
    loaded = densenet.build()
    loaded.load_state_dict(found.read(), strict=True)
    assert same(loaded, classifier, seen(1))


def test_long_lists_of_names_are_split_as_keras_does(tmp_path: Path, dense_layers: Layers) -> None:
    long = {f"{'a' * 120}_{name}": arrays for name, arrays in dense_layers.items()}
    path = write_keras(tmp_path / "long.h5", long, full=True, nested="body")
    with h5py.File(path) as file:
        attributes = file["model_weights/body"].attrs
        assert "weight_names1" in attributes
        assert "weight_names" not in attributes
    assert len(read_keras(path).shapes) == 606


def write_small(path: Path, layers: Layers, **options: bool) -> Path:
    return write_keras(path, layers, full=options.pop("full", False), **options)


def small() -> nn.ModuleDict:
    return nn.ModuleDict({"up": nn.ConvTranspose2d(2, 3, 4), "bn": nn.BatchNorm2d(3)})


def test_wrong_arrays_are_named(tmp_path: Path) -> None:
    network = small()
    good = network_arrays(dict(network.items()))

    def refused(layers: Layers, words: str) -> None:
        file = read_keras(write_small(tmp_path / "w.h5", layers))
        with pytest.raises(WeightsError, match=words):
            state_dict(file, dict(network.items()))

    def changed(layer: str, array: str, values: np.ndarray) -> Layers:
        layers = copy.deepcopy(good)
        layers[layer][array] = values
        return layers

    lacking = copy.deepcopy(good)
    del lacking["bn"]["moving_mean"]
    refused(lacking, "lacks bn/moving_mean")
    refused({"up": good["up"]}, "lacks bn/gamma, bn/beta, bn/moving_mean and 1 more")
    refused(good | {"sc": good["bn"]}, "unknown sc/gamma, sc/beta, sc/moving_mean and 1 more")
    turned = good["up"]["kernel"].swapaxes(2, 3)
    refused(changed("up", "kernel", turned), r"up/kernel is \[4, 4, 2, 3\].*\[4, 4, 3, 2\]")
    refused(changed("bn", "beta", np.zeros(3)), "bn/beta is float64")
    refused(changed("bn", "beta", np.float32([0, np.nan, 0])), "bn/beta holds NaN")


def test_arrays_that_the_file_only_names_are_reported(tmp_path: Path) -> None:
    path = write_small(tmp_path / "w.h5", network_arrays(dict(small().items())))
    with h5py.File(path, "a") as file:
        del file["bn/bn/gamma:0"]
    with pytest.raises(WeightsError, match="lacks /bn/bn/gamma:0"):
        read_keras(path)
    with h5py.File(path, "a") as file:
        file["bn/bn/gamma:0"] = h5py.ExternalLink("/etc/hostname", "/x")
    with pytest.raises(WeightsError, match="a link to elsewhere"):
        read_keras(path)


def test_files_that_are_not_weights_are_reported(tmp_path: Path) -> None:
    good = write_small(tmp_path / "good.h5", network_arrays(dict(small().items()))).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:9bfe\nsize 29300784\n"
    for content, words in (
        (b"", "the file is empty"),
        (pointer, "Git LFS pointer"),
        (b"<html>not found</html>", "not an HDF5 file"),
        (good[: len(good) // 2], "truncated or not an HDF5 file"),
    ):
        path = tmp_path / "bad.h5"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            read_keras(path)
    with pytest.raises(WeightsError, match="no such file"):
        read_keras(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["layers/conv/vars/0"] = np.zeros(3)
    with pytest.raises(WeightsError, match="no attribute 'layer_names'"):
        read_keras(tmp_path / "other.h5")


def test_transposed_convolution_of_the_specification(tmp_path: Path) -> None:
    layer = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
    impulse, ones = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    impulse[0, 0, 0, 0] = 1
    for kernel, x, expected in (
        (
            np.arange(1, 17, dtype=np.float32), impulse,
            [[6, 7, 8, 0], [10, 11, 12, 0], [14, 15, 16, 0], [0, 0, 0, 0]],
        ),
        (
            np.ones(16, np.float32), ones,
            [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]],
        ),
    ):  # fmt: skip
        layers = {"up": {"kernel": kernel.reshape(4, 4, 1, 1)}}
        file = read_keras(write_small(tmp_path / "w.h5", layers))
        layer.weight.data = state_dict(file, {"up": layer})["up.weight"]
        assert layer(x)[0, 0].tolist() == expected


def test_convolution_orientation_of_the_specification(tmp_path: Path) -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    kernel = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)
    file = read_keras(write_small(tmp_path / "w.h5", {"conv": {"kernel": kernel}}))
    layer.weight.data = state_dict(file, {"conv": layer})["conv.weight"]
    impulse = torch.zeros(1, 1, 3, 3)
    impulse[0, 0, 1, 1] = 1
    assert layer(impulse)[0, 0].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]


def test_channels_are_not_exchanged(tmp_path: Path) -> None:
    """Keras keeps (out, in) of a transposed convolution and (in, out) of the others."""
    for layer, shape in (
        (nn.ConvTranspose2d(5, 2, (3, 4), bias=False), (3, 4, 2, 5)),
        (nn.Conv2d(5, 2, (3, 4), bias=False), (3, 4, 5, 2)),
        (nn.Linear(5, 2, bias=False), (5, 2)),
    ):
        kernel = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        file = read_keras(write_small(tmp_path / "w.h5", {"l": {"kernel": kernel}}))
        weight = state_dict(file, {"l": layer})["l.weight"].numpy()
        assert np.array_equal(layer_arrays_of(layer, weight), kernel)
        if len(shape) == 4:
            assert weight[1, 0, 2, 3] == kernel[(2, 3, 0, 1)]


def layer_arrays_of(layer: nn.Module, weight: np.ndarray) -> np.ndarray:
    layer.weight.data = torch.from_numpy(weight)
    return layer_arrays(layer)["kernel"]


def test_a_file_of_the_other_profile_is_refused(
    tmp_path: Path, dense_layers: Layers, config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "modeloCovid.h5", dense_layers, full=True, config=config)
    with pytest.raises(WeightsError, match="sha256 is unknown"):
        classifier_files.read_checkpoint("masked", path)
    with pytest.raises(WeightsError, match="sha256 is unknown"):
        classifier_files.find(tmp_path)
    with pytest.raises(WeightsError, match="sha256 is unknown"):  # its folder names no profile
        classifier_files.find(tmp_path, allow_unknown=True)
    # From here on this very file counts as the published one of generation 2.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = dataclasses.replace(catalog.PROFILES["raw_hu"], sha256=digest)
    profiles = {**catalog.PROFILES, "raw_hu": published}
    monkeypatch.setattr(catalog, "PROFILES", profiles)
    with pytest.raises(WeightsError, match="published file of profile raw_hu"):
        classifier_files.read_checkpoint("masked", path, allow_unknown=True)
    (found,) = classifier_files.find(tmp_path)
    assert found.network == "raw_hu"
    assert "not a published file" not in found.layout
    assert len(found.read()) == 727


def test_known_digests_belong_to_their_profiles() -> None:
    for start, profile in (("9bfe337eefa45f37", "raw_hu"), ("520042a86cc0013e", "masked")):
        (sha256,) = [p.sha256 for p in catalog.PROFILES.values() if p.sha256.startswith(start)]
        assert classifier_files.known_profile(sha256) == profile
    assert classifier_files.known_profile("0" * 64) is None


@pytest.mark.parametrize(
    ("where", "layer", "words"),
    [
        (1, {"class_name": "Rescaling", "config": {"name": "rescaling"}}, "'rescaling'"),
        (1, {"class_name": "Normalization", "config": {"name": "norm"}}, "'norm' is a Norm"),
        (1, {"class_name": "Lambda", "config": {"name": "lambda_2"}}, "'lambda_2' is a Lambda"),
        (-3, {"class_name": "Flatten", "config": {"name": "flatten"}}, "'flatten' is a Flatten"),
    ],
)
def test_layers_that_the_published_network_lacks_are_named(
    config: dict, where: int, layer: dict, words: str
) -> None:
    config["config"]["layers"].insert(where, layer)
    with pytest.raises(WeightsError, match=words):
        classifier_files.check_architecture(config, Path("m.h5"))


def test_heads_of_another_kind_are_named(config: dict) -> None:
    layers = config["config"]["layers"]
    assert classifier_files.check_architecture(config, Path("m.h5")) == HEAD
    for settings, words in (
        ({"units": 2}, "a Dense of 2 units"),
        ({"units": 1, "activation": "linear"}, "activation linear"),
    ):
        layers[-1]["config"].update(settings)
        with pytest.raises(WeightsError, match=words):
            classifier_files.check_architecture(config, Path("m.h5"))
    layers[-1]["config"].update(activation="sigmoid")
    layers[-3]["class_name"] = "MaxPooling2D"
    with pytest.raises(WeightsError, match="MaxPooling2D comes before the last layer"):
        classifier_files.check_architecture(config, Path("m.h5"))
    layers[-3]["class_name"] = "GlobalAveragePooling2D"
    norm = next(n for n in layers if n["class_name"] == "BatchNormalization")
    norm["config"]["epsilon"] = 1e-3
    with pytest.raises(WeightsError, match=r"epsilon of 0\.001"):
        classifier_files.check_architecture(config, Path("m.h5"))
    for nonsense in ({}, {"config": {"layers": [{}]}}, {"config": {"layers": []}}):
        with pytest.raises(WeightsError, match=r"m\.h5"):
            classifier_files.check_architecture(nonsense, Path("m.h5"))
