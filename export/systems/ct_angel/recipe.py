"""CT-Angel for the exporter: served graph, reference, random weights (spec ct_angel §3.3, §6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import ct_angel as catalog
from hilum.preprocessing.windows import ct_angel_window

from ...graph import Nodes, join, value_info
from ...layers.ct_slices import Slice, synthetic_slice
from ...layers.random import calibrate, describe, fit_segmentation, seeded
from ...recipes import CoreSignature, Recipe
from . import checkpoint as checkpoints
from . import network as ct_angel

SAMPLE_SEED = 7000
"""Added to the seed of an export: these slices are not those that random weights are fitted to."""

CALIBRATION_SIDE, CALIBRATION_LESIONS = 256, (6, 2, 0, 10)
"""Side and numbers of lesions of the slices that BatchNorm statistics are those of."""

FIT_LESIONS = (8, 4)
"""Numbers of lesions of the whole slices that the output layer is fitted to."""


def core_signature(network: Network) -> CoreSignature:  # noqa: ARG001
    """``image`` on a scale of 0…1 → ``prob`` (spec ct_angel §8)."""
    return CoreSignature("image", (3, "S", "S"), {"prob": (1, "S", "S")})


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:
    """The served model around a core.

    The threshold is compared with the float32 probability, so that rounding to FP16 moves no pixel.
    """
    front, back = Nodes("front"), Nodes("back")
    grey = front.add("Div", front.cast("image", "FP32"), front.floats(255))
    grey = front.add("Unsqueeze", grey, front.axes(1))
    front.add("Concat", grey, grey, grey, out="core/image", axis=1)
    probability = back.add("Squeeze", "core/prob", back.axes(1))
    back.cast(probability, "FP16", out="probability")
    threshold = back.add("Unsqueeze", "threshold", back.axes(2))
    above = back.add("GreaterOrEqual", probability, threshold)
    back.cast(back.cast(above, "FP32"), "UINT8", out="mask")
    return join(
        core,
        front,
        back,
        [value_info(t, t.resolved(sizes)) for t in network.inputs],
        [value_info(t, t.resolved(sizes)) for t in network.outputs],
    )


def core_input(
    network: Network,  # noqa: ARG001
    sizes: Mapping[str, int],  # noqa: ARG001
    inputs: Mapping[str, NDArray[Any]],
) -> Tensor:
    """What the core gets for the served inputs: float32 [N, 3, S, S], 0…1."""
    image = np.repeat(inputs["image"][:, np.newaxis], 3, axis=1)
    return torch.from_numpy(image.astype(np.float32) / np.float32(255))


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:  # noqa: ARG001
    """The served outputs for what the core gave, at the published threshold."""
    probability = core[0].numpy()[:, 0]
    threshold = np.float32(catalog.THRESHOLD)
    return {
        "probability": probability.astype(np.float16),
        "mask": (probability >= threshold).astype(np.uint8),
        # Masks are compared around one half.
        "probability of mask": probability - threshold + 0.5,
    }


def samples(
    network: Network,  # noqa: ARG001
    sizes: Mapping[str, int],
    seed: int,
) -> dict[str, NDArray[Any]]:
    """A synthetic slice, and noise."""
    side = sizes["S"]
    noise = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    image = np.stack([_windowed(synthetic_slice(SAMPLE_SEED + seed, side, lesions=5)), noise])
    return {"image": image, "threshold": np.full((2, 1), catalog.THRESHOLD, np.float32)}


def build_random(network: Network, seed: int) -> tuple[nn.Module, str]:
    """A network with seeded weights, and what these are in words."""
    with seeded(seed):
        core = ct_angel.build()
    small = [
        synthetic_slice(1000 * seed + 100 + number, CALIBRATION_SIDE, lesions=lesions)
        for number, lesions in enumerate(CALIBRATION_LESIONS)
    ]
    calibrate(core, _images(network, small))
    slices = [
        synthetic_slice(1000 * seed + number, network.sizes["S"], lesions=lesions)
        for number, lesions in enumerate(FIT_LESIONS)
    ]
    with torch.no_grad():
        features = [core.features(_images(network, [s])) for s in slices]
    head = cast("nn.Conv2d", core.layers["final_conv"])
    fit_segmentation(head, features, [_target(network, s) for s in slices])
    return core, describe(seed, "synthetic CT slices")


def _images(network: Network, slices: Sequence[Slice]) -> Tensor:
    return core_input(network, {}, {"image": np.stack([_windowed(s) for s in slices])})


def _target(network: Network, synthetic: Slice) -> Tensor:
    mask = synthetic.lesion
    if network.name == catalog.VALID.name:
        rows, columns = (synthetic.lung.any(axis) for axis in (1, 0))
        mask = _span(rows)[:, np.newaxis] & _span(columns)
    return torch.from_numpy(mask.astype(np.float32))[None, None]


def _span(line: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From the first true entry to the last."""
    return np.logical_or.accumulate(line) & np.logical_or.accumulate(line[::-1])[::-1]


def _windowed(synthetic: Slice) -> NDArray[np.uint8]:
    return ct_angel_window(synthetic.hu, catalog.WINDOWS[catalog.DEFAULT_WINDOW])


RECIPE = Recipe(
    core_signature=core_signature,
    build=lambda _network, _tensors: ct_angel.build(),
    build_random=build_random,
    wrap=wrap,
    core_input=core_input,
    outputs=outputs,
    samples=samples,
    sampled="a synthetic CT slice, and noise",
    checkpoints=lambda folder, _allow_unknown: checkpoints.find(folder),
)
