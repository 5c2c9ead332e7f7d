"""How good the reference networks of DLPE are: synthetic chests of unseen seeds, stage by stage.

The stages are those of a run (`systems.dlpe.flow`), with networks in PyTorch in place of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import dlpe as catalog
from hilum.catalog.terms import Mode
from hilum.postprocessing.dlpe import ranks
from hilum.postprocessing.dlpe.enhancement import enhance
from hilum.systems.dlpe.options import Options

from . import cts
from .measure_xrays import overlap

UNSEEN = 900_001

BATCH = 8

MODE: Mode = "corrected"

Cores = Mapping[str, nn.Module]
"""By name of the network."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """What is measured on one chest: Dice by name, and how far the window level is off, in HU."""

    dice: dict[str, float]
    level_error: float


def measure(
    seed: int, side: int, cores: Cores, progress: Callable[[str], None] | None = None
) -> Found:
    """Run all stages on a chest of an unseen seed; trees are where the sum exceeds 2."""
    chest = cts.chest(UNSEEN + seed, side)
    ct = scan(chest, np.random.default_rng([UNSEEN, seed]))
    limits = Options(grid=side).limits(side)

    def asked(task: str, volume: Volume, masks: Mapping[str, NDArray[np.uint8]]) -> Volume:
        if progress is not None:
            progress(task)
        return probabilities(task, volume, masks, cores)

    lung = (asked("lung", ct, {}) > catalog.POSITIVE).astype(np.uint8)
    masks = dict[str, Any]()
    for name, tree in (("airway", catalog.AIRWAY), ("vessel", catalog.VESSEL)):
        recall, precision = ranks.channels(lung, asked(f"{name}1", ct, {}), tree, limits, MODE)
        channels = {"high_recall": recall, "high_precision": precision}
        total = asked(f"{name}2", ct, channels)
        masks[name] = ranks.tree_mask(lung, total, None, limits, MODE)
    enhanced = enhance(ct, lung, masks["airway"], masks["vessel"], MODE)
    within = lung & (masks["airway"] ^ 1) & (masks["vessel"] ^ 1)
    found = {"lung": lung, **masks}
    found["visible"] = (asked("visible", ct, {}) > catalog.POSITIVE).astype(np.uint8) & lung
    for task in ("in_patient", "follow_up"):
        total = asked(task, enhanced.volume, {})
        found[task] = (total > catalog.POSITIVE).astype(np.uint8) & within
    return Found(_dice(chest, found, within), enhanced.window_level - chest.healthy)


def _dice(
    chest: cts.Chest, found: Mapping[str, NDArray[np.uint8]], within: NDArray[np.uint8]
) -> dict[str, float]:
    bits = {"lung": cts.LUNG, "airway": cts.AIRWAY, "vessel": cts.VESSEL}
    dice = {}
    for name, mask in found.items():
        truth = (chest.labels & bits.get(name, cts.LESION) > 0).astype(np.uint8)
        if name in ("in_patient", "follow_up"):  # trees are taken out of the enhanced volume
            truth &= within
        dice[name] = overlap(mask, truth)
    return dice


def scan(chest: cts.Chest, rng: np.random.Generator) -> Volume:
    """A chest as one scanner gives it: normalised, [x, y, z]."""
    slices = cts.scanned(np.moveaxis(chest.hu, 2, 0), rng)
    values = (slices - catalog.HU_OFFSET) / catalog.HU_SCALE
    return np.ascontiguousarray(np.moveaxis(values, 0, 2), np.float32)


@torch.inference_mode()
def probabilities(
    task: str, volume: Volume, masks: Mapping[str, NDArray[np.uint8]], cores: Cores
) -> Volume:
    """Sum of the three directions' probabilities [x, y, z], 0…3."""
    facts = catalog.TASKS[task]
    total = np.zeros(volume.shape, np.float32)
    for axis, direction in enumerate(catalog.DIRECTIONS):
        core = cores[f"{task}_{direction}"]
        slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume, axis, 0)))
        more = [
            torch.from_numpy(np.ascontiguousarray(np.moveaxis(masks[name], axis, 0))).float()
            for name in facts.enhance
        ]
        target = np.moveaxis(total, axis, 0)
        for start in range(0, len(slices), BATCH):
            middles = range(start, min(start + BATCH, len(slices)))
            seen = torch.stack([_seen(slices, more, i, facts.window) for i in middles])
            target[start : start + BATCH] += torch.softmax(core(seen)[0], 1)[:, 1].numpy()
    return total


def _seen(slices: Tensor, more: list[Tensor], middle: int, window: tuple[int, ...]) -> Tensor:
    """The channels of one slice; slices outside the volume are 0."""
    empty = torch.zeros_like(slices[0])
    numbers = [middle + offset for offset in window]
    planes = [slices[n] if 0 <= n < len(slices) else empty for n in numbers]
    return torch.stack([*planes, *(m[middle] for m in more)])
