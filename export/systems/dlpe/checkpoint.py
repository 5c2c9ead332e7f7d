"""Published checkpoints of DLPE (spec dlpe §4.3): ``trained_models/<model>/<X|Y|Z>/<file>.pth``.

Each file is what the training saved: the network's state dict among counters, the optimiser's state
and a history. Only the state dict is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import WeightsError

from ...checkpoints import Checkpoint
from ...checkpoints.keras import check_not_pointer
from ...checkpoints.pickles import check, check_tensors, load_restricted
from . import network as dlpe

LAYOUT = "dlpe: training checkpoint with the state dict of a 2-D U-Net"

STATE = "state_dict"

WIDEST = 256
"""More channels than these after the first block are a damaged file."""


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints in or below `folder`: of every model that is there, three.

    Models that are not there are left out; of one that is, a direction that is missing is found
    when it is read.

    Raises
    ------
    WeightsError
        When there is none, or two folders claim the same model.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    folders = _model_folders(folder)
    if not folders:
        expected = ", ".join(task.folder for task in catalog.TASKS.values())
        raise WeightsError(
            f"{folder}: no published model below it; expected folders {expected}, each with X, Y "
            "and Z"
        )
    return [
        _checkpoint(task, direction, folders[task.folder])
        for task in catalog.TASKS.values()
        if task.folder in folders
        for direction in catalog.DIRECTIONS
    ]


def _model_folders(folder: Path) -> dict[str, Path]:
    names = {task.folder for task in catalog.TASKS.values()}
    directions = {d.upper() for d in catalog.DIRECTIONS}
    found: dict[str, Path] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        name = path.resolve().name
        if name not in names or not any((path / d).is_dir() for d in directions):
            continue
        if name in found:
            raise WeightsError(
                f"two folders of {name}: {found[name]} and {path}; import the folder that holds "
                "the one you want"
            )
        found[name] = path
    return found


def _checkpoint(task: catalog.Task, direction: str, folder: Path) -> Checkpoint:
    where = folder / direction.upper()
    files = [f for f in sorted(where.glob("*")) if f.is_file() and not f.name.startswith(".")]
    path = files[0] if len(files) == 1 else where
    read: Callable[[], Mapping[str, Tensor]] = functools.partial(read_checkpoint, path, task)
    if len(files) != 1:
        read = functools.partial(_refuse, where, [f.name for f in files])
    source = f"{task.folder}/{direction.upper()}/{path.name}"
    return Checkpoint(task.network(direction).name, source, LAYOUT, path, read)


def _refuse(folder: Path, names: list[str]) -> Mapping[str, Tensor]:
    found = f"{len(names)} files ({', '.join(names[:3])})" if names else "no file"
    raise WeightsError(f"{folder}: {found}; exactly one checkpoint is expected")


def read_checkpoint(path: Path, task: catalog.Task) -> Mapping[str, Tensor]:
    """Read and check one file: tensors by their names in ``networks.dlpe.UNet``.

    A plain state dict is taken, too.

    Raises
    ------
    WeightsError
        Naming the file and what in it does not fit the task: input channels, classes, or a tensor
        that is missing, extra or misshapen.
    """
    check_not_pointer(path)
    found = load_restricted(path, _allowed())
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a training checkpoint")
    tensors = check_tensors(found.get(STATE, found), path)
    width = _width(tensors, path, task)
    with torch.device("meta"):
        expected = dlpe.UNet(task.channels, dlpe.classes(task), width).state_dict()
    check(tensors, expected, str(path))
    return tensors


def _width(tensors: Mapping[str, Tensor], path: Path, task: catalog.Task) -> int:
    """Channels of the first block; the channels and classes are checked on the way."""
    first, last = tensors.get(dlpe.FIRST), tensors.get(dlpe.LAST)
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        name = dlpe.FIRST if first is None or first.ndim != 4 else dlpe.LAST
        raise WeightsError(f"{path} has no {name} of a convolution: not the published layout")
    width, channels = first.shape[:2]
    if channels != task.channels:
        kinds = f"{len(task.window)} slices"
        if task.enhance:
            kinds += f" and {len(task.enhance)} masks"
        raise WeightsError(
            f"{path} takes {channels} channels, but {task.folder} takes {task.channels} "
            f"({kinds}): it belongs to another model"
        )
    if len(last) != dlpe.classes(task):
        raise WeightsError(
            f"{path} has {len(last)} classes, but {task.folder} has {dlpe.classes(task)} "
            f"(background, {', '.join(task.outputs)}): it belongs to another model"
        )
    if not 1 <= width <= WIDEST:
        raise WeightsError(f"{path}: {width} channels after the first block; damaged?")
    return width


def _allowed() -> list[Any]:
    """What the training's counters and history consist of besides tensors; none of it is used."""
    scalars: Any = np.float64(0).__reduce__()[0]
    numbers = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    return [
        list,
        (_plain, "collections.defaultdict"),
        (scalars, "numpy.core.multiarray.scalar"),
        (scalars, "numpy._core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(number)) for number in numbers),
    ]


def _plain(*_factory: object) -> dict[Any, Any]:
    """Stands for a ``defaultdict``, whose factory could be any function."""
    return {}
