"""Weights for networks whose trained ones are not at hand.

Random weights alone give pictures of noise and gates that are stuck. Here BatchNorm gets statistics
of real activations and the output layers are fitted in closed form, so that what a demonstration
shows resembles what it would show; everything else stays random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

GAIN = 2.0
"""Logit of a pixel that is fitted exactly."""

RIDGE = 0.1
"""Ridge penalty of the mask's fit on standardised features, whose weights sum to one."""

GATE_RIDGE = 2.0
"""The same for the gate, which has more features than images."""

FLOOR = 0.3
"""Channels that vary less than this share of the others must not be blown up to unit variance:
rounding errors and noise would be."""

MAGNIFIED = 100.0
"""Largest sum of absolute terms behind a gate's logit."""

MISSED = 0.1
"""Share of the positive images that a fitted gate may miss."""


def describe(seed: int, fitted_to: str) -> str:
    """What such weights are, in the words of certificates, cards and reports."""
    return f"random (seed {seed}); only the output layer is fitted, to {fitted_to}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make torch's initial weights reproducible without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the running statistics of every BatchNorm to those of `images` [N, C, H, W].

    One pass does: each layer sees activations that the layers before it have normalised already.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average over the batches seen
        norm.train()
    network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if norm.running_var is not None:
            norm.running_var.add_(FLOOR * norm.running_var.mean())
        norm.eval()


@torch.no_grad()
def fit_segmentation(head: nn.Conv2d, features: list[Tensor], targets: list[Tensor]) -> None:
    """Fit a one-channel convolution so that its output's sign is the target.

    Parameters
    ----------
    head
        Square kernel; every tap gets the same weights, so the fit is one of box means.
    features
        One float32 [1, C, h, w] for each image: what the convolution is applied to.
    targets
        One float32 [1, 1, H, W] for each image, 0 or 1, of any size; positive and negative pixels
        weigh the same in sum.
    """
    kernel = head.kernel_size[0]
    rows, signs = [], []
    for feature, target in zip(features, targets, strict=True):
        box = functional.avg_pool2d(feature, kernel, stride=1, padding=kernel // 2)
        small = functional.interpolate(target, feature.shape[-2:], mode="area")
        # Every k-th pixel is plenty for as many unknowns as there are channels.
        step = max(1, int((box.shape[-1] * box.shape[-2] / 12_000) ** 0.5))
        rows.append(box[0, :, ::step, ::step].flatten(1).T)
        signs.append(torch.where(small[0, 0, ::step, ::step].flatten() > 0.5, 1.0, -1.0))
    weight, bias = _ridge(torch.cat(rows), torch.cat(signs), RIDGE)
    taps = (weight / kernel**2)[None, :, None, None].expand(1, -1, kernel, kernel)
    head.weight.copy_(GAIN * taps)
    if head.bias is not None:
        head.bias.fill_(GAIN * bias)


@torch.no_grad()
def fit_gate(
    linear: nn.Linear, features: Tensor, positive: Tensor, whole: Tensor | None = None
) -> None:
    """Fit a linear layer on means over pictures to be above zero where `positive` [N] is true.

    Parameters
    ----------
    features
        float32 [N, C]; may be of pictures smaller than those that will be served.
    whole
        If so, float32 [M, C] of positive pictures at full size: means shift with the size, and
        the offset makes up for it.
    """
    weight, _ = _ridge(features, torch.where(positive, 1.0, -1.0), GATE_RIDGE)
    scores = features @ weight
    # Means that hardly vary would need weights that magnify their rounding errors, too.
    scale = min(GAIN / scores.std(), MAGNIFIED / (features.abs() @ weight.abs()).mean())
    shift = 0.0 if whole is None else (whole @ weight).mean() - scores[positive].mean()
    linear.weight.copy_(scale * weight[None])
    linear.bias.fill_(float(-scale * (torch.quantile(scores[positive], MISSED) + shift)))


def _ridge(rows: Tensor, signs: Tensor, penalty: float) -> tuple[Tensor, float]:
    """Balanced ridge regression of ±1 on the rows: weights [C] and offset."""
    x, y = rows.double(), signs.double()
    count = torch.where(y > 0, (y > 0).sum(), (y < 0).sum()).double()
    balance = (0.5 / count)[:, None]
    mean = (balance * x).sum(0)
    spread = ((balance * (x - mean) ** 2).sum(0)).sqrt()
    scale = 1 / (spread + FLOOR * spread.max() + 1e-12)
    z = (x - mean) * scale
    if len(z) >= z.shape[1]:
        gram = z.T @ (balance * z) + penalty * torch.eye(z.shape[1], dtype=z.dtype)
        weight = torch.linalg.solve(gram, z.T @ (balance[:, 0] * y))
    else:
        weighted = balance.sqrt() * z
        gram = weighted @ weighted.T + penalty * torch.eye(len(z), dtype=z.dtype)
        weight = weighted.T @ torch.linalg.solve(gram, balance[:, 0].sqrt() * y)
    weight *= scale
    return weight.float(), float(-(mean * weight).sum())
