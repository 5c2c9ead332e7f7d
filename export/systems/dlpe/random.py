"""Random weights for DLPE's networks, fitted to slices of a synthetic chest CT.

Noise alone would bury what a slice shows under 23 layers. Here every convolution passes its input
on, a little blurred, with noise around it; the first one splits grey values at many levels, the
last block mixes them at random with what the coarser levels saw. Then the output layer is fitted.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import dlpe as catalog

from ...layers.random import FLOOR, calibrate, describe, fit_segmentation, seeded
from . import network as dlpe
from .phantom import Phantom, phantom

SLICES = 8
"""Slices of the synthetic volume that a network is fitted to."""

POSITIVE = catalog.POSITIVE / len(catalog.DIRECTIONS)
"""Probability at which a voxel is foreground when the three directions agree."""

BLUR = ((0.03, 0.07, 0.03), (0.07, 0.6, 0.07), (0.03, 0.07, 0.03))
"""Kernel that passes a channel on."""

NOISE = 0.3
"""Share of torch's own initial weights that stays around it."""

LIFT = 2.0
"""Offset of normalised activations: above zero for the most part, so that a ReLU keeps them."""

HU_LEVELS = (
    -975, -950, -920, -890, -860, -830, -780, -720, -640, -520, -380, -200, -60, 20, 80, 250,
)  # fmt: skip
"""Where the first layer splits a CT's values, closest in the lungs."""

MIXED, SOURCES = 8, 2
"""Channels of the last block that mix, and how many of both its inputs each mixes."""


def random_core(network: Network, seed: int) -> tuple[dlpe.UNet, str]:
    """The core of `network` with seeded weights, and what these are in words."""
    task, direction = dlpe.task_of(network), network.name[-1]
    chest = phantom(seed)
    chosen = slices(chest, direction)
    images = cut(chest, task, direction, chosen)
    # Tasks of one architecture and truth must not get the same network.
    names = [n.name for n in catalog.SYSTEM.networks]
    own = seed * len(names) + names.index(network.name)
    with seeded(own), torch.no_grad():
        core = dlpe.build(network)
        _pass_on(core)
        _split(core, task, images)
        _mix(core)
    calibrate(core, images)
    axis = catalog.DIRECTIONS.index(direction)
    with torch.no_grad():
        features = core.features(images)
        core.conv.weight[0] = 0
        _bias(core.conv)[0] = 0
        for k, name in enumerate(task.outputs, 1):
            truth = np.moveaxis(chest.truth[task.name][name], axis, 0)[chosen]
            _fit(core.conv, k, features, torch.from_numpy(truth.astype(np.float32))[:, None])
    return core, describe(seed, "a synthetic chest CT")


def slices(chest: Phantom, direction: str) -> NDArray[np.intp]:
    """Slices along a direction, from a little before the lungs to a little behind them."""
    axis = catalog.DIRECTIONS.index(direction)
    others = tuple(k for k in range(3) if k != axis)
    low, high = np.flatnonzero(chest.lung.any(axis=others))[[0, -1]]
    reach = (high - low) // 12
    ends = max(low - reach, 0), min(high + reach, chest.lung.shape[axis] - 1)
    return np.linspace(*ends, SLICES).astype(np.intp)


def cut(chest: Phantom, task: catalog.Task, direction: str, chosen: NDArray[np.intp]) -> Tensor:
    """What the task's network sees of the slices: float32 [N, C, H, W]."""
    axis = catalog.DIRECTIONS.index(direction)
    volume = np.moveaxis(chest.volumes[task.volume], axis, 0)
    reach = max(task.window)
    padded = np.pad(volume, ((reach, reach), (0, 0), (0, 0)))
    seen = [padded[chosen + reach + offset] for offset in task.window]
    masks = [np.moveaxis(chest.channels[task.name][n], axis, 0)[chosen] for n in task.enhance]
    return torch.from_numpy(np.stack([*seen, *masks], axis=1).astype(np.float32))


def _pass_on(core: dlpe.UNet) -> None:
    """Let every layer give its inputs on; blocks after the bottleneck take turns with both."""
    for name, layer in core.named_modules():
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight *= NOISE
            for k in range(layer.out_channels):
                layer.weight[k, k] += 1
            _bias(layer).zero_()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.bias.uniform_(LIFT - 0.5, LIFT + 0.5)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.weight *= NOISE
            if name == dlpe.FIRST.removesuffix(".weight"):
                continue
            joins = name.startswith("decoder") and layer.in_channels == 2 * layer.out_channels
            for k in range(layer.out_channels):
                skip = layer.out_channels if joins and k % 2 else 0
                layer.weight[k, (skip + k) % layer.in_channels] += torch.tensor(BLUR)


def _split(core: dlpe.UNet, task: catalog.Task, images: Tensor) -> None:
    """Let each first channel see the central slice above or below one level, or one mask."""
    first, norm = _layers(core, "encoder1")
    levels = (np.array(HU_LEVELS) - catalog.HU_OFFSET) / catalog.HU_SCALE
    if task.volume == "enhanced":
        levels = np.linspace(*catalog.ENHANCED_RANGE, len(HU_LEVELS) + 2)[1:-1]
    order = torch.randperm(len(levels)).tolist()
    masks = 2 * len(task.enhance)
    for k in range(first.out_channels):
        middle = task.window.index(0)
        source = len(task.window) + k // 2 if k < masks else middle
        sign = 1 if k < masks or k % 2 == 0 else -1
        first.weight[k, source] += sign * torch.tensor(BLUR)
    seen = first(images)
    mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3), correction=0)
    spread = (variance + FLOOR * variance.mean()).sqrt()  # as `calibrate` sets it
    norm.bias.fill_(0.5)
    for k in range(masks, first.out_channels):
        level = float(levels[order[k % len(levels)]]) * (1 if k % 2 == 0 else -1)
        norm.bias[k] = (mean[k] - level) / spread[k]


def _mix(core: dlpe.UNet) -> None:
    """Let some channels of the last block compare a place with its surroundings."""
    layer, norm = _layers(core, "decoder1")
    width = layer.out_channels
    for k in range(width - MIXED, width):
        layer.weight[k] = 0
        for start in (0, width):  # from the coarser levels, from the first block
            for source in start + torch.randperm(width)[:SOURCES]:
                layer.weight[k, source] += torch.randn(()) * torch.tensor(BLUR)
        norm.bias[k] = 2 * torch.rand(()) - 1


def _fit(conv: nn.Conv2d, k: int, features: Tensor, truth: Tensor) -> None:
    """Fit class `k` to the truth [N, 1, H, W]; as many voxels pass the threshold as it has."""
    head = nn.Conv2d(features.shape[1], 1, 1)
    fit_segmentation(head, list(features.split(1)), list(truth.split(1)))
    above = torch.quantile(head(features), 1 - float(truth.mean()))
    conv.weight[k] = head.weight[0]
    _bias(conv)[k] = _bias(head)[0] - above + float(np.log(POSITIVE / (1 - POSITIVE)))


def _layers(core: dlpe.UNet, block: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The first convolution of a block and its normalisation."""
    first, norm, *_ = core.get_submodule(block).children()
    return cast("nn.Conv2d", first), cast("nn.BatchNorm2d", norm)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return cast("Tensor", layer.bias)
