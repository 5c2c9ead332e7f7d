"""From a system's name to trained, measured and published reference weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hilum.catalog import SYSTEMS
from hilum.catalog import dlpe as dlpe_catalog
from hilum.catalog.errors import InputError
from hilum.export.recipes import recipe
from hilum.export.reference import FOLDER, load_reference, reference_networks

from . import cards, cts, cxr_severity, dlpe, measure_cts, measure_xrays, open_xrays, xrays
from .loop import CHANNELS_LAST, Lesson, Phase, train
from .publish import publish, write_page

POOL = 360
"""Synthetic X-rays to learn from; each is seen differently every time."""

CHESTS = {128: 20, 256: 8}
"""Synthetic chest CTs to learn from, by the side of their grid."""

SYSTEM_NAMES = ("cxr-severity", "dlpe")

Say = Callable[[str, int, int, str], None]
"""Called with what is being done, how far it is, and a remark."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of `hilum train`.

    Attributes
    ----------
    system
        Name of the system.
    networks
        Names of the networks; empty: all that have a lesson.
    out
        Folder of checkpoints, by which a training goes on.
    public
        Folder of the public X-rays; None: synthetic ones only.
    publish
        Where weights and cards go, as `export.reference` reads them.
    small
        Few steps on small images: to see that everything works.
    """

    system: str
    out: Path
    networks: Sequence[str] = ()
    public: Path | None = None
    publish: Path = FOLDER
    seed: int = 1
    small: bool = False

    @property
    def command(self) -> str:
        """What was called, without folders of this machine."""
        public = "" if self.public is None else " --public-xrays FOLDER"
        return f"hilum train {self.system}{public} --seed {self.seed} --out DIR"


def networks_of(system: str) -> list[str]:
    """Networks that there are lessons for, in the order of training."""
    if system == "cxr-severity":
        return list(cxr_severity.NETWORKS)
    if system == "dlpe":
        return [f"{task}_{d}" for task in dlpe.TASKS for d in reversed(dlpe_catalog.DIRECTIONS)]
    raise InputError(f"nothing is trained for {system}; there are {', '.join(SYSTEM_NAMES)}")


def run(plan: Plan, say: Say) -> None:
    """Train, and publish each network as soon as it is trained.

    Raises
    ------
    InputError
        For a system or network that there is no lesson for, or public X-rays that are not there.
    """
    known = networks_of(plan.system)
    wanted = list(plan.networks) or known
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(
            f"nothing is trained as {', '.join(unknown)}; there are {', '.join(known)}"
        )
    for lesson in _lessons(plan, [n for n in known if n in wanted], say):
        core = train(
            lesson,
            plan.seed,
            plan.out,
            lambda done, steps, loss, name=lesson.name: say(name, done, steps, f"loss {loss:.3f}"),
        )
        _publish(plan, lesson, core)


def _publish(plan: Plan, lesson: Lesson, core: nn.Module) -> None:
    system = SYSTEMS[plan.system]
    network = system.network(lesson.name)
    about = cards.about(plan.system, lesson, plan.command, plan.seed)
    side = lesson.phases[-1].side
    example, _ = lesson.draw(np.random.default_rng(0), side, 1)
    publish(system, network, core, example, about, plan.publish)
    write_page(system, network, about, plan.publish)


def _lessons(plan: Plan, names: Sequence[str], say: Say) -> list[Lesson]:
    plan.out.mkdir(parents=True, exist_ok=True)
    if plan.system == "cxr-severity":
        made = _xray_lessons(plan, names, say)
    else:
        made = _ct_lessons(plan, names, say)
    return [_shortened(lesson) for lesson in made] if plan.small else made


def _xray_lessons(plan: Plan, names: Sequence[str], say: Say) -> list[Lesson]:
    count = 12 if plan.small else POOL
    kept = plan.out / f"xrays-{plan.seed}-{count}.npz"
    if not kept.is_file():
        pool = xrays.synthetic(plan.seed, count, lambda k, n: say("synthetic X-rays", k, n, ""))
        staged = kept.with_name("part.npz")
        np.savez(staged, pixels=pool.pixels, labels=pool.labels)
        staged.replace(kept)
    with np.load(kept) as arrays:
        pool = xrays.Xrays(arrays["pixels"], arrays["labels"])
    public = None if plan.public is None else open_xrays.read(plan.public, held_out=False)
    return [cxr_severity.lesson(n, cxr_severity.Material(pool, public)) for n in names]


def _ct_lessons(plan: Plan, names: Sequence[str], say: Say) -> list[Lesson]:
    chests = {}
    for number, (side, count) in enumerate({64: 2}.items() if plan.small else CHESTS.items()):
        chests[side] = _chests(plan, plan.seed + number, count, side, say)
    split = [name.rpartition("_") for name in names]
    phases = (Phase(64, 4, 1),) if plan.small else None
    return [dlpe.lesson(task, direction, chests, phases) for task, _, direction in split]


def _chests(plan: Plan, seed: int, count: int, side: int, say: Say) -> list[cts.Chest]:
    """Chests of a folder of checkpoints, made when they are not there."""
    kept = plan.out / f"chests-{seed}-{side}-{count}.npz"
    if not kept.is_file():
        made = cts.chests(
            seed, count, side, lambda k, n: say(f"synthetic chests of {side}³", k, n, "")
        )
        staged = kept.with_name("part.npz")
        hu, labels = np.stack([c.hu for c in made]), np.stack([c.labels for c in made])
        np.savez(staged, hu=hu, labels=labels, healthy=[c.healthy for c in made])
        staged.replace(kept)
    with np.load(kept) as arrays:
        rows = zip(arrays["hu"], arrays["labels"], arrays["healthy"], strict=True)
        return [cts.Chest(hu, labels, float(healthy)) for hu, labels, healthy in rows]


def _shortened(lesson: Lesson) -> Lesson:
    side = min(phase.side for phase in lesson.phases)
    return replace(lesson, phases=(Phase(min(side, 128), 4, 6),))


def measured(system: str, count: int, side: int, public: Path | None, say: Say) -> dict[str, str]:
    """Figures of the reference weights on images that they were not trained on.

    Parameters
    ----------
    count
        Synthetic X-rays, or chest CTs.
    side
        Of the grid of CTs.
    public
        Folder of the public X-rays, of which those held out are measured; None: none.
    """
    cores = {n: reference_core(system, n) for n in reference_networks(SYSTEMS[system])}
    if system == "cxr-severity":
        return _xray_figures(cores, count, public, say)
    levels, rows = list[float](), dict[str, list[float]]()
    for k in range(count):
        found = measure_cts.measure(
            k, side, cores, lambda part, k=k: say(f"chest {k + 1}", k, count, part)
        )
        levels.append(abs(found.level_error))
        for name, value in found.dice.items():
            rows.setdefault(name, []).append(value)
    figures = {f"Dice of {n}, mean (least)": f"{np.mean(v):.3f} ({min(v):.3f})"
               for n, v in rows.items()}  # fmt: skip
    off = f"{np.mean(levels):.1f} ({max(levels):.1f}) HU"
    return figures | {"window level off by, mean (most)": off}


def _xray_figures(
    cores: Mapping[str, nn.Module], count: int, public: Path | None, say: Say
) -> dict[str, str]:
    figures = dict[str, str]()
    made = measure_xrays.unseen(count, lambda k, n: say("generated X-rays", k, n, ""))
    for title, images in (("generated", made), ("generated, harder", measure_xrays.harder(made))):
        found = measure_xrays.measure(images, cores["lung"], cores.get("pspnet"))
        figures |= found.figures(title)
    if public is not None:
        held_out = open_xrays.read(public, held_out=True)
        figures |= measure_xrays.measure(held_out, cores["lung"]).figures("public, held out")
    return figures


def reference_core(system: str, network: str) -> nn.Module:
    """A network with its reference weights."""
    tensors, _ = load_reference(system, network)
    core = recipe(SYSTEMS[system]).build(SYSTEMS[system].network(network), tensors)
    core.load_state_dict(tensors)
    faster: Any = core
    faster.to(memory_format=CHANNELS_LAST)
    return core
