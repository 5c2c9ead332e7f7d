"""Lessons of DLPE: a small U-Net of the published architecture for each task and direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from hilum.catalog import dlpe as catalog
from hilum.export.systems.dlpe.network import UNet

from . import cts, fields
from .loop import Lesson, Phase
from .losses import score_loss

WIDTH = 4
"""Channels of the first block; the published networks have 16."""

TASKS = ("lung", "airway1", "vessel1", "airway2", "vessel2", "visible", "in_patient", "follow_up")
"""Those of the main program, in the order of training."""

TRUTH = {
    "lung": cts.LUNG,
    "airway1": cts.AIRWAY,
    "airway2": cts.AIRWAY,
    "vessel1": cts.VESSEL,
    "vessel2": cts.VESSEL,
    "visible": cts.LESION,
    "follow_up": cts.LESION,
    "in_patient": cts.LESION,
}
"""Bit of the labels that each task finds."""

LUNG = "lung"
"""The task whose slices show patients of all sizes and scans of all heights."""

FIRST = "z"
"""The direction whose networks start from noise; those of the others start from them."""

PHASES = (Phase(128, 12, 500), Phase(256, 4, 300))
"""First coarse grids, then the grid of previews."""

LATER_PHASES = (Phase(128, 12, 200), Phase(256, 4, 250))

EASIER_PHASES = (Phase(128, 12, 300), Phase(256, 4, 150))
"""Of tasks that see what stage one found: less is left to learn."""

EASIER_LATER_PHASES = (Phase(128, 12, 100), Phase(256, 4, 120))

LUNG_PHASES = (Phase(128, 12, 900), Phase(256, 4, 500))
"""Lungs are found in scans of all sizes and heights; the other tasks look where lungs are."""

LATER_LUNG_PHASES = (Phase(128, 12, 600), Phase(256, 4, 450))

ENHANCED_PHASES = (Phase(128, 12, 500), Phase(256, 4, 350))
"""Of lesions on the enhanced volume, where vessels that nobody found look like them."""

LATER_ENHANCED_PHASES = (Phase(128, 12, 150), Phase(256, 4, 220))

SAME = "follow_up"
"""Its networks start from those of in-patients: generated chests have one kind of lesion."""

SAME_PHASES = (Phase(256, 4, 120),)

NO_PRECISION = 0.25
"""Share of examples whose channel of high precision is empty, as ranks with ties leave it."""

PARTLY_HU = 60
"""How far a pixel beside a vessel is above healthy tissue when the vessel fills it in part."""

THIN = 4
"""A branch this many times eroded on the published grid is gone."""

MOST_MISSED = 0.5
"""Share of a slice where thin branches are missed, at most; half of the slices miss none."""

EDGE = 0.12
"""How far slices lie before and behind the lungs, as a share of their length."""

ELSEWHERE = 0.1
"""Share of slices from anywhere in the volume."""

Chests = Mapping[int, Sequence[cts.Chest]]
"""By the side of the grid."""


def lesson(
    task: str, direction: str, chests: Chests, phases: tuple[Phase, ...] | None = None
) -> Lesson:
    """The lesson of one network."""
    facts, parent = catalog.TASKS[task], _parent(task, direction)
    return Lesson(
        f"{task}_{direction}",
        lambda: _build(facts),
        lambda rng, side, count: _draw(facts, direction, chests[side], rng, count),
        _loss,
        phases or _phases(facts, direction == FIRST),
        rate=3e-3 if parent else 6e-3,
        parent=parent,
    )


def _parent(task: str, direction: str) -> str:
    """The network that one starts from; empty: from noise."""
    if task == SAME:
        return f"in_patient_{direction}"
    return "" if direction == FIRST else f"{task}_{FIRST}"


def _build(task: catalog.Task) -> UNet:
    """A network whose last features vote for both classes from the start.

    Else all features can be for the background. Then what is found has one probability everywhere,
    and ranks, which choose the most probable voxels of a tree, find none.
    """
    network = UNet(task.channels, 1 + len(task.outputs), WIDTH)
    with torch.no_grad():
        votes = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]).repeat(1, WIDTH // 2)
        network.conv.weight.copy_(votes[..., None, None])
        if network.conv.bias is not None:
            network.conv.bias.zero_()
    return network


def _phases(task: catalog.Task, first: bool) -> tuple[Phase, ...]:
    if task.name == SAME:
        return SAME_PHASES
    if task.name == LUNG:
        return LUNG_PHASES if first else LATER_LUNG_PHASES
    if task.volume == "enhanced":
        return ENHANCED_PHASES if first else LATER_ENHANCED_PHASES
    if task.enhance:
        return EASIER_PHASES if first else EASIER_LATER_PHASES
    return PHASES if first else LATER_PHASES


def _loss(out: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Tensor:
    """Dice and cross entropy of the second class."""
    score = (out[0][:, 1] - out[0][:, 0])[:, None]
    return score_loss(score, truth[0])


def _draw(
    task: catalog.Task,
    direction: str,
    chests: Sequence[cts.Chest],
    rng: np.random.Generator,
    count: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    images, masks = [], []
    for _ in range(count):
        seen, truth = example(task, direction, chests[int(rng.integers(len(chests)))], rng)
        images.append(torch.from_numpy(seen))
        masks.append(torch.from_numpy(truth))
    return torch.stack(images), (torch.stack(masks),)


def example(
    task: catalog.Task, direction: str, chest: cts.Chest, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a network sees of a slice [C, H, W], and the mask that it should give [1, H, W]."""
    axis = catalog.DIRECTIONS.index(direction)
    hu, labels = np.moveaxis(chest.hu, axis, 0), np.moveaxis(chest.labels, axis, 0)
    middle = _slice(labels, rng)
    numbers = [middle + offset for offset in task.window]
    inside = [0 <= n < len(hu) for n in numbers]
    kept = np.clip(numbers, 0, len(hu) - 1)
    planes = cts.scanned(hu[kept], rng)
    wanted = labels[middle] & TRUTH[task.name] > 0
    if task.name == LUNG:
        planes, wanted = fields.seen(planes, wanted, axis, rng)
    elif task.volume == "enhanced" and direction != FIRST:
        planes = fields.thick(planes, rng)
    own, near = labels[middle], labels[kept]
    values = (planes - catalog.HU_OFFSET) / catalog.HU_SCALE
    if task.volume == "enhanced":
        healthy = (chest.healthy + rng.normal(0, 12) - catalog.HU_OFFSET) / catalog.HU_SCALE
        values = _enhanced(values, near, healthy, rng)
    elif task.name != LUNG:
        values = _framed(values, rng)
    values[~np.array(inside)] = 0
    masks = [(own & bit > 0).astype(np.float32) for bit in cts.CHANNELS.get(task.name, ())]
    if masks and rng.random() < NO_PRECISION:
        masks[-1][:] = 0
    seen = np.stack([*values, *masks]).astype(np.float32)
    if TRUTH[task.name] == cts.VESSEL:
        wanted |= _partly_vessel(labels, hu[middle] - chest.healthy, middle)
    truth = wanted.astype(np.float32)[None]
    for flip in (1, 2):
        if rng.random() < 0.5:
            seen, truth = np.flip(seen, flip), np.flip(truth, flip)
    return np.ascontiguousarray(seen), np.ascontiguousarray(truth)


def _partly_vessel(
    labels: NDArray[np.uint8], raised: NDArray[Any], middle: int
) -> NDArray[np.bool_]:
    """Pixels beside vessels that are partly filled: parenchyma is sampled next to what is found."""
    near = (labels[max(middle - 1, 0) : middle + 2] & cts.VESSEL > 0).any(axis=0)
    grown = np.asarray(ndimage.binary_dilation(near), bool)
    return grown & (labels[middle] & cts.LUNG > 0) & (raised > PARTLY_HU)


def _slice(labels: NDArray[np.uint8], rng: np.random.Generator) -> int:
    """Number of a slice, mostly one with lung."""
    if rng.random() < ELSEWHERE:
        return int(rng.integers(len(labels)))
    found = np.flatnonzero((labels[:, ::4, ::4] & cts.LUNG).any(axis=(1, 2)))
    reach = EDGE * (found[-1] - found[0])
    number = rng.integers(int(found[0] - reach), int(found[-1] + reach) + 1)
    return int(np.clip(number, 0, len(labels) - 1))


def _framed(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Fill what a smaller field of view leaves empty, as the pipeline does (0 HU), or with air."""
    if rng.random() < 0.5:
        return values
    fill = (rng.choice([0.0, -1024.0]) - catalog.HU_OFFSET) / catalog.HU_SCALE
    shape = values.shape[1:]
    for axis, length in enumerate(shape, 1):
        for flip in (False, True):
            depth = int(max(0.0, rng.normal(-0.02, 0.06)) * length)
            if depth:
                view = np.moveaxis(values, axis, 0)
                (view[::-1] if flip else view)[:depth] = fill
    return values


def _enhanced(
    values: NDArray[Any], labels: NDArray[np.uint8], healthy: float, rng: np.random.Generator
) -> NDArray[Any]:
    """Slices of the enhanced volume: tissue above the baseline, 0 in trees and outside the lungs.

    The masks are a little wrong, as those of networks are, and thin branches are missed here and
    there: vessels that are left are no lesions.
    """
    out = np.zeros_like(values)
    change = (ndimage.binary_erosion, None, ndimage.binary_dilation)[rng.integers(3)]
    iterations = max(1, THIN * values.shape[-1] // catalog.SIDE)
    missed = _patches(values.shape[1:], max(0.0, rng.uniform(-MOST_MISSED, MOST_MISSED)), rng)
    for target, plane, bits in zip(out, values, labels, strict=True):
        tubes = bits & (cts.AIRWAY | cts.VESSEL) > 0
        thick = np.asarray(ndimage.binary_opening(tubes, iterations=iterations), bool)
        tubes &= thick | ~missed
        if change is not None:
            tubes = np.asarray(change(tubes), bool)
        tissue = (bits & cts.LUNG > 0) & ~tubes
        raised = np.clip(plane - healthy, *catalog.ENHANCED_RANGE)
        target[tissue] = raised[tissue]
    return out


def _patches(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Squares of 1/16 of a slice's side that cover a share of it."""
    chosen = rng.random((16, 16)) < share
    return np.kron(chosen, np.ones([side // 16 for side in shape], bool))
