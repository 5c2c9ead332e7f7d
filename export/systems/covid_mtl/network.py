"""COVID-MTL's networks in PyTorch: ShiftNet3D and what is built on it (spec covid_mtl §9, §13.1).

ShiftNet3D is SqueezeNet3D with a layer that rolls channels while it is trained and is the identity
in use, so it is left out here. Modules carry the names of the published state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES

from ...layers.decovnet import DeCoVNet
from ...layers.resnet3d import ResNet3D

EPS = 1e-3
"""ε of every BatchNorm."""

STEM = 64
"""Channels of the stem."""

FIRES: Mapping[int, tuple[int, int, int]] = {
    1: (64, 32, 64),
    2: (128, 32, 64),
    4: (128, 64, 128),
    5: (256, 64, 128),
    7: (256, 96, 192),
    8: (384, 96, 192),
    10: (384, 128, 256),
    11: (512, 128, 256),
}
"""Fire blocks by their place: channels that come in, of the squeeze, and of either expansion."""

POOLS = (0, 3, 6, 9)
"""Places of the pools between them."""

CHANNELS = 512
"""Channels of the last map."""

BRANCH = 32
"""Length of the vectors that the branches end in."""

DENSE = (256, 128, 64)
"""Widths of the feed-forward branch before its last layer."""

BRANCHES = tuple(f"classifier{k}_" for k in range(1, 1 + len(catalog.HEADS)))
"""The convolutions of the heads, in the order of `catalog.HEADS`."""

HEADS = tuple(f"classifier{k}" for k in range(1, 1 + len(catalog.HEADS)))
"""Their last layers."""

RADIOMICS, BACKBONE = "radioFNN", "features"


class Fire(nn.Module):
    """Squeeze, then two parallel expansions; float32 [N, C, d, h, w] → [N, 2·e, d, h, w].

    The second block of a pair adds its input.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv3d(channels, squeeze, 1)
        self.squeeze_bn = nn.BatchNorm3d(squeeze, EPS)
        self.expand1x1 = nn.Conv3d(squeeze, expand, 1)
        self.expand1x1_bn = nn.BatchNorm3d(expand, EPS)
        self.expand3x3 = nn.Conv3d(squeeze, expand, 3, padding=1)
        self.expand3x3_bn = nn.BatchNorm3d(expand, EPS)
        self.bypass = channels == 2 * expand

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        y = self.squeeze_bn(self.squeeze(x)).relu_()
        joined = torch.cat(
            [self.expand1x1_bn(self.expand1x1(y)), self.expand3x3_bn(self.expand3x3(y))], 1
        )
        if self.bypass:
            joined += x
        return joined.relu_()


class Backbone(nn.Module):
    """The layers of ShiftNet3D."""

    def __init__(self) -> None:
        super().__init__()
        self.convbn = nn.Sequential(
            nn.Conv3d(1, STEM, 3, 2, 1), nn.BatchNorm3d(STEM, EPS), nn.ReLU(inplace=True)
        )
        places = sorted((*FIRES, *POOLS))
        self.features = nn.Sequential(
            *(Fire(*FIRES[i]) if i in FIRES else nn.MaxPool3d(3, 2, 1) for i in places)
        )

    def last_map(self, x: Tensor) -> Tensor:
        """Compute the last map: float32 [N, 1, D, H, W], normalised → [N, 512, d, h, w]."""
        return self.features(self.convbn(x))


class ShiftNet3D(Backbone):
    """A network from a volume to its last map."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the last map."""
        return self.last_map(x)


class FeedForward(nn.Module):
    """The branch of the radiomic features: float32 [N, 375] → [N, 32]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = len(FEATURES)
        for width in DENSE:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, BRANCH)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the branch."""
        return self.classifier(self.features(x))


class Mean(nn.Module):
    """Mean over a map: float32 [N, C, d, h, w] → [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the mean."""
        return x.mean((2, 3, 4))


def branch(width: int) -> nn.Sequential:
    """From the last map to a vector [N, width], none of whose values is below 0."""
    return nn.Sequential(
        nn.Dropout(0.3), nn.Conv3d(CHANNELS, width, 1), nn.ReLU(inplace=True), Mean()
    )


class Dual(nn.Module):
    """Class scores of all heads from volume and features (spec covid_mtl §9.1–9.5).

    Takes float32 [N, 1, 200, 250, 250], normalised, and [N, 375], scaled; gives ([N, 2], [N, 2],
    [N, 3]). Other volumes do as well: the published mean over 7 × 8 × 8 positions is one over the
    whole of the last map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_module(RADIOMICS, FeedForward())
        self.add_module(BACKBONE, ShiftNet3D())
        for name in BRANCHES:
            self.add_module(name, branch(BRANCH))
        for name, head in zip(HEADS, catalog.HEADS.values(), strict=True):
            last = nn.Linear(2 * BRANCH, len(head.classes))
            self.add_module(name, nn.Sequential(nn.ReLU(), last))

    def forward(self, volume: Tensor, radiomics: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        seen = self.get_submodule(BACKBONE)(volume)
        features = self.get_submodule(RADIOMICS)(radiomics)
        return tuple(
            self.get_submodule(head)(torch.cat([self.get_submodule(name)(seen), features], 1))
            for name, head in zip(BRANCHES, HEADS, strict=True)
        )


class VolumeOnly(nn.Module):
    """Class scores of all heads from the volume alone (spec covid_mtl §9.7, recommended form).

    The published script stops at the 32 values of each branch; here these are as many as there are
    classes, so no score is below 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_module(BACKBONE, ShiftNet3D())
        for name, head in zip(BRANCHES, catalog.HEADS.values(), strict=True):
            self.add_module(name, branch(len(head.classes)))

    def forward(self, volume: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        seen = self.get_submodule(BACKBONE)(volume)
        return tuple(self.get_submodule(name)(seen) for name in BRANCHES)


class SingleTask(Backbone):
    """Class scores of one head, none below 0: ([N, n],) (spec covid_mtl §13.1)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classifier = branch(classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        return (self.classifier(self.last_map(x)),)


def build(network: Network) -> nn.Module:
    """Any network of the system in eval mode, with torch's own initial weights."""
    match network.name.split("_"):
        case ["dual"]:
            core = Dual()
        case ["volume"]:
            core = VolumeOnly()
        case ["resnet", head]:
            core = ResNet3D(len(catalog.HEADS[head].classes))
        case ["decovnet", *how]:
            core = DeCoVNet(per_volume=bool(how))
        case [head]:
            core = SingleTask(len(catalog.HEADS[head].classes))
        case _:
            raise KeyError(network.name)
    return core.eval()
