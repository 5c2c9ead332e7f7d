"""Published checkpoints of CT-Angel (spec ct_angel §1, §5, §9): Keras files, known by their names.

``ct_angel_lesion_weights`` and ``ct_angel_lung_weights`` (the valid region), or
``ct-angel_weights.hdf5``, the lesions' under the name that the published notebook reads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hilum.catalog import ct_angel as catalog
from hilum.catalog.errors import WeightsError

from ...checkpoints import Checkpoint
from ...checkpoints.keras import read_keras, state_dict
from . import network as ct_angel

LAYOUT = "ct-angel: Keras HDF5"

SUFFIXES = {".h5", ".hdf5", ""}

NAMES = {
    "ct_angel_lesion_weights": catalog.LESION.name,
    "ct_angel_weights": catalog.LESION.name,
    "ct_angel_lung_weights": catalog.VALID.name,
}
"""File names without suffix, hyphens as underscores → networks."""


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints in or below `folder`, one for each network at most.

    Raises
    ------
    WeightsError
        When there is none, or two claim the same network.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found: dict[str, Checkpoint] = {}
    for path in sorted(folder.rglob("*")):
        network = NAMES.get(path.stem.replace("-", "_"))
        if network is None or path.suffix not in SUFFIXES or not path.is_file():
            continue
        if network in found:
            raise WeightsError(
                f"two checkpoints of {network}: {found[network].path} and {path}; import the "
                "folder of the one you want"
            )
        read = functools.partial(read_checkpoint, path)
        found[network] = Checkpoint(network, path.name, LAYOUT, path, read)
    if not found:
        expected = ", ".join(f"{name}.hdf5" for name in NAMES)
        raise WeightsError(f"{folder}: no checkpoint below it; expected {expected}")
    return list(found.values())


def read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Read and check one file: tensors by their names in ``networks.ct_angel.build``.

    Raises
    ------
    WeightsError
        Naming the file and the array that is missing, extra or misshapen.
    """
    with torch.device("meta"):
        skeleton = ct_angel.build()
    tensors = state_dict(read_keras(path), dict(skeleton.layers.items()))
    return {f"layers.{name}": tensor for name, tensor in tensors.items()}
