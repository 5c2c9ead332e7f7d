"""The CT slice classifier for the exporter: served graphs, reference, random weights.

Spec ct_densenet §4 and §7; its lung network is lungmask's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import ct_classifier as catalog
from hilum.catalog import lungmask as lung_catalog

from ...checkpoints import Checkpoint
from ...graph import Nodes, join, value_info
from ...layers import densenet
from ...layers.ct_slices import Slice, synthetic_slice
from ...layers.random import calibrate, describe, fit_gate, seeded
from ...recipes import CoreSignature, Recipe, all_inputs, as_declared
from ..lungmask import checkpoint as lung_checkpoints
from ..lungmask.recipe import RECIPE as LUNG
from . import checkpoint as checkpoints

SAMPLE_SEED = 7000
"""Added to the seed of an export: these slices are not those that random weights are fitted to."""

FIT_LESIONS = (6, 0, 2, 0, 9, 0) * 4
"""Numbers of lesions of the slices that random weights are fitted to."""

CALIBRATION_SLICES = 8
"""How many of them set BatchNorm statistics."""


def _is_lung(network: Network) -> bool:
    return network.name == lung_catalog.R231.name


def _input(network: Network) -> str:
    return network.inputs[0].name


def core_signature(network: Network) -> CoreSignature:
    """``hu`` or the standardised ``image`` → ``prob``, ``logit``, ``cam_raw``."""
    if _is_lung(network):
        return LUNG.core_signature(network)
    shapes = {"prob": (1,), "logit": (1,), "cam_raw": (1, "C", "C")}
    return CoreSignature(
        _input(network),
        (1, "S", "S"),
        shapes,
        unbounded=frozenset({"logit", "cam_raw", "cam"}),
        wide_input=network.name == catalog.RAW_HU,
    )


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:
    """The served model around a core."""
    if _is_lung(network):
        return LUNG.wrap(core, network, sizes)
    front, back, name = Nodes("front"), Nodes("back"), _input(network)
    x = front.cast(name, "FP32")
    if network.name == catalog.MASKED:
        x = _standardised(front, x)
    front.add("Unsqueeze", x, front.axes(1), out=f"core/{name}")
    back.add("Identity", "core/prob", out="probability")
    back.add("Identity", "core/logit", out="logit")
    back.add("Squeeze", "core/cam_raw", back.axes(1), out="cam")
    return join(
        core,
        front,
        back,
        [value_info(t, t.resolved(sizes)) for t in network.inputs],
        [value_info(t, t.resolved(sizes)) for t in network.outputs],
    )


def _standardised(n: Nodes, x: str) -> str:
    """Mean 0 and standard deviation 1 for each slice; three equal channels change neither."""
    x = n.add("Sub", x, _mean(n, x))
    deviation = n.add("Sqrt", _mean(n, n.add("Mul", x, x)))
    return n.add("Div", x, n.add("Add", deviation, n.floats(catalog.STD_OFFSET)))


def _mean(n: Nodes, x: str) -> str:
    """Mean of each slice, rows first: one sum over 65 536 pixels would lose digits in float32."""
    rows = n.add("ReduceMean", x, n.axes(2), keepdims=1)
    return n.add("ReduceMean", rows, n.axes(1), keepdims=1)


def core_input(
    network: Network, sizes: Mapping[str, int], inputs: Mapping[str, NDArray[Any]]
) -> Tensor:
    """What the core gets for the served inputs: float32 [N, 1, S, S]."""
    if _is_lung(network):
        return all_inputs(LUNG.core_input(network, sizes, inputs))[0]
    x = inputs[_input(network)].astype(np.float64)
    if network.name == catalog.MASKED:
        x = np.stack([(s - s.mean()) / (s.std() + 1e-6) for s in x])
    return torch.from_numpy(x.astype(np.float32))[:, None]


def outputs(network: Network, core: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    """The served outputs for what the core gave."""
    if _is_lung(network):
        return LUNG.outputs(network, core)
    probability, logit, cam = (t.numpy() for t in core)
    return {"probability": probability, "logit": logit, "cam": cam[:, 0]}


def samples(network: Network, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
    """Two synthetic slices, with lesions and without."""
    if _is_lung(network):
        return LUNG.samples(network, sizes, seed)
    slices = [
        synthetic_slice(SAMPLE_SEED + seed, sizes["S"], lesions=6),
        synthetic_slice(SAMPLE_SEED + seed + 1, sizes["S"], lesions=0),
    ]
    return as_declared(network, {_input(network): _served(network, slices)})


def _served(network: Network, slices: Sequence[Slice]) -> NDArray[Any]:
    """What the served network gets for the slices."""
    if network.name == catalog.RAW_HU:
        return np.stack([s.hu for s in slices])
    return np.stack([_masked(s) for s in slices])


def _masked(synthetic: Slice) -> NDArray[np.uint8]:
    """HU inside the lungs, 0 outside, spread over 8 bits (spec ct_densenet §4.2)."""
    hu = np.where(synthetic.lung > 0, synthetic.hu, 0).astype(np.float64)
    return np.rint((hu - hu.min()) / np.ptp(hu) * 255).astype(np.uint8)


def build_random(network: Network, seed: int) -> tuple[nn.Module, str]:
    """A network with seeded weights, and what these are in words."""
    if _is_lung(network):
        return LUNG.build_random(network, seed)
    with seeded(seed):
        core = densenet.build()
    slices = [
        synthetic_slice(1000 * seed + number, network.sizes["S"], lesions=lesions)
        for number, lesions in enumerate(FIT_LESIONS)
    ]
    grey = core_input(network, {}, {_input(network): _served(network, slices)})
    image = grey.expand(-1, 3, -1, -1)
    calibrate(core, grey[:CALIBRATION_SLICES])
    with torch.no_grad():
        pooled = torch.cat([core.features(x).mean((2, 3)) for x in image.split(8)])
    positive = torch.tensor([lesions > 0 for lesions in FIT_LESIONS])
    head = cast("nn.Linear", core.layers[densenet.HEAD])
    fit_gate(head, pooled, positive)
    _spread_offset(head, pooled)
    return core, describe(seed, "synthetic CT slices")


@torch.no_grad()
def _spread_offset(head: nn.Linear, pooled: Tensor) -> None:
    """Move a head's offset into its weights, or heat maps would have one sign throughout.

    The logit of the mean of `pooled` [N, C], which is not negative, stays what it was.
    """
    head.weight += head.bias / pooled.mean(0).sum()
    head.bias.zero_()


def find(folder: Path, allow_unknown: bool) -> list[Checkpoint]:
    """Checkpoints of the classifier and of its lung network, whichever there are.

    Raises
    ------
    WeightsError
        When there is none.
    """
    lungs = lung_checkpoints.published(folder, allow_unknown=allow_unknown)
    own = checkpoints.find(folder, required=not lungs, allow_unknown=allow_unknown)
    return [*own, *lungs]


RECIPE = Recipe(
    core_signature=core_signature,
    build=lambda network, tensors: (
        LUNG.build(network, tensors) if _is_lung(network) else densenet.build()
    ),
    build_random=build_random,
    wrap=wrap,
    core_input=core_input,
    outputs=outputs,
    samples=samples,
    sampled="two synthetic CT slices, with lesions and without",
    checkpoints=find,
)
