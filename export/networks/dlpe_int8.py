"""Which of DLPE's networks may be INT8, and when one is good enough (spec dlpe §13.14).

A network is judged on slices that it was not calibrated on, by the masks that the pipeline makes
of its probabilities. The pipeline adds three directions before it decides; here each direction
answers for itself, which is stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from ...catalog import Network
from ...catalog import dlpe as catalog
from ...catalog.errors import WeightsError
from ..calibration import Calibration, Part
from ..int8 import Image, dice, run_core, to_int8
from ..parity import torch_core
from . import dlpe_recipe
from .dlpe import task_of

LEAST_DICE, LEAST_DICE_LUNG = 0.99, 0.995
"""Of a mask of reduced precision with that of FP32 (spec dlpe §13.14)."""

TREES: Mapping[str, catalog.Tree] = {"airway1": catalog.AIRWAY, "vessel1": catalog.VESSEL}
"""Tasks whose masks are found by rank, as shares of the lungs (spec dlpe §6.2)."""

Probability = NDArray[np.float32]
Progress = Callable[[str, str], None]


@dataclass(slots=True)
class Int8:
    """Quantises networks as they are exported.

    Attributes
    ----------
    core_of
        Gives the PyTorch core of a network with the weights of this export.
    """

    calibration: Calibration
    core_of: Callable[[Network], nn.Module]
    _lung: dict[str, int] = field(default_factory=dict)

    def attempt(
        self, network: Network, core: nn.Module, model: ModelProto
    ) -> tuple[ModelProto | None, dict[str, Any]]:
        """Quantise a network and judge it.

        Parameters
        ----------
        network
            With the tensors of the export's fallback.
        core, model
            The reference in PyTorch, and the same as ONNX.

        Returns
        -------
        ModelProto or None
            None when it must not be served.
        dict
            What the certificate tells about it; ``reason`` is empty for one that is accepted.
        """
        if reason := unfit(network):
            return None, {"accepted": False, "reason": reason}
        direction = _direction(network)
        told: dict[str, Any] = self.calibration.described(direction)
        try:
            lung = self._lung_voxels(direction) if task_of(network).name in TREES else 0
        except WeightsError as missing:
            reason = f"its masks are shares of the lungs, which cannot be found: {missing}"
            return None, {"accepted": False, "reason": reason, **told}
        quantised = to_int8(model, lambda: self._images(network, "calibration"))
        reduced = run_core(quantised)
        full = self._probability(network, core)
        logits = [reduced(image) for image in self._images(network, "held-out")]
        own = _foreground(network, np.concatenate(logits))
        found = judge(network, full, own, lung)
        return (quantised if found["accepted"] else None), {**found, **told}

    def _images(self, network: Network, part: Part) -> Iterator[Image]:
        dtype = dlpe_recipe.DTYPES[network.inputs[0].dtype]
        for slab in self.calibration.slabs(part, _direction(network)):
            yield dlpe_recipe.core_input(network, {}, {"slab": slab.astype(dtype)}).numpy()

    def _probability(self, network: Network, core: nn.Module) -> Probability:
        """What the reference gives on the slices that are held out."""
        run = torch_core(core)
        images = self._images(network, "held-out")
        logits = [run(torch.from_numpy(image))[0].numpy() for image in images]
        return _foreground(network, np.concatenate(logits))

    def _lung_voxels(self, direction: catalog.Direction) -> int:
        """Lungs on the slices that are held out, by the lung network's FP32 reference."""
        if direction not in self._lung:
            network = catalog.TASKS["lung"].network(direction)
            found = self._probability(network, self.core_of(network))
            self._lung[direction] = int(np.count_nonzero(found > _threshold("lung")))
        return self._lung[direction]


def unfit(network: Network) -> str:
    """Why a network cannot be calibrated on a CT alone; empty when it can."""
    task = task_of(network)
    if task.volume == "ct" and not task.enhance:
        return ""
    return "it sees what other networks found, which a CT alone does not tell"


def judge(
    network: Network, full: Probability, reduced: Probability, lung_voxels: int
) -> dict[str, Any]:
    """Compare the probabilities [S, H, W] of FP32 and INT8.

    Parameters
    ----------
    lung_voxels
        Of the same slices; read for the networks of `TREES`.
    """
    task = task_of(network).name
    limit = LEAST_DICE_LUNG if task == "lung" else LEAST_DICE
    apart = np.abs(full - reduced)
    told: dict[str, Any] = {
        "least_dice": limit,
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
    }
    pairs = zip(masks(task, full, lung_voxels), masks(task, reduced, lung_voxels), strict=True)
    found = {name: (a, b) for (name, a), (_, b) in pairs}
    if empty := [name for name, (a, _) in found.items() if not a.any()]:
        reason = f"the slices that are held out show no {empty[0]} to judge it by"
        return {"accepted": False, "reason": reason, **told}
    scores = {name: dice(a, b) for name, (a, b) in found.items()}
    worst = min(scores, key=scores.__getitem__)
    # Written so that a score that is no number is refused, too.
    accepted = scores[worst] >= limit
    reason = "" if accepted else f"Dice of {worst} {scores[worst]:.4f}, less than {limit}"
    return {"accepted": accepted, "reason": reason, "dice": scores, **told}


def masks(
    task: str, probability: Probability, lung_voxels: int
) -> list[tuple[str, NDArray[np.bool_]]]:
    """What the pipeline makes of probabilities, were all three directions alike: names, masks."""
    if task not in TREES:
        return [(task.replace("visible", "lesion"), probability > _threshold(task))]
    tree = TREES[task]
    name = task.rstrip("1")
    shares = (("high recall", tree.high_recall), ("high precision", tree.high_precision))
    return [(f"{name}, {told}", _best(probability, int(lung_voxels * r))) for told, r in shares]


def _best(probability: Probability, count: int) -> NDArray[np.bool_]:
    """Voxels above the one of rank `count`; ties at the threshold are left out (spec §6.1)."""
    rank = min(count, probability.size - 1)
    threshold = np.partition(probability, -rank - 1, axis=None)[-rank - 1]
    return probability > threshold


def _threshold(task: str) -> float:
    positive = catalog.HEART_POSITIVE if task == "heart" else catalog.POSITIVE
    return positive / len(catalog.DIRECTIONS)


def _foreground(network: Network, logits: NDArray[np.float32]) -> Probability:
    """Probability of the only class besides the background."""
    return dlpe_recipe.outputs(network, (torch.from_numpy(logits),))["probability"]


def _direction(network: Network) -> catalog.Direction:
    name = network.name[-1]
    return next(d for d in catalog.DIRECTIONS if d == name)
