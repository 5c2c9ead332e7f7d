"""The reference weights that come with Hilum: small, trained by `hilum train`, to try it with.

One folder for each system, as in a store: ``NETWORK.safetensors`` (FP16), the card
``NETWORK.json``, and ``NETWORK.md`` with data, licence, command, figures and limits. Parameters
that no output depends on are left out of the files and are zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.catalog import System
from hilum.catalog.errors import WeightsError

from .certificate import sha256_of
from .store import Card, find_card, list_store

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).with_name("reference_weights")

UNUSED = "unused"
"""Key of the metadata of a file: names and shapes of the parameters that were left out, as JSON."""


def reference_networks(system: System) -> list[str]:
    """Names of a system's networks that there are reference weights of."""
    names = [n.name for n in system.networks]
    return [n for n in names if find_card(system.name, n, FOLDER) is not None]


def list_reference() -> list[Card]:
    """The cards of all reference weights."""
    return list_store(FOLDER)


def load_reference(system: str, network: str) -> tuple[dict[str, Tensor], Card]:
    """The tensors, FP32, and the card of a network's reference weights.

    Raises
    ------
    WeightsError
        When there are none of this network, or the file is not the one of its card.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    card = find_card(system, network, FOLDER)
    if card is None:
        raise WeightsError(
            f"there are no reference weights of {network}; `hilum weights list` names those that "
            "there are; otherwise import the authors' (`hilum fetch-weights` says where they are) "
            "or export with --weights random"
        )
    path = FOLDER / card.system / f"{network}.safetensors"
    try:
        if sha256_of(path) != card.sha256:
            raise WeightsError(f"{path} is not the file of its card (sha256 differs); get it again")
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            unused = json.loads((file.metadata() or {}).get(UNUSED, "{}"))
    except (SafetensorError, OSError) as broken:
        raise WeightsError(f"{path} cannot be read ({broken}); install Hilum again") from broken
    whole = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    return whole | {name: torch.zeros(shape) for name, shape in unused.items()}, card
