"""How good the X-rays' reference networks are: synthetic images of unseen seeds, public ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.catalog import Network
from hilum.catalog import cxr_severity as catalog
from hilum.export.systems.cxr_severity import reference
from hilum.postprocessing.cxr_severity.lungs import clean
from hilum.postprocessing.cxr_severity.zones import zones_step

from .xrays import DISEASE, LUNG, UNKNOWN, Xrays, synthetic, varied

UNSEEN = 900_001
"""Seed of the synthetic X-rays that are measured on."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What is measured on one set of X-rays.

    Attributes
    ----------
    dice
        Of the lungs, one per X-ray, before the mask is cleaned, where the truth is known.
    error
        Absolute differences of severity scores from those of the true masks; none without these.
    """

    dice: NDArray[np.float64]
    error: NDArray[np.float64]

    def figures(self, of: str) -> dict[str, str]:
        """Rows of a table."""
        rows = {
            f"{of}: mean Dice of the lungs": f"{self.dice.mean():.3f}",
            f"{of}: least Dice of the lungs": f"{self.dice.min():.3f}",
        }
        if self.error.size:
            rows[f"{of}: mean absolute error of the score"] = f"{self.error.mean():.2f}"
        return rows


def unseen(count: int, progress: Progress | None = None) -> Xrays:
    """Synthetic X-rays of seeds that no network was trained on."""
    return synthetic(UNSEEN, count, progress)


def harder(made: Xrays) -> Xrays:
    """The same X-rays turned, exposed and crossed by devices as in training."""
    pairs = [
        varied(p, t, np.random.default_rng([UNSEEN, k]), strength=0.7)
        for k, (p, t) in enumerate(zip(made.pixels, made.labels, strict=True))
    ]
    return Xrays(np.stack([p for p, _ in pairs]), np.stack([t for _, t in pairs]))


@torch.inference_mode()
def measure(xrays: Xrays, lung: nn.Module, disease: nn.Module | None = None) -> Found:
    """Compare lungs, and with a disease network (``pspnet``) scores, with the truth."""
    dice, error = [], []
    for pixels, labels in zip(xrays.pixels, xrays.labels, strict=True):
        image = np.repeat(pixels[None, :, :, None], 3, axis=3)
        truth = (labels & LUNG > 0).astype(np.uint8)
        mask = _answer(catalog.SYSTEM.network("lung"), lung, {"image": image})["lung"][0]
        dice.append(overlap(mask * (labels & UNKNOWN == 0), truth))
        if disease is None:
            continue
        scores = _score(image, mask, disease, None), _score(image, truth, disease, labels)
        error.append(abs(scores[0] - scores[1]))
    return Found(np.array(dice, np.float64), np.array(error, np.float64))


def overlap(found: NDArray[Any], truth: NDArray[Any]) -> float:
    """Dice coefficient of two masks; 1 for two empty ones."""
    both, total = np.count_nonzero(found & truth), np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * both / total if total else 1.0


def _score(
    image: NDArray[np.uint8],
    lung: NDArray[np.uint8],
    disease: nn.Module,
    labels: NDArray[np.uint8] | None,
) -> int:
    """The severity score by the network, or by the true disease of `labels`."""
    network = catalog.SYSTEM.network("pspnet")
    cleaned = clean(lung)
    left, top, right, bottom = cleaned.box
    if labels is None:
        inputs = {"image": image, "lung": cleaned.lung[None], "box": cleaned.box[None]}
        got = _answer(network, disease, inputs)
        masks, probability = (got["disease"][0], got["ungated"][0]), got["probability"][0]
    else:
        crop = (labels & DISEASE > 0).astype(np.float32)[top:bottom, left:right]
        side = (catalog.FRAME, catalog.FRAME)
        large = torch.nn.functional.interpolate(torch.from_numpy(crop)[None, None], side)
        plane = large[0, 0].numpy().astype(np.uint8)
        masks, probability = (plane, plane), np.ones(1, np.float32)
    threshold = np.array([catalog.DISEASE["pspnet"].zone_threshold])
    found = zones_step(
        lung=cleaned.lung, box=cleaned.box, disease=masks[0], ungated=masks[1],
        probability=probability, zone_threshold=threshold, mode=np.array([catalog.PARITY]),
    )  # fmt: skip
    return int(found["score"][0])


def _answer(
    network: Network, core: nn.Module, inputs: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    seen = reference.core_input(network, network.sizes, inputs)
    return reference.outputs(network, core(seen))
