"""The weights store: published checkpoints as safetensors, each with a card.

One folder for each system; ``NETWORK.safetensors`` holds the tensors under the names of the network
that `export.networks` builds, ``NETWORK.json`` the card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.catalog import SYSTEMS, System
from hilum.catalog.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from .checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Card:
    """Where stored weights come from.

    Attributes
    ----------
    source
        Name of the folder that the checkpoint came in.
    sha256
        Of the checkpoint file.
    layout
        In which published layout it was.
    date
        Of the import, ISO 8601, UTC.
    """

    system: str
    network: str
    source: str
    sha256: str
    layout: str
    tensors: int
    parameters: int
    date: str
    hilum_version: str


def store_folder(given: Path | None = None) -> Path:
    """Where weights are kept: `given`, else ``HILUM_STORE``, else the user's data folder."""
    if given is not None:
        return given
    if from_environment := os.environ.get("HILUM_STORE"):
        return Path(from_environment)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "hilum" / "weights"


def list_store(store: Path | None = None) -> list[Card]:
    """The cards of all stored weights, by system and network.

    Raises
    ------
    WeightsError
        Naming a card that cannot be read.
    """
    folder = store_folder(store)
    cards = (
        find_card(system.name, network.name, folder)
        for system in SYSTEMS.values()
        for network in system.networks
    )
    return [card for card in cards if card is not None]


def import_weights(
    system: System,
    folder: Path,
    store: Path | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    allow_unknown: bool = False,
) -> list[Card]:
    """Check the published checkpoints below `folder` and put them into the store.

    A bad checkpoint does not keep the others out; the error that ends the import names all bad
    ones.

    Parameters
    ----------
    progress
        Called with the name of each network before its checkpoint is read.
    allow_unknown
        Take files whose sha256 is not that of a published one, where these are known.

    Raises
    ------
    WeightsError
        When a checkpoint is not what its network needs, or there is none.
    """
    from .recipes import recipe

    target = store_folder(store)
    cards: list[Card] = []
    problems: list[str] = []
    for checkpoint in recipe(system).checkpoints(folder, allow_unknown):
        if progress is not None:
            progress(checkpoint.network)
        try:
            cards.append(_import_one(system, checkpoint, target))
        except WeightsError as bad:
            problems.append(f"{checkpoint.network}: {bad}")
    if problems:
        stored = ", ".join(c.network for c in cards) or "nothing"
        raise WeightsError("\n".join([*problems, f"imported: {stored}"]))
    return cards


def _import_one(system: System, checkpoint: Checkpoint, store: Path) -> Card:
    from safetensors.torch import save_file

    from .certificate import sha256_of

    tensors = {name: t.contiguous().clone() for name, t in checkpoint.read().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{checkpoint.path}: {name} holds NaN or infinite values; download the file again"
            )
    card = Card(
        system.name,
        checkpoint.network,
        checkpoint.source,
        sha256_of(checkpoint.path),
        checkpoint.layout,
        len(tensors),
        sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        datetime.now(UTC).isoformat(timespec="seconds"),
        version("hilum"),
    )
    path = _path(store, system.name, checkpoint.network, "safetensors")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.part")
        save_file(tensors, staged)
        staged.replace(path)
        _path(store, system.name, checkpoint.network, "json").write_text(
            json.dumps(asdict(card), indent=2) + "\n"
        )
    except OSError as failed:
        raise WeightsError(f"the weights store cannot be written: {failed}") from failed
    return card


def find_card(system: str, network: str, store: Path | None = None) -> Card | None:
    """The card of a network's weights, None when the store has none."""
    path = _path(store_folder(store), system, network, "json")
    return _read_card(path) if path.is_file() else None


def load_weights(
    system: str, network: str, store: Path | None = None
) -> tuple[dict[str, Tensor], Card]:
    """The tensors and the card of a network's weights.

    Raises
    ------
    WeightsError
        When the store does not have them or they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = store_folder(store)
    path = _path(folder, system, network, "safetensors")
    card = _path(folder, system, network, "json")
    if not path.is_file() or not card.is_file():
        raise WeightsError(
            f"no weights of {network} in {folder}; import them with "
            f"`hilum weights import {system} DIR`, or export with --weights random"
        )
    try:
        return load_file(path), _read_card(card)
    except (SafetensorError, OSError) as broken:
        raise WeightsError(f"{path} cannot be read ({broken}); import it again") from broken


def _path(store: Path, system: str, network: str, suffix: str) -> Path:
    return store / _owner(system, network) / f"{network}.{suffix}"


def _owner(system: str, network: str) -> str:
    """The first system of the catalog that serves the network's model: systems may share one."""
    if system not in SYSTEMS:
        return system
    model = SYSTEMS[system].network(network).model
    return next(s.name for s in SYSTEMS.values() if model in {n.model for n in s.networks})


def _read_card(path: Path) -> Card:
    try:
        return Card(**json.loads(path.read_text()))
    except (ValueError, TypeError) as broken:
        raise WeightsError(f"{path} is not a card of weights ({broken})") from broken
