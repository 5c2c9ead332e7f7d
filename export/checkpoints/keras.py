"""Reading Keras HDF5 weights without TensorFlow (spec ct_angel §5, ct_densenet §5.3).

There are two published layouts: ``save_weights`` puts the layers at the root of the file, ``save``
puts them below ``model_weights`` and adds the model's configuration and, after training, the
optimiser's state, which is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from hilum.catalog.errors import WeightsError

from .hdf5_probe import check_readable

Layout = Literal["weights only", "full model"]

LFS_HEADER = b"version https://git-lfs"

FIRST = 3
"""Names that a message lists before it counts the rest."""


@dataclass(frozen=True, slots=True)
class KerasFile:
    """What is in a Keras file; the arrays themselves stay there.

    Attributes
    ----------
    shapes
        Shape by name ``LAYER/ARRAY``, as in ``conv1/bn/gamma``.
    places
        Path of each in the file.
    config
        ``model_config`` of a full model.
    """

    path: Path
    layout: Layout
    shapes: Mapping[str, tuple[int, ...]]
    places: Mapping[str, str]
    config: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an array of a Keras file belongs.

    Attributes
    ----------
    tensor
        Name within the PyTorch layer.
    shape
        In Keras' order of axes.
    axes
        Permutation from Keras' order to PyTorch's.
    """

    tensor: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def check_not_pointer(path: Path) -> None:
    """Make sure that a file is there, not empty, and not a pointer to Git LFS.

    Raises
    ------
    WeightsError
        When it is one of these.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(len(LFS_HEADER))
    if not head:
        raise WeightsError(f"{path}: the file is empty; download it again")
    if head == LFS_HEADER:
        raise WeightsError(
            f"{path} is a Git LFS pointer, a short text in place of the weights; fetch them with "
            "`git lfs pull`, or download the file itself"
        )


def read_keras(path: Path) -> KerasFile:
    """List the arrays of a Keras file.

    Raises
    ------
    WeightsError
        For a file that is missing, a Git LFS pointer, not HDF5, truncated, or not written by
        Keras 2 (``.h5``, ``.hdf5``).
    """
    check_not_pointer(path)
    check_readable(path)
    try:
        with h5py.File(path, "r") as file:
            full = "model_weights" in file
            group = _child(file, "model_weights", path) if full else file
            places = dict(_arrays(group, path))
            shapes = {name: _dataset(file, place, path).shape for name, place in places.items()}
            layout = "full model" if full else "weights only"
            return KerasFile(path, layout, shapes, places, _config(file, path))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as broken:
        raise WeightsError(
            f"{path}: truncated or not an HDF5 file ({_first_line(broken)}); download it again"
        ) from broken


def state_dict(
    file: KerasFile, layers: Mapping[str, nn.Module], names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Read the weights of a network whose layers carry Keras names.

    Parameters
    ----------
    layers
        PyTorch layer by its Keras name: convolutions, transposed ones, BatchNorms, linear layers.
        Only shapes are looked at, so they may lie on the ``meta`` device.
    names
        Names of layers in the file that differ from those in `layers`.

    Returns
    -------
    dict
        float32 tensors in PyTorch's order of axes by ``LAYER.TENSOR``, for
        ``nn.ModuleDict.load_state_dict``.

    Raises
    ------
    WeightsError
        Naming the arrays that are missing, extra, misshapen, not float32 or not finite.
    """
    slots = {
        f"{(names or {}).get(layer, layer)}/{array}": (layer, slot)
        for layer, module in layers.items()
        for array, slot in _slots(module).items()
    }
    _check_names(file, slots)
    for name, (_, slot) in slots.items():
        if file.shapes[name] != slot.shape:
            raise WeightsError(
                f"{file.path}: {name} is {list(file.shapes[name])}, but the network has "
                f"{list(slot.shape)}"
            )
    tensors: dict[str, Tensor] = {}
    with h5py.File(file.path, "r") as opened:
        for name, (layer, slot) in slots.items():
            array = _values(opened, file.places[name], name, file.path)
            array = np.ascontiguousarray(array.transpose(slot.axes))
            tensors[f"{layer}.{slot.tensor}"] = torch.from_numpy(array)
    for layer, module in layers.items():
        if isinstance(module, nn.BatchNorm2d):
            # Keras does not count; PyTorch reads the count only when it trains.
            tensors[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return tensors


def _slots(module: nn.Module) -> dict[str, Slot]:
    """Arrays that Keras keeps for a layer.

    Keras orders the axes of a kernel (h, w, in, out), those of a transposed convolution
    (h, w, out, in), and a dense one (in, out). Both frameworks correlate: nothing is flipped.
    """
    if isinstance(module, nn.BatchNorm2d):
        tensors = {"gamma": "weight", "beta": "bias"}
        if "weight" not in module._parameters:
            del tensors["gamma"]
        tensors |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        return {name: Slot(t, (module.num_features,), (0,)) for name, t in tensors.items()}
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        first, second, *kernel = module.weight.shape
        slots = {"kernel": Slot("weight", (*kernel, second, first), (3, 2, 0, 1))}
    elif isinstance(module, nn.Linear):
        slots = {"kernel": Slot("weight", tuple(module.weight.shape[::-1]), (1, 0))}
    else:
        raise TypeError(f"no Keras counterpart of {type(module).__name__}")
    if module.bias is not None:
        slots["bias"] = Slot("bias", tuple(module.bias.shape), (0,))
    return slots


def _check_names(file: KerasFile, wanted: Mapping[str, object]) -> None:
    for problem, names in (
        ("lacks", [n for n in wanted if n not in file.shapes]),
        ("has unknown", [n for n in file.shapes if n not in wanted]),
    ):
        if names:
            more = f" and {len(names) - FIRST} more" if len(names) > FIRST else ""
            raise WeightsError(
                f"{file.path} {problem} {', '.join(names[:FIRST])}{more}: not the published layout"
            )


def _arrays(group: h5py.Group, path: Path) -> Iterator[tuple[str, str]]:
    """Name and place of every array below the group of all layers."""
    for layer in _strings(group, "layer_names", path):
        inside = _child(group, layer, path)
        weights = _strings(inside, "weight_names", path)
        parents = {w.rpartition("/")[0] for w in weights}
        for weight in weights:
            parent, _, array = weight.rpartition("/")
            # A layer's variables may carry a counter (conv0_1/kernel) if the session built it
            # twice; those of a model used as a layer carry the names of its own layers.
            owner = layer if len(parents) == 1 else parent
            yield f"{owner}/{array.partition(':')[0]}", f"{inside.name}/{weight}"


def _strings(group: h5py.Group, attribute: str, path: Path) -> list[str]:
    """A list of names; Keras splits long ones into ``NAME0``, ``NAME1`` …, old ones are bytes."""
    found: list[Any] = []
    if attribute in group.attrs:
        found = _list(group, attribute)
    elif f"{attribute}0" in group.attrs:
        part = 0
        while f"{attribute}{part}" in group.attrs:
            found += _list(group, f"{attribute}{part}")
            part += 1
    else:
        raise WeightsError(
            f"{path}: group {group.name} has no attribute {attribute!r}, so Keras 2 did not write "
            "it; save the model with TensorFlow up to 2.15 as .h5"
        )
    return [_text(n) for n in found]


def _list(group: h5py.Group, attribute: str) -> list[Any]:
    found = group.attrs[attribute]
    # A layer without weights has an empty list, of any element type.
    return [] if isinstance(found, h5py.Empty) else np.atleast_1d(np.asarray(found)).tolist()


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _config(file: h5py.File, path: Path) -> dict[str, Any] | None:
    if "model_config" not in file.attrs:
        return None
    try:
        found = json.loads(_text(file.attrs["model_config"]))
    except ValueError as broken:
        raise WeightsError(f"{path}: its model_config is not JSON ({broken})") from broken
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: its model_config is a {type(found).__name__}, not an object")
    return found


def _child(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    found = _inside(group, name, path)
    if not isinstance(found, h5py.Group):
        raise WeightsError(f"{path}: {group.name}/{name} is not a group of arrays")
    return found


def _dataset(group: h5py.Group, place: str, path: Path) -> h5py.Dataset:
    found = _inside(group, place, path)
    if not isinstance(found, h5py.Dataset):
        raise WeightsError(f"{path}: {place} is not an array")
    return found


def _inside(group: h5py.Group, place: str, path: Path) -> Any:
    """What lies at `place` of this very file: links may name other files of the machine."""
    found: Any = group
    for part in place.strip("/").split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise WeightsError(f"{path} lacks {place}, which its own list of weights names")
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{path}: {place} is a link to elsewhere, which is not followed")
        found = found[part]
    return found


def _values(file: h5py.File, place: str, name: str, path: Path) -> np.ndarray[Any, Any]:
    dataset = _dataset(file, place, path)
    if dataset.dtype != np.float32 or dataset.external or dataset.is_virtual:
        raise WeightsError(f"{path}: {name} is {dataset.dtype}, but Keras weights are float32")
    try:
        array = np.asarray(dataset[()])
    except OSError as broken:
        raise WeightsError(f"{path}: {name} cannot be read; download the file again") from broken
    if not np.isfinite(array).all():
        raise WeightsError(f"{path}: {name} holds NaN or infinite values")
    return array


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
