"""lungmask's R231 in PyTorch: a U-Net of depth 5 (spec lungmask §2).

Modules carry the names of the published state dict.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from hilum.catalog import lungmask as catalog

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the five levels."""

CLASSES = len(catalog.LABELS)


class Block(nn.Module):
    """Twice: 3 × 3 convolution, ReLU, BatchNorm, in this order."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of one level."""
        return self.block(x)


class UpBlock(nn.Module):
    """Upsample twofold, halve the channels, join the skip, convolve.

    Attributes
    ----------
    narrow_first
        Halve the channels before upsampling. Bilinear weights sum to 1, so the result is that of
        the published order but for rounding, for a quarter of the work (spec lungmask §2).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.narrow_first = True
        # Index 0 is the upsampling in the published network.
        self.up = nn.Sequential(nn.Identity(), nn.Conv2d(channels, width, 1))
        self.conv_block = Block(channels, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features of the level of `skip`."""
        up = _upsample(self.up(x), skip) if self.narrow_first else self.up(_upsample(x, skip))
        return self.conv_block(torch.cat([up, skip], 1))


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    """Twice as large, which is the size of `like`."""
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Class scores: float32 [N, 1, S, S] on a scale of 0…1 → ([N, 3, S, S],); S a multiple of 16.

    The published network ends in a log-softmax, which changes no argmax and is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down_path = nn.ModuleList(
            Block(before, width) for before, width in zip((1, *WIDTHS), WIDTHS, strict=False)
        )
        deep = WIDTHS[::-1]
        self.up_path = nn.ModuleList(
            UpBlock(before, width) for before, width in itertools.pairwise(deep)
        )
        self.last = nn.Conv2d(WIDTHS[0], CLASSES, 1)

    def features(self, x: Tensor) -> Tensor:
        """Give the last features, float32 [N, 64, S, S], which `last` reads."""
        skips: list[Tensor] = []
        for level in self.down_path:
            x = level(functional.avg_pool2d(x, 2) if skips else x)
            skips.append(x)
        for level, skip in zip(self.up_path, skips[-2::-1], strict=True):
            x = level(x, skip)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        return (self.last(self.features(x)),)


def build() -> UNet:
    """The network in eval mode, with torch's own initial weights."""
    return UNet().eval()
