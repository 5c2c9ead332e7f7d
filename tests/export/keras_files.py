"""Writing Keras HDF5 files as Keras 2 does, in both published layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import nn

Arrays = dict[str, NDArray[Any]]
Layers = dict[str, Arrays]
"""Arrays by layer and name, in Keras' order."""

LIMIT = 64512
"""Bytes that Keras puts into one attribute."""


def layer_arrays(module: nn.Module) -> Arrays:
    """The arrays of one PyTorch layer as Keras orders them."""
    found: Arrays = {}
    state = {k: v.numpy() for k, v in module.state_dict().items()}
    if isinstance(module, nn.BatchNorm2d):
        if "weight" in state:
            found["gamma"] = state["weight"]
        found["beta"] = state["bias"]
        found["moving_mean"] = state["running_mean"]
        found["moving_variance"] = state["running_var"]
        return found
    kernel = state["weight"]
    if kernel.ndim == 4:  # (out, in, h, w) → (h, w, in, out); transposed (in, out, h, w) likewise
        found["kernel"] = np.moveaxis(kernel, (0, 1), (3, 2))
    else:
        found["kernel"] = kernel.T
    if "bias" in state:
        found["bias"] = state["bias"]
    return found


def network_arrays(layers: Mapping[str, nn.Module]) -> Layers:
    return {name: layer_arrays(module) for name, module in layers.items()}


def write_keras(
    path: Path,
    layers: Layers,
    *,
    full: bool,
    config: Mapping[str, Any] | None = None,
    nested: str | None = None,
    as_bytes: bool = True,
    counter: str = "",
) -> Path:
    """Write a file.

    Parameters
    ----------
    full
        As ``save`` does: below ``model_weights``, with an optimiser's state.
    nested
        Name of the model that holds all layers but the last, as one layer of the outer model.
    as_bytes
        Names in attributes as bytes; else as text.
    counter
        Behind layer names in the names of variables, as in a session that built them twice.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if full else file
        if full:
            file.create_group("optimizer_weights/Adam")["m:0"] = np.ones(5, np.float32)
            file.attrs["training_config"] = b"{}"
        if config is not None:
            text = json.dumps(config)
            file.attrs["model_config"] = text.encode() if as_bytes else text
        groups: dict[str, dict[str, Arrays]] = {name: {name: a} for name, a in layers.items()}
        if nested is not None:
            *body, head = layers
            groups = {nested: {n: layers[n] for n in body}, head: {head: layers[head]}}
        names: list[str] = []
        for number, (group, inner) in enumerate(groups.items()):
            # Layers without weights are listed too; their numbers differ between sessions.
            for name, content in ((group, inner), (f"activation_{number + 7}", {})):
                names.append(name)
                _write_layer(root.create_group(name), content, as_bytes, counter)
        _write_names(root, "layer_names", names, as_bytes)
        root.attrs["backend"] = b"tensorflow"
    return path


def _write_layer(
    group: h5py.Group, inner: Mapping[str, Arrays], as_bytes: bool, counter: str
) -> None:
    names: list[str] = []
    for layer, arrays in inner.items():
        for array, values in arrays.items():
            names.append(f"{layer}{counter}/{array}:0")
            group[names[-1]] = values
    _write_names(group, "weight_names", names, as_bytes)


def _write_names(group: h5py.Group, attribute: str, names: list[str], as_bytes: bool) -> None:
    texts: Any = [n.encode() for n in names] if as_bytes else names
    if not texts:
        group.attrs[attribute] = np.zeros(0)
        return
    whole = np.array(texts)
    if whole.nbytes <= LIMIT and as_bytes:
        group.attrs[attribute] = whole
    elif as_bytes:
        parts = np.array_split(whole, 1 + whole.nbytes // LIMIT)
        for number, part in enumerate(parts):
            group.attrs[f"{attribute}{number}"] = part
    else:
        group.attrs.create(attribute, texts, dtype=h5py.string_dtype())


def densenet_config(layers: Mapping[str, nn.Module], head: str) -> dict[str, Any]:
    """What ``save`` notes about DenseNet121 with mean and one sigmoid unit."""

    def layer(class_name: str, name: str, **settings: Any) -> dict[str, Any]:
        return {"class_name": class_name, "config": {"name": name, **settings}}

    found = [layer("InputLayer", "input_1"), layer("ZeroPadding2D", "zero_padding2d")]
    for name, module in layers.items():
        if isinstance(module, nn.Conv2d):
            found.append(layer("Conv2D", name, use_bias=False))
        elif isinstance(module, nn.BatchNorm2d):
            found.append(layer("BatchNormalization", name, epsilon=1.001e-5))
            found.append(layer("Activation", name.replace("bn", "relu"), activation="relu"))
    found.append(layer("GlobalAveragePooling2D", "avg_pool"))
    found.append(layer("Dropout", "dropout", rate=0.5))
    found.append(layer("Dense", head, units=1, activation="sigmoid"))
    return {"class_name": "Functional", "config": {"name": "model", "layers": found}}
