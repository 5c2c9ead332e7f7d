"""DLPE: where a study's time goes, the published procedure beside it, stage one at 512³, the steps.

Four parts, each of which can be left out: (1) studies of a DICOM series through Triton; (2) the
published procedure on the same normalised volume with the same weights, in turns with the studies;
(3) stage one in one direction at the published grid, through Triton and through ONNX Runtime in
process; (4) the steps between the networks at the published grid.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from ..catalog import dlpe as catalog
from ..catalog.dlpe import Direction
from ..catalog.errors import InputError
from ..client import Client
from ..client.pipelines import PIPELINES
from ..client.pipelines.dlpe_options import Options
from ..preprocessing.dlpe_grid import check_side
from ..preprocessing.dlpe_space import normalise
from ..preprocessing.phantom_ct import chest_ct
from ..preprocessing.phantom_ct_dicom import write_dicom_series
from ..preprocessing.series import open_series
from ..server.launcher import TritonServer
from . import dlpe_published, dlpe_stage_one, dlpe_steps
from .dlpe_published import Published
from .dlpe_study import Measured, Study
from .dlpe_waterfall import NETWORK_STAGES, NORMALISE, TITLES, Run, statistics_of, waterfall
from .instrument.machine import hardware
from .memory import SessionMemory
from .processes import apart
from .runs import Progress, exported, versions

SEED = 7

MOST_PIXELS, MOST_SLICES = 512, 240
"""Of the phantom series: a usual scan. For grids below 128 it shrinks with the grid."""

LEAST_SIDE = 64
"""In parts 3 and 4: the phantom has half of it at least."""

LONGEST_BLOCK = 96
"""Side of the cube that the direct implementation of part 4 refines."""


Procedure = Callable[[], Published]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    grid
        Voxels along each side of normalised space in parts 1 and 2.
    study, published, stage_one, steps
        Whether parts 1 to 4 are measured; part 2 needs part 1.
    direction, slices
        Of part 3; fewer slices than there are give a quick look.
    side
        Voxels along each side in parts 3 and 4.
    """

    grid: int = 128
    rounds: int = 3
    repository: Path | None = None
    weights: str = "random"
    study: bool = True
    published: bool = True
    stage_one: bool = True
    direction: Direction = "z"
    slices: int = catalog.SIDE
    steps: bool = True
    side: int = catalog.SIDE

    def __post_init__(self) -> None:
        check_side(self.grid)
        check_side(self.side)
        if self.side < LEAST_SIDE:
            raise InputError(f"a side of {self.side}: give {LEAST_SIDE} or more")
        if self.direction not in catalog.DIRECTIONS:
            raise InputError(f"no direction {self.direction!r}; choose x, y or z")
        if not (self.study or self.stage_one or self.steps):
            raise InputError("nothing is left to measure: choose study, stage one or steps")

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = ["hilum bench dlpe"]
        if self.study:
            words.append(f"--grid {self.grid} --rounds {self.rounds}")
        parts = {
            "study": self.study,
            "published": self.published or not self.study,
            "stage-one": self.stage_one,
            "steps": self.steps,
        }
        words += [f"--no-{name}" for name, wanted in parts.items() if not wanted]
        if self.stage_one:
            words.append(f"--direction {self.direction} --slices {self.slices}")
        if self.stage_one or self.steps:
            words.append(f"--side {self.side}")
        return " ".join([*words, f"--weights {self.weights}"])


@dataclass(slots=True)
class _Rounds:
    """What was measured by turns, and what is to be told about series and server."""

    runs: list[Run] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def measure(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Measure what the plan says.

    Returns
    -------
    dict
        The report, ready for JSON; parts that were left out are None.

    Raises
    ------
    InputError
        When the networks find no lungs in the phantom, so that nothing can be compared.
    """
    load = os.getloadavg()[0]
    parts: dict[str, Any] = dict.fromkeys(("study", "published", "stage_one", "steps"))
    rounds = None
    if plan.study or plan.stage_one:
        names = _networks(plan)
        with exported(catalog.SYSTEM, names, plan.repository, plan.weights, progress) as folder:
            if plan.stage_one:
                parts["stage_one"] = dlpe_stage_one.measure(
                    folder, side=plan.side, direction=plan.direction, slices=plan.slices,
                    progress=progress,
                )  # fmt: skip
            if plan.study:
                rounds = _studies(plan, folder, progress)
    if plan.steps:  # last, for this process keeps the memory that it takes
        block = min(LONGEST_BLOCK, plan.side // 2)
        parts["steps"] = dlpe_steps.measure(plan.side, SEED, block=block, progress=progress)
    if rounds is not None:
        at_512 = _steps_at_512(parts["steps"])
        parts["study"] = waterfall(rounds.runs, plan.grid, at_512) | rounds.about
        parts["study"] |= _at_512(parts["study"], parts["stage_one"], plan)
        if rounds.published:
            studies = [run.study for run in rounds.runs]
            parts["published"] = _compare(studies, rounds.published, plan.grid)
    figures = [f for f in catalog.SYSTEM.published if f.quantity == "time per scan"]
    return {
        "title": catalog.SYSTEM.title,
        "command": plan.command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_before": load,
        "versions": versions() | {"numpy": np.__version__, "scipy": scipy.__version__},
        "weights": plan.weights,
        "grid": plan.grid,
        "rounds": plan.rounds,
        "documented": [asdict(figure) for figure in figures],
        **parts,
    }


def _networks(plan: Plan) -> list[str]:
    """Names of the networks that the parts need."""
    by_model = {n.model: n.name for n in catalog.SYSTEM.networks}
    models: list[str] = []
    if plan.study:
        models += PIPELINES["dlpe"].networks(Options(grid=plan.grid))
    if plan.stage_one:
        ensemble = catalog.ENSEMBLES["stage1", plan.direction]
        models += [call.target.model for call in ensemble.calls]
    return [by_model[m] for m in dict.fromkeys(models)]


def _steps_at_512(steps: Mapping[str, Any] | None) -> dict[str, float]:
    """Stages of a study that part 4 measured at the published grid."""
    if steps is None or steps["side"] != catalog.SIDE:
        return {}
    rows = {row["step"]: row["seconds"] for row in steps["rows"]}
    return {"enhancement": rows[dlpe_steps.ENHANCEMENT]}


def _at_512(
    study: Mapping[str, Any], stage_one: Mapping[str, Any] | None, plan: Plan
) -> dict[str, float]:
    """Seconds of the networks of a scan at 512³ by what one slice of 512 × 512 took in part 3."""
    if stage_one is None or plan.side != catalog.SIDE:
        return {}
    passes = study["counts"]["passes"] * catalog.SIDE / plan.grid
    return {"networks_at_512_by_stage_one": passes * stage_one["seconds_per_pass"]}


def _studies(plan: Plan, repository: Path, progress: Progress) -> _Rounds:
    """Parts 1 and 2, by turns."""
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        described = _write_series(plan.grid, folder / "series", progress)
        procedure = None
        if plan.published:
            procedure = _procedure(plan, repository, folder / "series", progress)
        rounds = _rounds(plan, repository, folder, procedure, progress)
    rounds.about["series"] = described
    return rounds


def _procedure(plan: Plan, repository: Path, series: Path, progress: Progress) -> Procedure:
    """The published procedure, ready to run on what the studies make of the series."""
    progress("load the networks in PyTorch")
    networks = dlpe_published.load(plan.weights)
    dlpe_published.check_same(networks, repository, plan.weights)
    dlpe_published.warm_up(networks, plan.grid)
    options = Options(grid=plan.grid)
    ct = normalise(open_series(series), options.mode, plan.grid).voxels

    def run() -> Published:
        return dlpe_published.run(ct, networks, options.limits(plan.grid), progress)

    return run


def _rounds(
    plan: Plan, repository: Path, folder: Path, procedure: Procedure | None, progress: Progress
) -> _Rounds:
    pipeline, options = PIPELINES["dlpe"], Options(grid=plan.grid)
    models = pipeline.models(options)
    counted = {*models, *pipeline.networks(options)}
    rounds = _Rounds()
    with (
        TritonServer(repository, models=models, grace=0) as server,
        Client(server.grpc_url, transport="grpc") as client,
    ):
        memory = SessionMemory(server.pid or 0)
        for number in range(1, plan.rounds + 1):
            progress(f"round {number}/{plan.rounds}: Hilum")
            before = statistics_of(client, counted)
            with memory, apart(Study, server.grpc_url, folder / "series", plan.grid) as study:
                measured = study.run(folder / f"results-{number}")
            rounds.runs.append(Run(measured, before, statistics_of(client, counted)))
            if procedure is not None:
                _check_comparable(measured, plan.grid)
                progress(f"round {number}/{plan.rounds}: the published procedure")
                rounds.published.append(procedure())
        rounds.about |= {"server": client.describe(), "server_memory": memory.report()}
    return rounds


def _write_series(grid: int, folder: Path, progress: Progress) -> str:
    """Write the phantom as a DICOM series; what it is in words."""
    size, slices = min(MOST_PIXELS, 4 * grid), min(MOST_SLICES, 2 * grid)
    progress(f"generate a series of {slices} slices of {size} × {size}")
    write_dicom_series(chest_ct(SEED, slices=slices, size=size).volume, folder)
    return open_series(folder).description


def _check_comparable(measured: Measured, grid: int) -> None:
    if np.isnan(measured.level) or "few_samples" in measured.flags:
        raise InputError(
            f"on a grid of {grid} these networks find too little in the phantom "
            f"({', '.join(measured.flags)}), where the published procedure ends with an error; "
            "take a larger --grid or other --weights, or leave it out with --no-published"
        )


def _compare(ours: Sequence[Measured], others: Sequence[Published], grid: int) -> dict[str, Any]:
    """The published procedure beside the studies, from the normalised volume to the masks."""
    own = [study.seconds - study.timings[NORMALISE] for study in ours]
    totals = [sum(other.timings.values()) for other in others]
    stages = []
    for name in others[-1].timings:
        pairs = [(s.timings[name], o.timings[name]) for s, o in zip(ours, others, strict=True)]
        stages.append(
            {
                "stage": name,
                "title": TITLES.get(name, name),
                "seconds": statistics.median(a for a, _ in pairs),
                "published_seconds": statistics.median(b for _, b in pairs),
                "ratio": statistics.median(b / a for a, b in pairs),
            }
        )
    per_pass = [_per_pass(s, o) for s, o in zip(ours, others, strict=True)]
    last, other = ours[-1], others[-1]
    return {
        "seconds": own,
        "published_seconds": totals,
        "ratio": statistics.median(b / a for a, b in zip(own, totals, strict=True)),
        "ratio_per_pass": statistics.median(per_pass),
        "stages": stages,
        "threads": other.threads,
        "passes": last.counts["passes"],
        "published_passes": other.passes,
        "published_seconds_at_512": statistics.median(totals) * (catalog.SIDE / grid) ** 3,
        "masks": [
            {
                "mask": name,
                "voxels": int(np.count_nonzero(mask)),
                "differing": int(np.count_nonzero(mask != last.masks[name])),
            }
            for name, mask in other.masks.items()
        ],
        "level": [last.level, other.level],
        "width": [last.width, other.width],
    }


def _per_pass(ours: Measured, other: Published) -> float:
    """Ratio of the seconds of one slice through one network."""
    own = sum(ours.timings[n] for n in NETWORK_STAGES) / ours.counts["passes"]
    theirs = sum(other.timings[n] for n in NETWORK_STAGES) / other.passes
    return theirs / own
