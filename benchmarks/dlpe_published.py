"""DLPE as published: PyTorch, one direction after the other, in batches of 4.

The main program of spec dlpe §1 from a normalised volume to its masks. Between the networks stand
the definitions of `dlpe_direct`: full sorts, pixels one by one. Networks are loaded already, and
tube extension runs in this process, which the published program spreads over 32. Whole samples are
cut for all slices of a direction before the first batch, as published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.catalog import dlpe as catalog
from hilum.catalog.dlpe import DIRECTIONS, IMAGE_AXES, RING_CAPS, RING_RATIOS, Task, Tree
from hilum.catalog.errors import RepositoryError
from hilum.export.recipes import all_inputs, recipe
from hilum.preprocessing.workers import cores

from . import dlpe_direct as direct
from .runs import served_run, torch_core

BATCH = 4

TASKS = (
    "lung", "airway1", "airway2", "vessel1", "vessel2", "follow_up", "in_patient", "visible",
)  # fmt: skip
"""The models of the main program, in its order."""

SAME = 0.05
"""Probabilities of the same network, in whatever precision, differ by less."""

Networks = Mapping[tuple[str, str], nn.Module]
"""By task and direction."""

Volume = NDArray[np.float32]
"""[x, y, z], or [x, y, z, channel]."""


@dataclass(slots=True)
class Published:
    """A study by the published procedure.

    Attributes
    ----------
    threads
        That PyTorch used.
    timings
        Seconds by the stages that Hilum's pipeline names.
    masks
        uint8 [x, y, z].
    passes
        Slices through networks.
    level, width
        In HU.
    """

    threads: int
    timings: dict[str, float] = field(default_factory=dict)
    masks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    passes: int = 0
    level: float = float("nan")
    width: float = float("nan")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage, which may come in several parts."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start


def load(weights: str) -> Networks:
    """The networks of the main program with the weights that are exported."""
    return {
        (task, d): torch_core(catalog.SYSTEM, catalog.TASKS[task].network(d), weights)
        for task in TASKS
        for d in DIRECTIONS
    }


def check_same(networks: Networks, repository: Path, weights: str) -> None:
    """Make sure that the repository serves these very networks.

    Raises
    ------
    RepositoryError
        When one of them gives other probabilities.
    """
    how = recipe(catalog.SYSTEM)
    for (task, direction), core in networks.items():
        network = catalog.TASKS[task].network(direction)
        given = how.samples(network, network.sizes, 0)
        with torch.inference_mode():
            samples = all_inputs(how.core_input(network, network.sizes, given))
            wanted = how.outputs(network, core(*samples))["probability"]
        found = served_run(network, repository, ["probability"])(given)["probability"]
        if np.abs(found.astype(np.float32) - wanted).max() > SAME:
            raise RepositoryError(
                f"{network.model} in {repository} has other weights than those of --weights "
                f"{weights}, so results cannot be compared; export it again, or let this command "
                "do it (leave out --repository)"
            )


def warm_up(networks: Networks, side: int) -> None:
    """Run every network, and let PyTorch use as many threads as are faster: one, or all cores.

    With all cores, threads wait for each other, which takes long on small slices and on a machine
    that has other things to do.
    """
    batches = {
        key: torch.zeros(BATCH, catalog.TASKS[key[0]].channels, side, side) for key in networks
    }
    seconds = {}
    with torch.inference_mode():
        for threads in (1, cores()):
            torch.set_num_threads(threads)
            for key, network in networks.items():  # the first of each is not measured
                network(batches[key])
            start = time.perf_counter()
            for key, network in networks.items():
                network(batches[key])
            seconds[threads] = time.perf_counter() - start
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))


def run(
    ct: Volume, networks: Networks, limits: tuple[int, int], progress: Callable[[str], None]
) -> Published:
    """Process a normalised volume in which the networks find lungs.

    Parameters
    ----------
    ct
        float32 [x, y, z].
    limits
        Of the ranking box: 10 and 500, as published, at 512 voxels.
    """
    found = Published(torch.get_num_threads())

    def summed(stage: str, task: str, *channels: NDArray[Any]) -> Volume:
        progress(f"published procedure: {catalog.TASKS[task].title}")
        with found.stage(stage):
            volume = np.stack([ct, *channels], axis=-1, dtype=np.float32)
            views = [_view(volume, catalog.TASKS[task], d, networks[task, d]) for d in DIRECTIONS]
            found.passes += sum(ct.shape)
            return (views[0] + views[1]) + views[2]

    lung_sum = summed("stage_one", "lung")
    with found.stage("masks"):
        lung = found.masks["lung"] = (lung_sum > catalog.POSITIVE).astype(np.uint8)
    del lung_sum
    for name, tree in (("airway", catalog.AIRWAY), ("vessel", catalog.VESSEL)):
        first = summed("stage_one", f"{name}1")
        with found.stage("ranks"):
            channels = _channels(first, lung, tree, limits)
        second = summed("stage_two", f"{name}2", *channels)
        with found.stage("masks"):
            found.masks[name] = direct.rank_mask(lung, second, tree.ratio, limits)
    with found.stage("enhancement"):
        enhanced = _enhance(ct, found)
    _lesions(ct, enhanced, networks, found, progress)
    return found


def _channels(
    total: Volume, lung: direct.Mask, tree: Tree, limits: tuple[int, int]
) -> list[direct.Mask]:
    total = total * np.float32(3) / np.float32(3)  # three weights of 1, as published (spec §5.3)
    shares = (tree.high_recall, tree.high_precision)
    return [direct.rank_mask(lung, total, share, limits) for share in shares]


def _enhance(ct: Volume, found: Published) -> Volume:
    lung, airway, vessel = (found.masks[name] for name in ("lung", "airway", "vessel"))
    structures = ((airway + vessel) * lung > 0).astype(np.uint8)
    inner, outer = (
        np.stack(
            [direct.extend_plane(structures[:, :, z], ratio, cap) for z in range(ct.shape[2])],
            axis=2,
        )
        for ratio, cap in zip(RING_RATIOS, RING_CAPS, strict=True)
    )
    enhanced, baseline, std = direct.enhance(ct, lung, structures, inner, outer)
    found.level = catalog.HU_OFFSET + catalog.HU_SCALE * baseline
    found.width = catalog.WIDTH_FACTOR * catalog.HU_SCALE * std
    return enhanced


def _lesions(
    ct: Volume,
    enhanced: Volume,
    networks: Networks,
    found: Published,
    progress: Callable[[str], None],
) -> None:
    """Lesions on the enhanced volume, anywhere, and visible ones in the lungs (spec dlpe §8)."""
    for name in ("follow_up", "in_patient", "visible"):
        task = catalog.TASKS[name]
        stage = "visible_lesions" if name == "visible" else "lesions"
        progress(f"published procedure: {task.title}")
        with found.stage(stage):
            volume = (ct if task.volume == "ct" else enhanced)[..., None]
            views = [_view(volume, task, d, networks[name, d]) for d in DIRECTIONS]
            found.passes += sum(ct.shape)
        with found.stage("masks"):
            mask = ((views[0] + views[1]) + views[2] > catalog.POSITIVE).astype(np.uint8)
            found.masks[name] = mask * found.masks["lung"] if name == "visible" else mask


def _view(volume: Volume, task: Task, direction: str, network: nn.Module) -> Volume:
    """Probabilities [x, y, z] of one direction (spec dlpe §5.1, §5.2)."""
    axis = DIRECTIONS.index(direction)
    slices = volume.transpose(axis, *IMAGE_AXES[direction], 3)
    samples = np.stack([_sample(slices, i, task) for i in range(len(slices))])
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            logits = network(torch.from_numpy(samples[start : start + BATCH]))[0]
            parts.append(torch.softmax(logits, 1).numpy())
    probabilities = np.concatenate(parts)
    return np.stack(list(probabilities[:, 1]), axis=axis)


def _sample(slices: Volume, i: int, task: Task) -> Volume:
    """What the network sees for one slice: [channels, H, W]; zeros beyond the volume."""
    empty = np.zeros(slices.shape[1:3], np.float32)
    around = [slices[i + w, :, :, 0] if 0 <= i + w < len(slices) else empty for w in task.window]
    own = [slices[i, :, :, c] for c in range(1, slices.shape[3])]
    return np.stack([*around, *own])
