"""Published checkpoints of the CT slice classifier (spec ct_densenet §2, §4.3, §5).

Both generations carry one file name, ``modeloCovid.h5``; which profile a file belongs to is known
by its sha256. A file that is not published, one trained again, is taken only when it is asked for,
and shows its profile by the folder it lies in, ``raw_hu`` or ``masked``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilum.catalog import ct_classifier as catalog
from hilum.catalog.errors import WeightsError

from ...certificate import sha256_of
from ...checkpoints import Checkpoint
from ...checkpoints.keras import KerasFile, check_not_pointer, read_keras, state_dict
from ...layers import densenet

LAYOUT = "ct-classifier: Keras HDF5"

SUFFIXES = ("*.h5", "*.hdf5")

IDENTITY = {"InputLayer", "Dropout"}
"""Layers that do nothing in use."""

BODY = {
    "Activation", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D",
    "MaxPooling2D", "ReLU", "ZeroPadding2D",
}  # fmt: skip
"""Layers of Keras' DenseNet121."""

NESTED = {"Functional", "Model", "Sequential"}


def find(folder: Path, *, required: bool = True, allow_unknown: bool = False) -> list[Checkpoint]:
    """The checkpoints in or below `folder`, one for each profile at most.

    Parameters
    ----------
    required
        Whether it is an error when there is none.
    allow_unknown
        Take files that are not published, with the profile that their folder names.

    Raises
    ------
    WeightsError
        When a file belongs to no profile, or two claim the same one.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found: dict[str, Checkpoint] = {}
    for path in sorted(p for suffix in SUFFIXES for p in folder.rglob(suffix)):
        check_not_pointer(path)
        known = known_profile(sha256_of(path))
        profile = known or path.absolute().parent.name
        if known is None and (not allow_unknown or profile not in catalog.PROFILES):
            raise WeightsError(_unknown(path))
        if profile in found:
            raise WeightsError(
                f"two checkpoints of {profile}: {found[profile].path} and {path}; import the "
                "folder of the one you want"
            )
        layout = LAYOUT if known else f"{LAYOUT}, not a published file"
        read = functools.partial(read_checkpoint, profile, path, allow_unknown=allow_unknown)
        found[profile] = Checkpoint(profile, path.name, layout, path, read)
    if required and not found:
        raise WeightsError(f"{folder}: no checkpoint below it; expected modeloCovid.h5")
    return list(found.values())


def known_profile(sha256: str) -> str | None:
    """The profile of a published file, None for any other."""
    return next((p.name for p in catalog.PROFILES.values() if p.sha256 == sha256), None)


def read_checkpoint(
    profile: str, path: Path, *, allow_unknown: bool = False
) -> Mapping[str, Tensor]:
    """Read and check one file: tensors by their names in ``networks.densenet.build``.

    Raises
    ------
    WeightsError
        When the file is that of the other profile, or is unknown and was not asked for; naming
        the layer that does not fit, or the array that is missing, extra or misshapen.
    """
    check_not_pointer(path)
    known = known_profile(sha256_of(path))
    if known is not None and known != profile:
        raise WeightsError(
            f"{path} is the published file of profile {known}; with the input of {profile} its "
            "answers would mean nothing"
        )
    if known is None and not allow_unknown:
        raise WeightsError(_unknown(path))
    file = read_keras(path)
    head = head_by_shape(file) if file.config is None else check_architecture(file.config, path)
    with torch.device("meta"):
        skeleton = densenet.build()
    tensors = state_dict(file, dict(skeleton.layers.items()), {densenet.HEAD: head})
    return {f"layers.{name}": tensor for name, tensor in tensors.items()}


def _unknown(path: Path) -> str:
    return (
        f"{path} is not a published file (its sha256 is unknown), so its input profile is not "
        f"known. Weights of your own go into a folder called {catalog.RAW_HU} or {catalog.MASKED} "
        "and must be allowed explicitly"
    )


def check_architecture(config: Mapping[str, Any], path: Path) -> str:
    """Check that a ``model_config`` is DenseNet121, mean, one sigmoid unit; give the unit's name.

    Layers without weights leave no trace among the arrays, so they can only be seen here: one that
    rescales or normalises the input would be lost.

    Raises
    ------
    WeightsError
        Naming the layer that does not fit.
    """
    layers = [layer for layer in _layers(config, path) if layer["class_name"] not in IDENTITY]
    *body, pool, head = layers if len(layers) > 1 else [{"class_name": "nothing"}] * 2
    for layer in body:
        if layer["class_name"] not in BODY:
            raise WeightsError(
                f"{path}: layer {_name(layer)!r} is a {layer['class_name']}, which the published "
                "network does not have; its input would not be what the file was trained on"
            )
        epsilon = _settings(layer).get("epsilon", densenet.EPS)
        if layer["class_name"] == "BatchNormalization" and abs(epsilon - densenet.EPS) > 1e-9:
            raise WeightsError(
                f"{path}: BatchNorm {_name(layer)!r} has an epsilon of {epsilon}; DenseNet121's is "
                f"{densenet.EPS}"
            )
    if pool["class_name"] != "GlobalAveragePooling2D":
        raise WeightsError(
            f"{path}: a {pool['class_name']} comes before the last layer, not the mean over the "
            "map (GlobalAveragePooling2D) that the heat map needs"
        )
    settings = _settings(head)
    if (head["class_name"], settings.get("units"), settings.get("activation")) != (
        "Dense", 1, "sigmoid",
    ):  # fmt: skip
        raise WeightsError(
            f"{path}: the last layer is a {head['class_name']} of {settings.get('units')} units "
            f"with activation {settings.get('activation')}, not a Dense of one sigmoid unit"
        )
    return _name(head)


def _layers(config: Mapping[str, Any], path: Path) -> Iterator[Mapping[str, Any]]:
    """Layers in order, those of models used as layers in place."""
    try:
        inner = config["config"]
        for layer in inner if isinstance(inner, list) else inner["layers"]:
            if layer["class_name"] in NESTED:
                yield from _layers(layer, path)
            else:
                yield layer
    except (KeyError, TypeError) as broken:
        raise WeightsError(f"{path}: its model_config is not one of Keras ({broken})") from broken


def _settings(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    return layer.get("config") or {}


def _name(layer: Mapping[str, Any]) -> str:
    return str(_settings(layer).get("name", "?"))


def head_by_shape(file: KerasFile) -> str:
    """The one dense layer of a file without ``model_config``.

    Raises
    ------
    WeightsError
        When there is none, or more than one.
    """
    dense = [n.rpartition("/")[0] for n, shape in file.shapes.items() if len(shape) == 2]
    if len(dense) != 1:
        raise WeightsError(
            f"{file.path} has {len(dense)} dense layers ({', '.join(dense) or 'none'}); the "
            "published network has one"
        )
    return dense[0]
