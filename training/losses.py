"""Losses of masks: Dice and cross entropy in equal parts."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from hilum.export.compat import declare_torchvision_operators


def mask_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Loss of probabilities float32 [N, 1, H, W]."""
    entropy = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), truth)
    return _dice(from_logits=False)(probability, truth) + entropy


def score_loss(score: Tensor, truth: Tensor) -> Tensor:
    """Loss of logits float32 [N, 1, H, W]."""
    entropy = functional.binary_cross_entropy_with_logits(score, truth)
    return _dice(from_logits=True)(score, truth) + entropy


@functools.lru_cache
def _dice(*, from_logits: bool) -> Callable[[Tensor, Tensor], Tensor]:
    declare_torchvision_operators()
    from segmentation_models_pytorch.losses import DiceLoss

    return DiceLoss("binary", from_logits=from_logits, smooth=1.0)
