"""Trained networks as files of the project: weights in FP16, their cards, and a page about each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from hilum.catalog import Network, System
from hilum.export.certificate import sha256_of
from hilum.export.reference import UNUSED
from hilum.export.store import Card

FIGURES = "## Figures\n\n"

LAYOUT = "reference weights of Hilum: matrices FP16, vectors FP32"


@dataclass(frozen=True, slots=True)
class About:
    """What a model card says beside the figures.

    Attributes
    ----------
    data, licence, limits
        Sentences.
    command
        That trains it again.
    """

    data: str
    licence: str
    limits: str
    command: str
    seed: int
    steps: int


def publish(
    system: System,
    network: Network,
    core: nn.Module,
    example: Tensor,
    about: About,
    folder: Path,
) -> Card:
    """Write weights and card of a network below `folder`, as `export.reference` reads them.

    Parameters
    ----------
    example
        An input of the core: what is not used on its way is left out.
    """
    from safetensors.torch import save_file

    idle = unused(core, example)
    tensors = {n: _stored(t) for n, t in core.state_dict().items() if n not in idle}
    shapes = {n: list(t.shape) for n, t in core.state_dict().items() if n in idle}
    path = folder / system.name / f"{network.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {UNUSED: json.dumps(shapes)})
    path.chmod(0o644)
    card = Card(
        system.name,
        network.name,
        f"reference weights (seed {about.seed})",
        sha256_of(path),
        LAYOUT,
        len(tensors),
        sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        datetime.now(UTC).isoformat(timespec="seconds"),
        version("hilum"),
    )
    path.with_suffix(".json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    return card


def unused(core: nn.Module, example: Tensor) -> set[str]:
    """Names of the tensors of layers that are not called for `example`."""
    called = set[str]()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, layer in core.named_modules()
    ]
    with torch.no_grad():
        core(example)
    for hook in hooks:
        hook.remove()
    return {n for n in core.state_dict() if n.rpartition(".")[0] not in called}


def write_page(system: System, network: Network, about: About, folder: Path) -> None:
    """Write the model card for readers, ``NETWORK.md`` beside the weights, without figures."""
    text = f"""# Reference weights: {system.name} {network.name}

{network.title}, in the published architecture. To try Hilum; **not the published network**, and
not a medical device.

| | |
|---|---|
| data | {about.data} |
| licence | {about.licence} |
| trained by | `{about.command}` |
| seed, steps | {about.seed}, {about.steps} |
| limits | {about.limits} |

{FIGURES}Not measured yet.
"""
    (folder / system.name / f"{network.name}.md").write_text(text)


def write_figures(system: System, command: str, figures: Mapping[str, str], folder: Path) -> None:
    """Put figures of a whole system into the pages of its networks."""
    rows = "".join(f"| {name} | {value} |\n" for name, value in figures.items())
    table = (
        f"`{command}`:\n\n| of the whole system, on images it was not trained on | |\n|---|---|\n"
    )
    for page in sorted((folder / system.name).glob("*.md")):
        head, mark, _ = page.read_text().partition(FIGURES)
        page.write_text(f"{head}{mark}{table}{rows}")


def _stored(tensor: Tensor) -> Tensor:
    """Matrices as FP16; vectors, BatchNorm's among them, need the range and hardly any space."""
    if tensor.is_floating_point() and tensor.ndim > 1:
        return tensor.half().contiguous()
    return tensor.clone().contiguous()
