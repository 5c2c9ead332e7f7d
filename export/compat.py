"""Two operator schemas without which torchvision cannot be imported beside a CPU torch."""

from __future__ import annotations

import functools

import torch


@functools.cache
def declare_torchvision_operators() -> torch.library.Library | None:
    """Declare ``torchvision::nms`` and ``torchvision::qnms``; call before importing timm or SMP.

    torchvision from PyPI is built for CUDA. Beside a CPU build of torch its compiled part does not
    load and its import fails on the missing operators. Neither is ever called here, so their
    schemas are enough (spec cxr §13, recipe A). A torchvision that works is left alone.

    Returns
    -------
    torch.library.Library or None
        The library; the cache keeps it alive, for its declarations end with it.
    """
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
