"""Published checkpoints of X-ray severity scoring (spec cxr §7, §12.1).

The layout: ``<architecture>_<encoder>_imagenet_<date>/weights.pth``, those of stage I below a
folder ``models_lungs``, those of stage II below ``models_covid``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from hilum.catalog import cxr_severity as catalog
from hilum.catalog.errors import WeightsError

from ...checkpoints import Checkpoint
from ...checkpoints.pickles import check, read_state_dict
from . import network as cxr

LAYOUT = "cxr-severity: state dict of segmentation-models-pytorch 0.1.3"

FOLDER = re.compile(r"(?P<architecture>[^_]+)_(?P<encoder>.+)_imagenet_\d{6}_\d{4}")

FILE = "weights.pth"

STAGE_ONE = "models_lungs"


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints in or below `folder`, one for each network at most.

    Stage I checkpoints of other architectures than the one that is served are passed over.

    Raises
    ------
    WeightsError
        When there is none, a folder names no network, or two claim the same one.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found: dict[str, Checkpoint] = {}
    for path in sorted({*folder.glob(f"**/{FILE}")}):
        path = path.absolute()
        network = _network(path)
        if network is None:
            continue
        if network in found:
            raise WeightsError(
                f"two checkpoints of {network}: {found[network].path.parent} and {path.parent}; "
                "import the folder of the one you want"
            )
        read = functools.partial(read_checkpoint, network, path)
        found[network] = Checkpoint(network, path.parent.name, LAYOUT, path, read)
    if not found:
        raise WeightsError(
            f"{folder}: no checkpoint below it; expected "
            f"<architecture>_<encoder>_imagenet_<date>/{FILE}"
        )
    return list(found.values())


def _network(path: Path) -> str | None:
    """Network whose weights the file holds, from the folder's name; None: none that is served."""
    match = FOLDER.fullmatch(path.parent.name)
    known = {cxr.parts(n.name): n.name for n in catalog.SYSTEM.networks}
    name = known.get((match["architecture"], match["encoder"])) if match else None
    stage_one = STAGE_ONE in path.parts
    if stage_one and name != catalog.LUNG.name:
        return None
    if name is None:
        raise WeightsError(
            f"{path.parent}: the folder's name is not that of a published checkpoint "
            "(<architecture>_<encoder>_imagenet_<ddmmyy>_<hhmm>)"
        )
    return name


def read_checkpoint(network: str, path: Path) -> Mapping[str, torch.Tensor]:
    """Read and check one ``weights.pth``: tensors by their names in ``networks.cxr.build``.

    Raises
    ------
    WeightsError
        Naming the file and the tensor that is missing, extra, misshapen or of another type.
    """
    tensors = read_state_dict(path)
    names = {cxr.published_name(network, n): n for n in expected(network)}
    check(tensors, {p: expected(network)[n] for p, n in names.items()}, f"{path.parent.name}")
    return {names[published]: tensor for published, tensor in tensors.items()}


@functools.cache
def expected(network: str) -> dict[str, torch.Tensor]:
    """Every tensor of the network, without memory, by its name in ``networks.cxr.build``."""
    return dict(cxr.skeleton(network).state_dict())
