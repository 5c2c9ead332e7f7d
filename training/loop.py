"""Seeded training that can be stopped at any time and goes on where it was.

Every step draws its images and its random numbers from the seed and its own number, so a resumed
training equals one that was never stopped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hilum.catalog.errors import WeightsError

KEEP_EVERY = 25
"""Steps between two checkpoints."""

AVERAGED = 0.98
"""Share of the averaged weights that a step leaves."""

WARM_UP, FINAL_RATE = 0.05, 0.03
"""Share of the steps with a rising rate; the last rate as a share of the highest."""

CALIBRATION_BATCHES = 24
"""From which BatchNorm takes its statistics in the end."""

CHANNELS_LAST = torch.channels_last

Progress = Callable[[int, int, float], None]
"""Called with the steps done, all steps, and the mean loss of late."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps with images of one side."""

    side: int
    batch: int
    steps: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one network learns.

    Attributes
    ----------
    name
        Of the network.
    build
        Makes the untrained network, in the random state that it finds.
    draw
        Random numbers, side and count → images and truth.
    loss
        What the network gave and the truth → a scalar.
    rate
        The highest learning rate.
    parent
        Network of the same architecture whose trained weights it starts from; empty: from noise.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[np.random.Generator, int, int], tuple[Tensor, tuple[Tensor, ...]]]
    loss: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    phases: tuple[Phase, ...]
    rate: float = 1.5e-3
    parent: str = ""

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase that a step lies in; the last one after all."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


def train(lesson: Lesson, seed: int, folder: Path, progress: Progress | None = None) -> nn.Module:
    """Train a network, or finish its training; returns it in eval mode.

    Parameters
    ----------
    folder
        Where the checkpoint `NAME.pt` lies; made if it is not there.

    Raises
    ------
    WeightsError
        When the checkpoint there is of another seed or of another plan; when its parent is not
        trained there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{lesson.name}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = lesson.build().train()
        if lesson.parent:
            network.load_state_dict(_trained(folder / f"{lesson.parent}.pt"))
        network.to(memory_format=CHANNELS_LAST)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lesson.rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, functools.partial(_rate, steps=lesson.steps)
        )
        averaged = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED), use_buffers=True
        )
        parts = {"network": network, "optimizer": optimizer, "schedule": schedule,
                 "averaged": averaged}  # fmt: skip
        done = _resume(path, parts, lesson, seed)
        recent = 1.0
        for step in range(done, lesson.steps):
            phase = lesson.phase(step)
            torch.manual_seed(seed * 1_000_003 + step)
            images, truth = lesson.draw(
                np.random.default_rng([seed, step]), phase.side, phase.batch
            )
            loss = lesson.loss(network(images.to(memory_format=CHANNELS_LAST)), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
            recent += (float(loss.detach()) - recent) * (1 if step == done else 0.05)
            if (step + 1) % KEEP_EVERY == 0 or step + 1 == lesson.steps:
                _keep(path, parts, step + 1, lesson, seed)
            if progress is not None:
                progress(step + 1, lesson.steps, recent)
        return _settled(averaged.module, lesson, seed)


def _rate(step: int, *, steps: int) -> float:
    """Rise, then a cosine."""
    warm = max(1, int(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, steps - warm)
    return FINAL_RATE + (1 - FINAL_RATE) * (1 + float(np.cos(np.pi * min(1.0, along)))) / 2


@torch.no_grad()
def _settled(network: nn.Module, lesson: Lesson, seed: int) -> nn.Module:
    """Give BatchNorm the statistics of the last phase's images; averaged weights shift them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    phase = lesson.phases[-1]
    for k in range(CALIBRATION_BATCHES):
        images, _ = lesson.draw(np.random.default_rng([seed, k, 2]), phase.side, phase.batch)
        network(images.to(memory_format=CHANNELS_LAST))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    whole: Any = network.eval()
    whole.to(memory_format=torch.contiguous_format)
    return network


def _plan(lesson: Lesson, seed: int) -> dict[str, Any]:
    phases = [[p.side, p.batch, p.steps] for p in lesson.phases]
    return {
        "network": lesson.name, "seed": seed, "phases": phases, "rate": lesson.rate,
        "parent": lesson.parent,
    }  # fmt: skip


def _keep(path: Path, parts: dict[str, Any], step: int, lesson: Lesson, seed: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    staged = path.with_suffix(".part")
    torch.save({"step": step, "plan": _plan(lesson, seed), **state}, staged)
    staged.replace(path)


def _trained(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a finished training."""
    found = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
    if found is None or found["step"] < sum(steps for *_, steps in found["plan"]["phases"]):
        raise WeightsError(f"{path.stem} is not trained in {path.parent}; train it first")
    averaged = found["averaged"].items()
    return {name[len("module.") :]: t for name, t in averaged if name.startswith("module.")}


def _resume(path: Path, parts: dict[str, Any], lesson: Lesson, seed: int) -> int:
    """Load a checkpoint, when there is one; the steps that it has done."""
    if not path.is_file():
        return 0
    found = torch.load(path, map_location="cpu", weights_only=True)
    if found["plan"] != _plan(lesson, seed):
        raise WeightsError(
            f"{path} is a training of {found['plan']}, not of {_plan(lesson, seed)}; give another "
            "folder, or remove the file"
        )
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return int(found["step"])
