"""DLPE for the exporter: served graph, reference, random weights (spec dlpe §4–5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import Network

from ...recipes import Arrays, CoreSignature, Recipe
from . import checkpoint as checkpoints
from . import graph as dlpe_graph
from . import network as dlpe
from . import random as dlpe_random
from .network import task_of

SLICES, SIDES = 3, (64, 96)
"""Of the slabs that exports are compared on: few, of two sides that differ."""

DTYPES = {"FP16": np.float16, "FP32": np.float32}


def core_signature(network: Network) -> CoreSignature:
    """``image`` FP32 [N, C, H, W] → ``logits`` [N, K, H, W] of the classes, before the softmax."""
    task = task_of(network)
    logits = {dlpe_graph.LOGITS: (dlpe.classes(task), -1, -1)}
    return CoreSignature(
        dlpe_graph.IMAGE, (task.channels, -1, -1), logits, unbounded=frozenset(logits)
    )


def core_input(
    network: Network,
    sizes: Mapping[str, int],  # noqa: ARG001
    inputs: Mapping[str, NDArray[Any]],
) -> Tensor:
    """What the core gets for the served inputs, slice by slice as published: [S, C, H, W]."""
    task, slab = task_of(network), inputs["slab"].astype(np.float32)
    samples = []
    for i in range(len(slab) - 2 * task.margin):
        middle = task.margin + i
        seen = [slab[middle + offset] for offset in task.window]
        samples.append(np.stack([*seen, *(inputs[name][i] for name in task.enhance)]))
    return torch.from_numpy(np.stack(samples).astype(np.float32))


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    """The served outputs for what the core gave."""
    probability = torch.softmax(core[0], 1).numpy()
    return {
        tensor.name: probability[:, k].astype(DTYPES[tensor.dtype])
        for k, tensor in enumerate(network.outputs, 1)
    }


def samples(network: Network, sizes: Mapping[str, int], seed: int) -> Arrays:  # noqa: ARG001
    """A slab of noise around half-random steps, from air to bone, and random masks."""
    task = task_of(network)
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-0.3, 0.6, (SLICES + 2 * task.margin, SIDES[0] // 8, SIDES[1] // 8))
    slab = coarse.repeat(8, 1).repeat(8, 2)
    slab += rng.normal(0, 0.03, slab.shape)
    masks = {name: (rng.random((SLICES, *SIDES)) < 0.2).astype(np.uint8) for name in task.enhance}
    return {"slab": slab.astype(DTYPES[network.inputs[0].dtype]), **masks}


def first(network: Network, arrays: Mapping[str, NDArray[Any]], count: int) -> Arrays:
    """The inputs of the first `count` slices."""
    margins = {"slab": 2 * task_of(network).margin}
    return {
        name: np.ascontiguousarray(a[: count + margins.get(name, 0)]) for name, a in arrays.items()
    }


def build_random(network: Network, seed: int) -> tuple[nn.Module, str]:
    """A network with seeded weights, and what these are in words."""
    return dlpe_random.random_core(network, seed)


RECIPE = Recipe(
    core_signature=core_signature,
    build=dlpe.build,
    build_random=build_random,
    wrap=dlpe_graph.wrap,
    core_input=core_input,
    outputs=outputs,
    samples=samples,
    sampled=f"a slab of {SLICES} slices of {SIDES[0]} × {SIDES[1]}: steps and noise",
    checkpoints=lambda folder, _allow_unknown: checkpoints.find(folder),
    to_onnx=dlpe_graph.to_onnx,
    first=first,
)
