"""DLPE's network in PyTorch: a 2-D U-Net of depth 4 (spec dlpe §4.1, §4.2).

Modules carry the names of the published state dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hilum.catalog import Network
from hilum.catalog import dlpe as catalog

WIDTH = 16
"""Channels after the first block of the published networks; each level doubles them."""

LEVELS = (1, 2, 3, 4)
"""Blocks before and after the bottleneck."""

FIRST, LAST = "encoder1.enc1conv1.weight", "conv.weight"
"""The tensors that show the width and the input channels [f, C, 3, 3], and the classes [K, …]."""


class UNet(nn.Module):
    """Class scores: float32 [N, C, H, W] → ([N, K, H, W],); H and W multiples of 16.

    Parameters
    ----------
    channels, classes, width
        C, K and f: channels of the first block.
    """

    def __init__(self, channels: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        widths = [channels, *(width << level for level in range(len(LEVELS) + 1))]
        for level in LEVELS:
            self.add_module(
                f"encoder{level}", block(f"enc{level}", widths[level - 1], widths[level])
            )
        self.bottleneck = block("bottleneck", widths[-2], widths[-1])
        for level in reversed(LEVELS):
            wide, narrow = widths[level + 1], widths[level]
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(wide, narrow, 2, 2))
            self.add_module(f"decoder{level}", block(f"dec{level}", 2 * narrow, narrow))
        self.conv = nn.Conv2d(width, classes, 1)

    def features(self, x: Tensor) -> Tensor:
        """Give the last features, float32 [N, f, H, W], which `conv` reads."""
        skips: list[Tensor] = []
        for level in LEVELS:
            skips.append(self.get_submodule(f"encoder{level}")(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for level in reversed(LEVELS):
            up = self.get_submodule(f"upconv{level}")(x)
            x = self.get_submodule(f"decoder{level}")(torch.cat([up, skips.pop()], 1))
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        return (self.conv(self.features(x)),)


def block(prefix: str, channels: int, width: int) -> nn.Sequential:
    """Twice: 3 × 3 convolution without bias, BatchNorm, ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, before in ((1, channels), (2, width)):
        layers[f"{prefix}conv{number}"] = nn.Conv2d(before, width, 3, padding=1, bias=False)
        layers[f"{prefix}norm{number}"] = nn.BatchNorm2d(width)
        layers[f"{prefix}relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def task_of(network: Network) -> catalog.Task:
    """The published model that a network is one direction of."""
    return catalog.TASKS[network.name.rpartition("_")[0]]


def classes(task: catalog.Task) -> int:
    """Classes of a task's networks, the background among them."""
    return 1 + len(task.outputs)


def build(network: Network, tensors: Mapping[str, Tensor] | None = None) -> UNet:
    """The network in eval mode, with torch's own initial weights.

    Parameters
    ----------
    tensors
        Weights that it is to take: they show its width.
    """
    task = task_of(network)
    width = WIDTH if tensors is None else len(tensors[FIRST])
    return UNet(task.channels, classes(task), width).eval()
