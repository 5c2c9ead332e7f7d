"""Random weights for the networks of X-ray severity scoring, fitted to synthetic X-rays."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import cxr_severity as catalog
from hilum.preprocessing.phantoms.xray import Phantom, chest_xray

from ...layers.random import calibrate, describe, fit_gate, fit_segmentation, seeded
from . import network as cxr
from . import reference as cxr_reference

MASK_SEVERITIES = (0.6, 1.0, 0.3)
"""Of the synthetic X-rays, all diseased, that the mask is fitted to."""

GATE_SEVERITIES = (0.9, 0.0, 0.6, 0.0, 0.4, 0.0, 0.75, 0.0) * 2
"""Of those, smaller, that the gate is fitted to."""

SMALL, CALIBRATION_IMAGES = 192, 6
"""Side of the smaller X-rays, and how many of them set BatchNorm statistics."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One served input and the mask that the network should answer.

    Attributes
    ----------
    inputs
        One array for each input of the served model, with a batch axis of 1.
    target
        float32 [1, 1, H, W], 0 or 1, in the frame of the network's mask.
    diseased
        Whether the X-ray shows disease at all.
    """

    inputs: dict[str, NDArray[Any]]
    target: Tensor
    diseased: bool


def sample(network: Network, length: int, seed: int, severity: float) -> Sample:
    """A synthetic X-ray as the served model of `network` gets it, `length` pixels square."""
    phantom = _phantom(seed, length, severity)
    image = np.repeat(phantom.pixels[None, :, :, None], 3, axis=3)
    if network.name == catalog.LUNG.name:
        return Sample({"image": image}, _tensor(phantom.lung), severity > 0)
    rows, columns = (np.flatnonzero(phantom.lung.any(axis=a)) for a in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    inputs = {
        "image": image,
        "lung": phantom.lung[None],
        "box": np.array([box], np.int32),
    }
    target = phantom.disease[box[1] : box[3], box[0] : box[2]]
    return Sample(inputs, _tensor(target), severity > 0)


@functools.lru_cache(maxsize=64)
def _phantom(seed: int, side: int, severity: float) -> Phantom:
    # Ten networks are fitted to the same X-rays.
    return chest_xray(seed, height=side, width=side, severity=severity)


def random_core(network: Network, seed: int) -> tuple[cxr.Core, str]:
    """The core of `network` with seeded weights, and what these are in words."""
    with seeded(seed):
        core = cxr.build(network.name)
    net = cast("Any", core.network)
    large, samples = _batch(network, network.sizes, 1000 * seed, MASK_SEVERITIES)
    few = {"L": SMALL, "S": SMALL}
    small, others = _batch(network, few, 1000 * seed + len(large), GATE_SEVERITIES)
    calibrate(core, _vary(small[:CALIBRATION_IMAGES]))
    with torch.no_grad():
        levels = [net.encoder(image) for image in large.split(1)]
        fit_segmentation(
            cast("nn.Conv2d", net.segmentation_head[0]),
            [net.decoder(level) for level in levels],
            [s.target for s in samples],
        )
        if net.classification_head is not None:
            fit_gate(
                cast("nn.Linear", net.classification_head[3]),
                net.encoder(small)[-1].mean((2, 3)),
                torch.tensor([s.diseased for s in others]),
                torch.cat([level[-1].mean((2, 3)) for level in levels]),
            )
    return core, describe(seed, "synthetic X-rays")


def _batch(
    network: Network, sizes: Mapping[str, int], seed: int, severities: Sequence[float]
) -> tuple[Tensor, list[Sample]]:
    """Synthetic X-rays as core input [N, 3, S, S], and their samples."""
    samples = [sample(network, sizes["L"], seed + k, s) for k, s in enumerate(severities)]
    images = [cxr_reference.core_input(network, sizes, s.inputs) for s in samples]
    return torch.cat(images), samples


def _vary(images: Tensor) -> Tensor:
    """Different contrasts and brightnesses, or features of the whole picture would never vary."""
    number = torch.arange(len(images)).view(-1, 1, 1, 1)
    return images * (0.8 + 0.1 * (number % 4)) + 0.2 * (number % 3 - 1)


def _tensor(mask: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(mask.astype(np.float32))[None, None]
