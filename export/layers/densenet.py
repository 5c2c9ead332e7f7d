"""The CT slice classifier in PyTorch: Keras' DenseNet121 with a one-unit head.

Spec ct_densenet §5. Layers carry their Keras names, so a published file maps onto the network by
name alone (export/checkpoints/keras.py).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1.001e-5
"""ε of every BatchNorm: Keras sets it so for DenseNet, unlike its own default."""

LAYERS = (6, 12, 24, 16)
"""Dense layers of the blocks conv2 … conv5."""

GROWTH, BOTTLENECK, STEM = 32, 128, 64
"""Channels that a dense layer adds, those inside it, and those of the stem."""

HEAD = "head"
"""Name here of the one-unit layer; each file has its own for it."""


class DenseNet(nn.Module):
    """Probability, logit and class activation map of a slice.

    Takes float32 [N, 1, S, S], S a multiple of 32; gives ``(prob, logit, cam_raw)``, float32
    [N, 1], [N, 1] and [N, 1, S/32, S/32]. Layers lie in `layers` under their Keras names. The
    published network has three input channels, which get the same grey slice.

    Notes
    -----
    ``cam_raw`` = Σ_k w_k A_k of the last ReLU's maps A and the head's weights w. Pooling is a mean
    and the head linear, so logit = mean(cam_raw) + b, and Grad-CAM on that ReLU is relu(cam_raw) up
    to a positive factor: no gradients are needed (spec ct_densenet §7; Zhou et al., CVPR 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        layers = self.layers = nn.ModuleDict()
        layers["conv1/conv"] = nn.Conv2d(3, STEM, 7, 2, 3, bias=False)
        layers["conv1/bn"] = nn.BatchNorm2d(STEM, EPS)
        channels = STEM
        for block, count in enumerate(LAYERS, 2):
            for k in range(1, count + 1):
                name = f"conv{block}_block{k}_"
                layers[name + "0_bn"] = nn.BatchNorm2d(channels, EPS)
                layers[name + "1_conv"] = nn.Conv2d(channels, BOTTLENECK, 1, bias=False)
                layers[name + "1_bn"] = nn.BatchNorm2d(BOTTLENECK, EPS)
                layers[name + "2_conv"] = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=1, bias=False)
                channels += GROWTH
            if block < 5:
                layers[f"pool{block}_bn"] = nn.BatchNorm2d(channels, EPS)
                layers[f"pool{block}_conv"] = nn.Conv2d(channels, channels // 2, 1, bias=False)
                channels //= 2
        layers["bn"] = nn.BatchNorm2d(channels, EPS)
        layers[HEAD] = nn.Linear(channels, 1)

    def features(self, image: Tensor) -> Tensor:
        """Give the maps of the last ReLU, float32 [N, 1024, S/32, S/32], for [N, 3, S, S]."""
        x = self._act("conv1/bn", self.layers["conv1/conv"](image))
        x = functional.max_pool2d(x, 3, 2, 1)
        for block, count in enumerate(LAYERS, 2):
            for k in range(1, count + 1):
                name = f"conv{block}_block{k}_"
                y = self.layers[name + "1_conv"](self._act(name + "0_bn", x))
                y = self.layers[name + "2_conv"](self._act(name + "1_bn", y))
                x = torch.cat([x, y], 1)
            if block < 5:
                x = self.layers[f"pool{block}_conv"](self._act(f"pool{block}_bn", x))
                x = functional.avg_pool2d(x, 2)
        return self._act("bn", x)

    def _act(self, norm: str, x: Tensor) -> Tensor:
        return functional.relu(self.layers[norm](x))

    def forward(self, grey: Tensor) -> tuple[Tensor, ...]:
        """Probabilities, logits and maps of one batch."""
        head = cast("nn.Linear", self.layers[HEAD])
        maps = self.features(torch.cat([grey, grey, grey], 1))
        logit, cam = activation_map(maps, head.weight, head.bias)
        return torch.sigmoid(logit), logit, cam


def activation_map(maps: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Logit [N, 1] and class activation map [N, 1, H, W] of feature maps [N, K, H, W].

    `weight` [1, K] and `bias` [1] are those of a linear head on the mean of the maps.
    """
    cam = functional.conv2d(maps, weight[:, :, None, None])
    return cam.mean((2, 3)) + bias, cam


def build() -> DenseNet:
    """The network in eval mode, with torch's own initial weights."""
    return DenseNet().eval()
