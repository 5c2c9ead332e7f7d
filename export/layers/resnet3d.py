"""The comparator ResNet3D-34 in PyTorch (spec covid_mtl §13.2).

Modules carry the names of the published state dict.
"""

from __future__ import annotations

from torch import Tensor, nn

STEM, WIDTHS, BLOCKS = 64, (64, 128, 256, 512), (3, 4, 6, 3)
"""Channels of the stem and of the stages, and blocks of the stages."""

STRIDE = 2
"""Of every stage's first block, also of the first stage."""


class Block(nn.Module):
    """Two convolutions and a shortcut; float32 [N, C, d, h, w] → [N, width, …]."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv3d(channels, width, 1, stride, bias=False), nn.BatchNorm3d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        y += x if self.downsample is None else self.downsample(x)
        return y.relu_()


class ResNet3D(nn.Module):
    """Class scores of a volume: float32 [N, 1, D, H, W], normalised → ([N, n],).

    The published mean over 4 × 4 × 4 positions is one over the whole of the last map.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, STEM, 5, 2, 2, bias=False)
        self.bn1 = nn.BatchNorm3d(STEM)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        channels = STEM
        for number, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 1):
            blocks = [Block(channels, width, STRIDE)]
            blocks += [Block(width, width, 1) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = width
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu_())
        for number in range(1, 1 + len(WIDTHS)):
            x = self.get_submodule(f"layer{number}")(x)
        return (self.fc(x.mean((2, 3, 4))),)
