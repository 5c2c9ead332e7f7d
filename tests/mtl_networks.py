"""What the tests of COVID-MTL's networks share: closed-form weights and inputs (spec §9.8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import covid_mtl as catalog


def closed_form(network: nn.Module) -> dict[str, Tensor]:
    """A state dict with the weights of the golden vectors."""
    norms = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm3d)}
    return {
        name: _tensor(name, tensor, norm=name.rpartition(".")[0] in norms)
        for name, tensor in network.state_dict().items()
    }


def _tensor(name: str, like: Tensor, *, norm: bool) -> Tensor:
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros_like(like)
    w = np.sin(0.7 * np.arange(like.numel()) + sum(name.encode()) % 97)
    values = {
        ("weight", True): 1 + 0.2 * w,
        ("bias", True): 0.1 * w,
        ("running_mean", True): 0.1 * w,
        ("running_var", True): 1 + 0.5 * w**2,
        ("weight", False): np.sqrt(2 * like.shape[0] / like.numel()) * w,
        ("bias", False): 0.05 * w,
    }[kind, norm]
    return torch.from_numpy(values.astype(np.float32)).reshape(like.shape)


def filled(network: nn.Module) -> Any:
    """The network in eval mode with these weights."""
    network.load_state_dict(closed_form(network))
    return network.eval()


def stored_volume() -> NDArray[np.float16]:
    """The golden volume as it is served: [200, 250, 250], whole numbers up to 2000."""
    d, h, w = np.ogrid[:200, :250, :250]
    inside = ((d - 100) / 90) ** 2 + ((h - 125) / 80) ** 2 + ((w - 125) / 110) ** 2 < 1
    values = np.where(inside, (7 * d + 13 * h + 29 * w) % 2300, 0)
    return np.minimum(values, catalog.CLIP).astype(np.float16)


def radiomics() -> NDArray[np.float32]:
    """The golden features: [375]."""
    return (((37 * np.arange(375)) % 101) / 100).astype(np.float32)
