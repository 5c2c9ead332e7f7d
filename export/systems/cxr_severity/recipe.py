"""X-ray severity scoring for the exporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import Network
from hilum.catalog import cxr_severity as catalog

from ...recipes import CoreSignature, Recipe
from . import checkpoint as checkpoints
from . import graph as cxr_graph
from . import network as cxr
from . import random as cxr_random
from . import reference as cxr_reference

PHANTOM_SEED = 7000
"""Added to the seed of an export: these X-rays are not those that random weights are fitted to."""


def core_signature(network: Network) -> CoreSignature:
    """``image`` → ``mask`` and, in stage II, ``cls`` (spec cxr §14)."""
    lung = network.name == catalog.LUNG.name
    side = "L" if lung else "S"
    outputs = {"mask": (1, side, side)}
    return CoreSignature("image", (3, side, side), outputs if lung else {**outputs, "cls": (1,)})


def samples(network: Network, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
    """Two synthetic X-rays: one as it comes, one tinted and grainy with an odd box."""
    length = sizes["L"]
    plain, other = (
        cxr_random.sample(network, length, PHANTOM_SEED + 2 * seed + k, severity=0.6).inputs
        for k in range(2)
    )
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 4, (1, length, length, 3))
    tinted = other["image"] * np.array([0.95, 1.0, 0.9]) + grain
    other["image"] = np.clip(tinted, 0, 255).astype(np.uint8)
    if "box" in other:
        other["box"] = np.array([[13, 27, 13 + (length * 3) // 7, length]], np.int32)
    return {name: np.concatenate([a, other[name]]) for name, a in plain.items()}


RECIPE = Recipe(
    core_signature=core_signature,
    build=lambda network, _tensors: cxr.build(network.name),
    build_random=cxr_random.random_core,
    wrap=cxr_graph.wrap,
    core_input=cxr_reference.core_input,
    outputs=cxr_reference.outputs,
    samples=samples,
    sampled="two synthetic X-rays, one of them tinted and grainy with an odd box",
    checkpoints=lambda folder, _allow_unknown: checkpoints.find(folder),
)
