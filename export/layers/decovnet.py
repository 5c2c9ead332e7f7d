"""The comparator DeCoVNet in PyTorch (Wang et al., IEEE TMI 2020; spec covid_mtl §13.3).

Modules carry the names of the published state dict, of which the stages ``s4`` and ``s5`` are never
computed and left out here.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

STEM = 16
"""Channels of the stem."""

STAGES = {"s2": (16, 16, 64, 1), "s3": (64, 32, 128, 2)}
"""Channels that come in, inside and out, and the stride in the plane, by stage."""

UNUSED = ("s4.", "s5.")
"""Beginnings of the names of tensors that published files have and nothing reads."""

HEAD = {"1": (128, 64), "4": (64, 32), "8": (32, 32)}
"""Convolutions of the head by their published names: channels in and out."""

POOLS = ((16, 24, 36), (4, 12, 18), (1, 6, 9))
"""Sizes that adaptive pools give, before each of these convolutions."""

COVID = 1
"""Class of the disease."""


class Norm(nn.BatchNorm3d):
    """BatchNorm; with `per_volume`, by the statistics of each volume instead of the stored ones.

    The published test script leaves the network in training mode, which does that.
    """

    per_volume = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise a batch."""
        if not self.per_volume:
            return super().forward(input)
        return functional.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class Stem(nn.Module):
    """The first convolution and pool: [N, C, T, H, W] → [N, 16, T, H/4, W/4]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, STEM, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False)
        self.bn = Norm(STEM)
        self.pool_layer = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the stem."""
        return self.pool_layer(self.bn(self.conv(x)).relu_())


class Bottleneck(nn.Module):
    """Three convolutions: along the slices, in the plane, across the channels."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        plane = (1, stride, stride)
        self.a = nn.Conv3d(channels, inner, (3, 1, 1), 1, (1, 0, 0), bias=False)
        self.a_bn = Norm(inner)
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), plane, (0, 1, 1), bias=False)
        self.b_bn = Norm(inner)
        self.c = nn.Conv3d(inner, out, 1, bias=False)
        self.c_bn = Norm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the three, the last without ReLU."""
        x = self.a_bn(self.a(x)).relu_()
        x = self.b_bn(self.b(x)).relu_()
        return self.c_bn(self.c(x))


class Block(nn.Module):
    """A bottleneck and its shortcut."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.branch1 = nn.Conv3d(channels, out, 1, (1, stride, stride), bias=False)
        self.branch1_bn = Norm(out)
        self.branch2 = Bottleneck(channels, inner, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return (self.branch1_bn(self.branch1(x)) + self.branch2(x)).relu_()


class DeCoVNet(nn.Module):
    """Class scores of a study: float32 [N, 2, T, 224, 336] → ([N, 2],); T is 2 at least.

    Parameters
    ----------
    channels
        2: windowed CT and lung mask; the first published version has the CT alone.
    per_volume
        Normalise by each volume's own statistics, as the published test script does.
    """

    def __init__(self, channels: int = 2, *, per_volume: bool = False) -> None:
        super().__init__()
        self.s1 = nn.ModuleDict({"pathway0_stem": Stem(channels)})
        for name, shape in STAGES.items():
            self.add_module(name, nn.ModuleDict({"pathway0_res0": Block(*shape)}))
        self.head = nn.ModuleDict(
            {name: nn.Conv3d(*shape, 3, padding=1) for name, shape in HEAD.items()}
        )
        self.classifier = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 2))
        self.normalise_by(per_volume=per_volume)

    def normalise_by(self, *, per_volume: bool) -> None:
        """Choose the statistics: those of each volume, or the stored ones."""
        for module in self.modules():
            if isinstance(module, Norm):
                module.per_volume = per_volume

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Class scores of one batch."""
        x = self.s1["pathway0_stem"](x)
        x = self.get_submodule("s2.pathway0_res0")(x)
        x = functional.max_pool3d(x, (2, 1, 1))
        x = self.get_submodule("s3.pathway0_res0")(x)
        for size, layer in zip(POOLS, self.head.values(), strict=True):
            x = layer(functional.adaptive_max_pool3d(x, size)).relu_()
        return (self.classifier(x.amax((2, 3, 4))),)


def windows(length: int, cells: int) -> list[list[int]]:
    """Positions that each cell of an adaptive pool is the largest of: [cells, k].

    Cell o covers ⌊o·n/O⌋ … ⌈(o+1)·n/O⌉ − 1; shorter windows repeat their last position, which
    changes no maximum (spec covid_mtl §14).
    """
    starts = [o * length // cells for o in range(cells)]
    ends = [-(-(o + 1) * length // cells) for o in range(cells)]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    return [
        [min(start + k, end - 1) for k in range(longest)]
        for start, end in zip(starts, ends, strict=True)
    ]
