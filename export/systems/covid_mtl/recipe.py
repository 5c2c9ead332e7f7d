"""COVID-MTL for the exporter: served graph, reference, random weights (spec covid_mtl §6, §14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES as RADIOMIC_FEATURES

from ...recipes import Arrays, CoreSignature, Recipe
from . import checkpoint as checkpoints
from . import graph as covid_mtl_graph
from . import network as covid_mtl
from . import random as covid_mtl_random
from .graph import FEATURES, IMAGE, core_outputs

SAMPLE_SEED = 7000
"""Added to the seed of an export: these volumes are not those that random weights come from."""

SAMPLE_SLICES = 42
"""Of the studies that DeCoVNet is compared on: few, and no multiple of what its pools give."""

BRIGHT = 150
"""Mean stored value of the noise that exports are compared on."""


def core_signature(network: Network) -> CoreSignature:
    """``image`` FP32, normalised, and ``features`` → class scores before the softmax."""
    named = core_outputs(network)
    scores = {named[tensor.name]: tensor.shape for tensor in network.outputs}
    first, *more = network.inputs
    image = (1, *first.shape) if first.name == catalog.VOLUME.name else first.shape
    return CoreSignature(
        IMAGE,
        image,
        scores,
        unbounded=frozenset(scores),
        more={FEATURES: (len(RADIOMIC_FEATURES),)} if more else {},
    )


def core_input(
    network: Network,
    sizes: Mapping[str, int],  # noqa: ARG001
    inputs: Mapping[str, NDArray[Any]],
) -> Tensor | tuple[Tensor, ...]:
    """What the core gets for the served inputs."""
    first, *more = (inputs[t.name] for t in network.inputs)
    if network.inputs[0].name != catalog.VOLUME.name:
        return torch.from_numpy(first.astype(np.float32))
    volume = covid_mtl_random.normalised(first)
    return (volume, *(torch.from_numpy(a) for a in more)) if more else volume


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    """The served outputs for what the core gave."""
    return {
        tensor.name: torch.softmax(scores, 1).numpy()
        for tensor, scores in zip(network.outputs, core, strict=True)
    }


def samples(network: Network, sizes: Mapping[str, int], seed: int) -> Arrays:  # noqa: ARG001
    """A synthetic scan, and noise of about the same brightness."""
    rng = np.random.default_rng(seed)
    tensor = network.inputs[0]
    if tensor.name != catalog.VOLUME.name:
        shape = (SAMPLE_SLICES, *catalog.DECOVNET_PLANE)
        study = covid_mtl_random.synthetic_study(SAMPLE_SEED + seed, shape)
        dtype = np.float16 if tensor.dtype == "FP16" else np.float32
        return {tensor.name: np.stack([study, rng.random(study.shape)]).astype(dtype)}
    volume = covid_mtl_random.synthetic_volume(SAMPLE_SEED + seed, catalog.WINDOW)
    noise = np.minimum(rng.standard_exponential(volume.shape, np.float32) * BRIGHT, catalog.CLIP)
    made: Arrays = {tensor.name: np.stack([volume, noise.round().astype(np.float16)])}
    for more in network.inputs[1:]:
        made[more.name] = rng.uniform(-0.2, 1.2, (2, len(RADIOMIC_FEATURES))).astype(np.float32)
    return made


RECIPE = Recipe(
    core_signature=core_signature,
    build=lambda network, _tensors: covid_mtl.build(network),
    build_random=covid_mtl_random.random_core,
    wrap=covid_mtl_graph.wrap,
    core_input=core_input,
    outputs=outputs,
    samples=samples,
    sampled="a synthetic scan, and noise",
    checkpoints=lambda folder, _allow_unknown: checkpoints.find(folder),
    to_onnx=covid_mtl_graph.to_onnx,
)
