"""The path of X-ray severity scoring in PyTorch, written as the published program does it.

Independent of the served graphs: exports are compared with it (spec cxr §3 steps 3–5 and 7–10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hilum.catalog import Network
from hilum.catalog import cxr_severity as catalog

Arrays = Mapping[str, NDArray[Any]]
CoreFunction = Callable[[Tensor], tuple[Tensor, ...]]
"""Normalised float32 [N, 3, S, S] → (mask,) or (mask, cls)."""


def core_input(network: Network, sizes: Mapping[str, int], inputs: Arrays) -> Tensor:
    """What the core gets for the served inputs: float32 [N, 3, S, S], normalised."""
    if network.name == catalog.LUNG.name:
        image = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2).float() / 255
        return _normalised(image, catalog.MEAN, catalog.STD)
    facts = catalog.DISEASE[network.name]
    crops = []
    for image, lung, box in zip(inputs["image"], inputs["lung"], inputs["box"], strict=True):
        left, top, right, bottom = (int(v) for v in box)
        crop = (image * lung[..., np.newaxis])[top:bottom, left:right]
        pixels = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None].double() / 255
        # In float64: float32 positions move a sample of noise by as much as 4e-5.
        frame = (sizes["S"], sizes["S"])
        crops.append(functional.interpolate(pixels, frame, mode="bicubic", align_corners=False))
    return _normalised(torch.cat(crops).float(), facts.mean, facts.std)


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    """The served outputs for what the core gave, and in what they were thresholded.

    The keys ``probability of …`` hold the maps [N, H, W] that became the binary outputs.
    """
    if network.name == catalog.LUNG.name:
        mask = core[0].numpy()
        plane = mask[:, 0]
        return {"mask": mask, "lung": _above(plane), "probability of lung": plane}
    mask, cls = core
    gate = torch.round(cls)[..., None, None]
    gated = mask * gate
    frame = (catalog.FRAME, catalog.FRAME)
    maps = {
        name: functional.interpolate(m, frame, mode="bilinear", align_corners=False)[:, 0].numpy()
        for name, m in (("disease", gated), ("ungated", mask))
    }
    return {
        "mask": gated.numpy(),
        "probability": cls.numpy(),
        **{name: _above(m) for name, m in maps.items()},
        **{f"probability of {name}": m for name, m in maps.items()},
    }


def _above(probability: NDArray[Any]) -> NDArray[np.uint8]:
    return (probability > catalog.MASK_THRESHOLD).astype(np.uint8)


def _normalised(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shape = (1, 3, 1, 1)
    return (image - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
