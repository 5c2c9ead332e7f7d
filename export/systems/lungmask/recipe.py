"""lungmask for the exporter: served graph, reference, random weights (spec lungmask §4–5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import lungmask as catalog

from ...graph import Nodes, join, value_info
from ...layers.ct_slices import synthetic_slice
from ...layers.random import calibrate, describe, fit_segmentation, seeded
from ...recipes import CoreSignature, Recipe, as_declared
from . import checkpoint as checkpoints
from . import network as lungmask

SAMPLE_SEED = 7000
"""Added to the seed of an export: these slices are not those that random weights are fitted to."""

FIT_LESIONS = (4, 0, 8)
"""Numbers of lesions of the slices that random weights are fitted to."""


def core_signature(network: Network) -> CoreSignature:  # noqa: ARG001
    """``x`` on a scale of 0…1 → ``scores`` of the classes, before or after a softmax."""
    shapes = {"scores": (lungmask.CLASSES, "R", "R")}
    return CoreSignature("x", (1, "R", "R"), shapes, unbounded=frozenset({"scores"}))


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:
    """The served model around a core: limits, scale, argmax."""
    front, back = Nodes("front"), Nodes("back")
    low, high = catalog.LOWEST_HU, catalog.HIGHEST_HU
    hu = front.add("Clip", front.cast("hu", "FP32"), front.floats(low), front.floats(high))
    x = front.add("Div", front.add("Sub", hu, front.floats(low)), front.floats(high - low))
    front.add("Unsqueeze", x, front.axes(1), out="core/x")
    label = back.add("ArgMax", "core/scores", axis=1, keepdims=0)
    # TensorRT turns floating point numbers into UINT8, but no other integers.
    back.cast(back.cast(label, "FP32"), "UINT8", out="label")
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
    """What the core gets for the served inputs: float32 [N, 1, R, R], 0…1."""
    hu = np.clip(inputs["hu"], catalog.LOWEST_HU, catalog.HIGHEST_HU).astype(np.float64)
    x = (hu + 1024) / 1624
    return torch.from_numpy(x.astype(np.float32))[:, None]


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:  # noqa: ARG001
    """The served outputs for what the core gave."""
    ordered = core[0].sort(1, descending=True)
    return {
        "label": ordered.indices[:, 0].to(torch.uint8).numpy(),
        # Labels are compared around one half: where the two best classes are equally likely.
        "probability of label": (0.5 + ordered.values[:, 0] - ordered.values[:, 1]).numpy(),
    }


def samples(
    network: Network,
    sizes: Mapping[str, int],
    seed: int,
) -> dict[str, NDArray[Any]]:
    """A synthetic slice, and noise beyond the limits."""
    side = sizes["R"]
    noise = np.random.default_rng(seed).integers(-2048, 3072, (side, side)).astype(np.int16)
    hu = np.stack([synthetic_slice(SAMPLE_SEED + seed, side, lesions=4).hu, noise])
    return as_declared(network, {"hu": hu})


def build_random(network: Network, seed: int) -> tuple[nn.Module, str]:
    """A network with seeded weights, and what these are in words."""
    with seeded(seed):
        core = lungmask.build()
    slices = [
        synthetic_slice(1000 * seed + number, network.sizes["R"], lesions=lesions)
        for number, lesions in enumerate(FIT_LESIONS)
    ]
    images = core_input(network, {}, {"hu": np.stack([s.hu for s in slices])})
    calibrate(core, images)
    with torch.no_grad():
        features = list(core.features(images).split(1))
        for label in range(lungmask.CLASSES):
            head = nn.Conv2d(core.last.in_channels, 1, 1)
            targets = [torch.from_numpy((s.lung == label)[None, None]).float() for s in slices]
            fit_segmentation(head, features, targets)
            core.last.weight[label] = head.weight[0]
            core.last.bias[label] = head.bias[0]  # pyright: ignore[reportOptionalSubscript]
    return core, describe(seed, "synthetic CT slices")


RECIPE = Recipe(
    core_signature=core_signature,
    build=lambda _network, _tensors: lungmask.build(),
    build_random=build_random,
    wrap=wrap,
    core_input=core_input,
    outputs=outputs,
    samples=samples,
    sampled="a synthetic CT slice, and noise beyond the limits",
    checkpoints=lambda folder, unknown: checkpoints.find(folder, allow_unknown=unknown),
)
