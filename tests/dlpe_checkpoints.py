"""The networks of the golden files as published checkpoints of DLPE (spec dlpe §4.2, §4.3)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

THREE_WAY_MODEL = "lung_seg"
"""File 09 holds one network for each direction and no name: window, C and K are those of the lungs'
and of the visible lesions' networks."""

DIRECTIONS = ("X", "Y", "Z")


def write_published(
    folder: Path,
    golden_file: Path,
    models: Iterable[str] | None = None,
    *,
    legacy: bool = False,
    cuda: bool = False,
) -> Path:
    """Write ``<folder>/<model>/<X|Y|Z>/best_model-<X|Y|Z>.pth`` for networks of a golden file.

    Parameters
    ----------
    folder
        Stands for the published ``trained_models``; made if it is not there.
    golden_file
        ``09_three_way.npz`` (one model, written as each of `models`, default ``lung_seg``) or
        ``10_pipeline.npz`` (eight).
    models
        Names of the published model folders to write; default: all that the file has.
    legacy, cuda
        Write the format before zip files; tag the storages as of the first GPU.

    Returns
    -------
    pathlib.Path
        `folder`.
    """
    published = golden_states(golden_file)
    if set(published) == {THREE_WAY_MODEL}:
        published = dict.fromkeys(models or published, published[THREE_WAY_MODEL])
    for model in models or published:
        for direction, state in published[model].items():
            path = folder / model / direction / f"best_model-{direction}.pth"
            write_checkpoint(path, state, legacy=legacy, cuda=cuda)
    return folder


def golden_states(golden_file: Path) -> dict[str, dict[str, dict[str, Tensor]]]:
    """State dicts of a golden file's networks by published model and direction X, Y, Z."""
    stored = np.load(golden_file)
    states: dict[str, dict[str, dict[str, Tensor]]] = {}
    if "weights_X" in stored:
        layout = stored["weight_layout"]
        states[THREE_WAY_MODEL] = {d: state(stored[f"weights_{d}"], layout) for d in DIRECTIONS}
        return states
    layouts = [stored["weight_layout_in3"], stored["weight_layout_in5"]]
    sizes = {_numbers(layout): layout for layout in layouts}
    for name in stored["model_names"].tolist():
        model, direction = name.split("__")
        flat = stored[f"w__{name}"]
        states.setdefault(model, {})[direction] = state(flat, sizes[flat.size])
    return states


def state(flat: NDArray[Any], layout: NDArray[np.str_]) -> dict[str, Tensor]:
    """The state dict of flattened weights, with the batch counters that they leave out."""
    found: dict[str, Tensor] = {}
    position = 0
    for line in layout.tolist():
        key, shape = line.split(" ")
        dims = [int(d) for d in shape.split("x")]
        values = flat[position : position + int(np.prod(dims))].astype(np.float32)
        found[key] = torch.from_numpy(values.reshape(dims))
        position += values.size
        if key.endswith("running_var"):
            counter = key.replace("running_var", "num_batches_tracked")
            found[counter] = torch.tensor(1000, dtype=torch.int64)
    assert position == flat.size
    return found


def write_checkpoint(
    path: Path, tensors: dict[str, Tensor], *, legacy: bool = False, cuda: bool = False
) -> Path:
    """Write what the published training wrote: the state dict among what training needs besides."""
    history: defaultdict[str, list[float]] = defaultdict(list)
    history["loss_train"] += [0.7, 0.6]
    history["f1_test"] += [0.1, 0.2]
    moments = {0: {"step": 2, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.ones(3)}}
    training = {
        "epoch": 2,
        "state_dict": OrderedDict(tensors),
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "history": history,
        "best_f1": np.float64(0.2),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = {"side_effect": lambda _storage: "cuda:0"} if cuda else {"wraps": _location_tag}
    with mock.patch("torch.serialization.location_tag", **tag):
        torch.save(training, path, _use_new_zipfile_serialization=not legacy)
    return path


_location_tag = torch.serialization.location_tag


def _numbers(layout: NDArray[np.str_]) -> int:
    shapes = (line.split(" ")[1] for line in layout.tolist())
    return sum(int(np.prod([int(d) for d in shape.split("x")])) for shape in shapes)
