"""Which of DLPE's networks may be INT8 or bfloat16, and when one is good enough (spec dlpe §13.14).

A network is judged on slices that it was not calibrated on, by the masks that the pipeline makes
of its probabilities. The pipeline adds three directions before it decides; here each direction
answers for itself, which is stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from hilum.catalog import Network
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import WeightsError

from ...calibration import Calibration, Part
from ...int8 import OPENVINO, TENSORRT, Image, dice, run_core, to_int8
from ...parity import Runtime, torch_core
from . import recipe as dlpe_recipe
from .network import task_of

LEAST_DICE = 0.99
"""Of a mask of reduced precision with that of FP32 (spec dlpe §13.14)."""

Mask = NDArray[np.bool_]
Probabilities = Mapping[str, NDArray[np.float32]]
"""[S, H, W] by output: ``probability``, or ``artery`` and ``vein``."""


def _channels(name: str, tree: catalog.Tree) -> dict[str, float]:
    return {
        f"{name}, high recall": tree.high_recall,
        f"{name}, high precision": tree.high_precision,
    }


SHARES: Mapping[str, Mapping[str, float]] = {
    "airway1": _channels("airway", catalog.AIRWAY),
    "vessel1": _channels("vessel", catalog.VESSEL),
    "airway2": {"airway": catalog.AIRWAY.ratio},
    "vessel2": {"vessel": catalog.VESSEL.ratio},
}
"""Masks that are found by rank, as shares of the lungs, by task (spec dlpe §6.2, §6.3)."""

STRICTER = dict.fromkeys(("lung", *SHARES), 0.995)
"""Least Dice by task, where it is another: for lungs by the same section; a tree is found in two
stages, and each may spend half of what the final mask may lack."""

ROOT_SHARES = {"artery": catalog.ARTERY_RATIO, "vein": catalog.VEIN_RATIO}
"""The same of the heart, by output of the task ``root`` (spec dlpe §4.4)."""

_LESIONS = ("visible", "follow_up", "in_patient", "lesion")

_FOUND_BY = {
    "heart": "heart",
    **dict.fromkeys(("enhanced", "outer_vessel"), "airway2 and vessel2"),
}
"""Networks that find a volume; stage one finds all others."""


@dataclass(slots=True)
class Judge:
    """Quantises networks as they are exported, and judges those of reduced precision.

    Attributes
    ----------
    core_of
        Gives the PyTorch core of a network with the weights of this export.
    runtime
        Judges the networks, since it will serve them; None: ONNX Runtime.
    """

    calibration: Calibration
    core_of: Callable[[Network], nn.Module]
    runtime: Runtime | None = None
    _lungs: dict[str, Mask] = field(default_factory=dict)

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
            What the certificate states about it; ``reason`` is empty for one that is accepted.
        """
        if reason := unfit(network, self.calibration.volumes):
            return None, {"accepted": False, "reason": reason}
        form = TENSORRT if self.runtime is None else OPENVINO
        quantised = to_int8(model, lambda: self._images(network, "calibration"), form)
        found = self._compared(network, core, quantised)
        return (quantised if found["accepted"] else None), found

    def compare(self, network: Network, core: nn.Module, model: ModelProto) -> dict[str, Any]:
        """Judge a network of reduced precision, as `attempt` does; empty for one that is `unfit`.

        Parameters
        ----------
        core, model
            The reference in PyTorch, and the core as it is to be served.
        """
        if unfit(network, self.calibration.volumes):
            return {}
        return self._compared(network, core, model)

    def _compared(self, network: Network, core: nn.Module, model: ModelProto) -> dict[str, Any]:
        described: dict[str, Any] = self.calibration.described(_direction(network))
        try:
            organs = self._organs(network)
        except WeightsError as missing:
            reason = f"its masks are shares of the lungs, which cannot be found: {missing}"
            return {"accepted": False, "reason": reason, **described}
        reduced = run_core(model, self.runtime)
        full = self._probabilities(network, core)
        logits = [reduced(image) for image in self._images(network, "held-out")]
        own = _foreground(network, np.concatenate(logits))
        return {**judge(network, full, own, organs), **described}

    def _images(self, network: Network, part: Part) -> Iterator[Image]:
        """What the core sees of each slab, [1, C, H, W]."""
        dtype, margin = dlpe_recipe.DTYPES[network.inputs[0].dtype], task_of(network).margin
        names = seen(network)
        slabs = (self.calibration.slabs(part, _direction(network), v) for v in names.values())
        for found in zip(*slabs, strict=True):
            inputs = dict(zip(names, found, strict=True))
            middle = len(inputs["slab"]) // 2
            inputs["slab"] = inputs["slab"][middle - margin : middle + margin + 1].astype(dtype)
            yield dlpe_recipe.core_input(network, {}, inputs).numpy()

    def _probabilities(self, network: Network, core: nn.Module) -> Probabilities:
        """What the reference gives on the slices that are held out."""
        run = torch_core(core)
        images = self._images(network, "held-out")
        logits = [run(torch.from_numpy(image))[0].numpy() for image in images]
        return _foreground(network, np.concatenate(logits))

    def _organs(self, network: Network) -> dict[str, Mask]:
        """What the network's masks are shares of, on the slices that are held out."""
        task, direction = task_of(network).name, _direction(network)
        if task == "root":
            return {name: self._held_out(name, direction) for name in ("lung", "heart")}
        return {name: self._lung(direction) for name in _measures(task)}

    def _lung(self, direction: catalog.Direction) -> Mask:
        """Lungs as the pipeline found them, else by the lung network's FP32 reference."""
        if "lung" in self.calibration.volumes:
            return self._held_out("lung", direction)
        if direction not in self._lungs:
            network = catalog.TASKS["lung"].network(direction)
            found = self._probabilities(network, self.core_of(network))
            self._lungs[direction] = found["probability"] > _threshold("lung")
        return self._lungs[direction]

    def _held_out(self, volume: str, direction: catalog.Direction) -> Mask:
        return np.concatenate(list(self.calibration.slabs("held-out", direction, volume))) != 0


def seen(network: Network) -> dict[str, str]:
    """What the pipeline cuts each input of a network from: names of volumes by name of input."""
    task = task_of(network)
    calls = (call for ensemble in catalog.SYSTEM.ensembles for call in ensemble.calls)
    outer = next((call.inputs for call in calls if call.target.model == network.model), {})
    return {"slab": task.volume, **{name: outer.get(name, name) for name in task.enhance}}


def unfit(network: Network, volumes: Collection[str]) -> str:
    """Why a network cannot be calibrated on slabs of these volumes; empty when it can."""
    needed = [*seen(network).values(), *(["heart"] if task_of(network).name == "root" else [])]
    missing = [name for name in needed if name not in volumes]
    if not missing:
        return ""
    if set(volumes) <= {"ct"}:
        return (
            "it sees what other networks found, which a CT alone does not show; give a repository "
            "that has them, --calibrate-with"
        )
    by = _FOUND_BY.get(missing[0], "of stage one")
    return f"it needs what the networks {by} find, which the repository of --calibrate-with lacks"


def judge(
    network: Network, full: Probabilities, reduced: Probabilities, organs: Mapping[str, Mask]
) -> dict[str, Any]:
    """Compare the probabilities of FP32 and INT8.

    Parameters
    ----------
    organs
        Masks of the same slices: ``lung`` for the tasks of `SHARES`, with ``heart`` for ``root``.
    """
    task = task_of(network).name
    limit = STRICTER.get(task, LEAST_DICE)
    apart = [np.abs(full[name] - reduced[name]) for name in full]
    described: dict[str, Any] = {
        "least_dice": limit,
        "mean_difference": float(np.mean([a.mean() for a in apart])),
        "largest_difference": float(np.max([a.max() for a in apart])),
    }
    wanted, found = masks(task, full, organs), masks(task, reduced, organs)
    # Shares of nothing are nothing: what they are shares of says more.
    shown = {**{organ: organs[organ] for organ in _measures(task)}, **wanted}
    if empty := [name for name, mask in shown.items() if not mask.any()]:
        reason = f"the slices that are held out show no {empty[0]} to judge it by"
        return {"accepted": False, "reason": reason, **described}
    scores = {name: dice(mask, found[name]) for name, mask in wanted.items()}
    worst = min(scores, key=scores.__getitem__)
    # Written so that a score that is no number is refused, too.
    accepted = scores[worst] >= limit
    reason = "" if accepted else f"Dice of {worst} {scores[worst]:.4f}, less than {limit}"
    return {"accepted": accepted, "reason": reason, "dice": scores, **described}


def _measures(task: str) -> tuple[str, ...]:
    """The organ that a task's masks are shares of."""
    return ("heart",) if task == "root" else ("lung",) if task in SHARES else ()


def masks(task: str, found: Probabilities, organs: Mapping[str, Mask]) -> dict[str, Mask]:
    """What the pipeline makes of probabilities, were all three directions alike; by name."""
    if task == "root":
        return _roots(found, organs["lung"], int(np.count_nonzero(organs["heart"])))
    (probability,) = found.values()
    if task in SHARES:
        voxels = int(np.count_nonzero(organs["lung"]))
        return {name: _best(probability, int(voxels * r)) for name, r in SHARES[task].items()}
    return {"lesion" if task in _LESIONS else task: probability > _threshold(task)}


def _roots(found: Probabilities, lung: Mask, heart_voxels: int) -> dict[str, Mask]:
    """Outside the lungs; a voxel that would be in both belongs to neither (spec dlpe §4.4)."""
    best = {
        name: _best(np.where(lung, np.float32(0), found[name]), int(heart_voxels * ratio))
        for name, ratio in ROOT_SHARES.items()
    }
    both = np.logical_and.reduce(list(best.values()))
    return {name: mask & ~both for name, mask in best.items()}


def _best(probability: NDArray[np.float32], count: int) -> Mask:
    """Voxels above the one of rank `count`; ties at the threshold are left out (spec §6.1)."""
    rank = min(count, probability.size - 1)
    threshold = np.partition(probability, -rank - 1, axis=None)[-rank - 1]
    return probability > threshold


def _threshold(task: str) -> float:
    positive = catalog.HEART_POSITIVE if task == "heart" else catalog.POSITIVE
    return positive / len(catalog.DIRECTIONS)


def _foreground(network: Network, logits: NDArray[np.float32]) -> Probabilities:
    """Probabilities of the classes besides the background."""
    return dlpe_recipe.outputs(network, (torch.from_numpy(logits),))


def _direction(network: Network) -> catalog.Direction:
    name = network.name[-1]
    return next(d for d in catalog.DIRECTIONS if d == name)
