"""CT-Angel's network in PyTorch: a nested U-Net on a pre-activation ResNet-50 (spec ct_angel §4).

Layers carry their Keras names, so a published file maps onto the network by name alone
(export/checkpoints/keras.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ENCODER_EPS, DECODER_EPS = 2e-5, 1e-3
"""ε of the BatchNorms, encoder and decoder."""

UNITS, STRIDES = (3, 4, 6, 3), (1, 2, 2, 2)
"""Residual units of each stage, and the stride of its first one."""

WIDTHS = (64, 128, 256, 512)
"""Width of each stage's bottleneck; its output is four times as wide."""

ROWS = {0: 32, 1: 64, 2: 128, 3: 256, 4: 16}
"""Filters of the decoder's rows. The deepest has 16: the published builder reads its list of
widths at index −1 there, and the published weights follow it."""

SKIPS = {1: 64, 2: 256, 3: 512, 4: 1024}
"""Channels of the encoder features X(i, 0) that row i concatenates."""

SOURCES = {2: 256, 3: 512, 4: 1024, 5: 2048}
"""Channels of the encoder features D(i) that the first column's row i − 1 upsamples."""


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm without a scale: the published ``bn_data``."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        del self.weight
        # Not in the state dict, for the published file has no such array.
        self.register_buffer("weight", torch.ones(channels), persistent=False)

    def reset_parameters(self) -> None:
        """Leave the constant scale alone."""
        self.reset_running_stats()
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class NestedUNet(nn.Module):
    """Probability of foreground: float32 [N, 3, S, S] on a scale of 0…1 → ([N, 1, S, S],).

    S is a multiple of 32. Layers lie in `layers` under their Keras names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self._encoder()
        for column in range(1, 5):
            for row in range(1, 6 - column):
                source = SOURCES[row + 1] if column == 1 else ROWS[row + 1]
                self._node(row, column, source, SKIPS[row] + (column - 1) * ROWS[row])
        self._node(0, 5, ROWS[1], 0)
        self.layers["final_conv"] = nn.Conv2d(ROWS[0], 1, 3, padding=1)

    def _encoder(self) -> None:
        layers = self.layers
        layers["bn_data"] = ShiftNorm(3, ENCODER_EPS)
        layers["conv0"] = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        layers["bn0"] = nn.BatchNorm2d(64, ENCODER_EPS)
        channels = 64
        for stage, (units, stride, width) in enumerate(zip(UNITS, STRIDES, WIDTHS, strict=True), 1):
            for unit in range(1, units + 1):
                name, step = f"stage{stage}_unit{unit}_", stride if unit == 1 else 1
                layers[name + "bn1"] = nn.BatchNorm2d(channels, ENCODER_EPS)
                layers[name + "conv1"] = nn.Conv2d(channels, width, 1, bias=False)
                layers[name + "bn2"] = nn.BatchNorm2d(width, ENCODER_EPS)
                layers[name + "conv2"] = nn.Conv2d(width, width, 3, step, 1, bias=False)
                layers[name + "bn3"] = nn.BatchNorm2d(width, ENCODER_EPS)
                layers[name + "conv3"] = nn.Conv2d(width, 4 * width, 1, bias=False)
                if unit == 1:
                    layers[name + "sc"] = nn.Conv2d(channels, 4 * width, 1, step, bias=False)
                channels = 4 * width
        layers["bn1"] = nn.BatchNorm2d(channels, ENCODER_EPS)

    def _node(self, row: int, column: int, source: int, skips: int) -> None:
        layers, name, filters = self.layers, _prefix(row, column), ROWS[row]
        layers[name + "upsample"] = nn.ConvTranspose2d(source, filters, 4, 2, 1, bias=False)
        layers[name + "bn1"] = nn.BatchNorm2d(filters, DECODER_EPS)
        layers[name + "conv2"] = nn.Conv2d(filters + skips, filters, 3, padding=1, bias=False)
        layers[name + "bn2"] = nn.BatchNorm2d(filters, DECODER_EPS)

    def encode(self, image: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Features X(i, 0), i = 1…4, and D(i), i = 2…5, of an image (spec ct_angel §4.2)."""
        layers = self.layers
        skips: dict[int, Tensor] = {}
        sources: dict[int, Tensor] = {}
        x = layers["conv0"](layers["bn_data"](image))
        skips[1] = functional.relu(layers["bn0"](x))
        x = functional.max_pool2d(skips[1], 3, 2, 1)
        for stage, units in enumerate(UNITS, 1):
            for unit in range(1, units + 1):
                name = f"stage{stage}_unit{unit}_"
                a = functional.relu(layers[name + "bn1"](x))
                if unit == 1 and stage > 1:
                    skips[stage] = a
                if unit == 2 and stage < 4:
                    sources[stage + 1] = a
                y = functional.relu(layers[name + "bn2"](layers[name + "conv1"](a)))
                y = functional.relu(layers[name + "bn3"](layers[name + "conv2"](y)))
                shortcut = layers[name + "sc"](a) if unit == 1 else x
                x = layers[name + "conv3"](y) + shortcut
        sources[5] = functional.relu(layers["bn1"](x))
        return skips, sources

    def features(self, image: Tensor) -> Tensor:
        """Give the last features X(0, 5), float32 [N, 32, S, S], which `final_conv` reads."""
        skips, sources = self.encode(image)
        rows: dict[int, list[Tensor]] = {row: [skips[row]] for row in skips}
        for column in range(1, 5):
            for row in range(1, 6 - column):
                source = sources[row + 1] if column == 1 else rows[row + 1][column - 1]
                rows[row].append(self._compute(row, column, source, rows[row]))
        return self._compute(0, 5, rows[1][4], [])

    def _compute(self, row: int, column: int, source: Tensor, skips: list[Tensor]) -> Tensor:
        layers, name = self.layers, _prefix(row, column)
        up = functional.relu(layers[name + "bn1"](layers[name + "upsample"](source)))
        joined = torch.cat([up, *skips], 1) if skips else up
        return functional.relu(layers[name + "bn2"](layers[name + "conv2"](joined)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of one batch."""
        return (torch.sigmoid(self.layers["final_conv"](self.features(image))),)


def _prefix(row: int, column: int) -> str:
    return f"decoder_stage{row + 1}-{column}_"


def build() -> NestedUNet:
    """The network in eval mode, with torch's own initial weights."""
    return NestedUNet().eval()
