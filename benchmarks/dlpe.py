"""DLPE: where a study's time goes, and the published procedure beside it.

Studies of a generated DICOM series through Triton, in turns with the published procedure on the
same normalised volume with the same weights.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.client.registry import INSTALLED
from hilum.preprocessing.dlpe.grid import check_side
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe.options import Options

from . import dlpe_published
from .beside import PUBLISHED, precision_of
from .dlpe_published import Published
from .dlpe_study import Outcome, Study
from .figures import figure_of
from .instrument.counters import added, gained, settled
from .instrument.machine import machine
from .instrument.record import Counters, Deviation, Lane, Machine, Record, new_record
from .instrument.variant import timed
from .memory import SessionMemory, apart
from .runs import Progress, exported
from .systems.dlpe import CPU_MEMORY, SCAN_TIME, smaller_grid
from .target_rows import Measured

SEED = 7

MOST_PIXELS, MOST_SLICES = 512, 240
"""Of the phantom series: a usual scan. For grids below 128 it shrinks with the grid."""

NORMALISE = "normalise"

NETWORK_STAGES = ("stage_one", "stage_two", "lesions", "visible_lesions")

TITLES = {
    NORMALISE: "read and normalise", "stage_one": "stage one: lungs, airways, vessels",
    "masks": "masks of sums and final ranks", "ranks": "rank thresholds and channels of stage two",
    "stage_two": "stage two: airways, vessels",
    "enhancement": "enhancement, tube extension included",
    "lesions": "lesions on the enhanced volume", "visible_lesions": "visible lesions",
    "other": "the rest: questions to the server, the result put together",
    "write files": "write volumes (NIfTI) and the windowed series",
    "write pictures": "write panels and montages",
}  # fmt: skip
"""Stages that the record describes in words."""

Row = dict[str, Any]

Procedure = Callable[[], Published]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    grid
        Voxels along each side of normalised space.
    published
        Whether the published procedure is measured, too.
    """

    grid: int = 128
    rounds: int = 3
    repository: Path | None = None
    weights: str = "random"
    published: bool = True

    def __post_init__(self) -> None:
        check_side(self.grid)

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = [f"hilum bench dlpe --grid {self.grid} --rounds {self.rounds}"]
        words += ["--no-published"] * (not self.published)
        return " ".join([*words, f"--weights {self.weights}"])


@dataclass(slots=True)
class _Rounds:
    """What was measured by turns, and what ran.

    Attributes
    ----------
    series
        The DICOM series in words.
    memory
        Of the server.
    counters
        What the server counted over all studies, by model.
    """

    series: str
    precision: str
    memory: SessionMemory
    server: Mapping[str, Any]
    studies: list[Outcome] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    counters: dict[str, Counters] = field(default_factory=dict)


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says.

    Raises
    ------
    InputError
        When the networks find no lungs in the phantom, so that nothing can be compared.
    """
    before, by_model = machine(), {n.model: n.name for n in catalog.SYSTEM.networks}
    names = [by_model[m] for m in INSTALLED["dlpe"].networks(Options(grid=plan.grid))]
    with (
        exported(catalog.SYSTEM, names, plan.repository, plan.weights, progress) as repository,
        tempfile.TemporaryDirectory(prefix="hilum-bench-") as name,
    ):
        rounds = _measure(plan, repository, Path(name), progress)
    found = _tables(rounds)
    found["measured"] = [asdict(m) for m in _measured(plan, rounds, found["stages"], before)]
    return new_record(
        "dlpe", "DLPE beside its published procedure", plan.command, before, server=rounds.server,
        lanes=tuple(_lanes(plan, rounds)),
        tables={title: tuple(rows) for title, rows in found.items()}, notes=tuple(_notes(rounds)),
    )  # fmt: skip


def _measure(plan: Plan, repository: Path, folder: Path, progress: Progress) -> _Rounds:
    series, procedure = folder / "series", None
    size, slices = min(MOST_PIXELS, 4 * plan.grid), min(MOST_SLICES, 2 * plan.grid)
    progress(f"generate a series of {slices} slices of {size} × {size}")
    write_dicom_series(chest_ct(SEED, slices=slices, size=size).volume, series)
    if plan.published:
        procedure = _procedure(plan, repository, series, progress)
    pipeline, options = INSTALLED["dlpe"], Options(grid=plan.grid)
    networks = pipeline.networks(options)
    with (
        TritonServer(repository, models=pipeline.models(options), grace=0) as server,
        Client(server.grpc_url, transport="grpc") as client,
    ):
        rounds = _Rounds(
            open_series(series).description,
            precision_of(repository, networks[0]),
            SessionMemory(server.pid or 0),
            client.describe(),
        )
        for number in range(1, plan.rounds + 1):
            progress(f"round {number}/{plan.rounds}: Hilum")
            before = settled(client, networks)
            with rounds.memory, apart(Study, server.grpc_url, series, plan.grid) as study:
                rounds.studies.append(study.run(folder / f"results-{number}"))
            more = gained(before, settled(client, networks)) or {}
            rounds.counters = added(rounds.counters, more)
            if procedure is not None:
                _check_comparable(rounds.studies[-1], plan.grid)
                progress(f"round {number}/{plan.rounds}: the published procedure")
                rounds.published.append(procedure())
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


def _check_comparable(found: Outcome, grid: int) -> None:
    if np.isnan(found.level) or "few_samples" in found.flags:
        raise InputError(
            f"on a grid of {grid} these networks find too little in the phantom "
            f"({', '.join(found.flags)}), where the published procedure ends with an error; "
            "take a larger --grid or other --weights, or leave it out with --no-published"
        )


def stage_seconds(study: Outcome) -> dict[str, float]:
    """All stages of a study from reading to writing, in order."""
    found = dict(study.timings)
    # What the stages do not name: the result put together, minima and maxima.
    found["other"] = max(study.seconds - sum(found.values()), 0.0)
    return found | study.write_s


def _lanes(plan: Plan, rounds: _Rounds) -> Iterator[Lane]:
    studies, others = rounds.studies, rounds.published

    def ours(part: str, seconds: Sequence[float], apart: Deviation | None = None) -> Lane:
        return timed(
            f"grid {plan.grid}³: Hilum, {part}", "dlpe", seconds, weights=plan.weights,
            transport=studies[-1].transport, precision=rounds.precision, deviation=apart,
            counters=rounds.counters,
        )  # fmt: skip

    yield ours("from series to result", [study.seconds for study in studies])
    if others:
        last, other = studies[-1], others[-1]
        differing = sum(int((m != last.masks[n]).sum()) for n, m in other.masks.items())
        of = sum(mask.size for mask in other.masks.values())
        part = "from normalised volume to masks"
        own = [study.seconds - study.timings[NORMALISE] for study in studies]
        yield ours(part, own, Deviation(abs(last.level - other.level), differing, of, PUBLISHED))
        theirs = [sum(one.timings.values()) for one in others]
        name = f"grid {plan.grid}³: {PUBLISHED}, {part}"
        yield timed(name, "dlpe", theirs, weights=plan.weights)


def _tables(rounds: _Rounds) -> dict[str, list[Row]]:
    """Where the time of a study goes; beside the published procedure where it was measured."""
    studies, others = rounds.studies, rounds.published
    found = [stage_seconds(study) for study in studies]
    seconds = {name: statistics.median(s[name] for s in found) for name in found[-1]}
    rows: list[Row] = []
    for name, own in seconds.items():
        row: Row = {"stage": name, "what": TITLES.get(name, name), "seconds": own}
        row["share"] = own / sum(seconds.values())
        if others and name in others[-1].timings:
            theirs = [o.timings[name] for o in others]
            row["published_seconds"] = statistics.median(theirs)
            row["times_faster"] = _ratio([s[name] for s in found], theirs)
        rows.append(row)
    tables = {"stages": rows, "memory": _memory(rounds)}
    if others:
        last, other = studies[-1], others[-1]
        tables["masks"] = [
            {
                "mask": name,
                "voxels": int(np.count_nonzero(mask)),
                "differing": int(np.count_nonzero(mask != last.masks[name])),
            }
            for name, mask in other.masks.items()
        ]
        tables["beside"] = [_beside(studies, others)]
    return tables


def _memory(rounds: _Rounds) -> list[Row]:
    sizes = {
        "client, before a study": max(s.start_bytes for s in rounds.studies),
        "client, at most": max(s.peak_bytes for s in rounds.studies),
        "server, at most (sampled; shared pages count once)": rounds.memory.sampled_peak,
        "server, sum of what each process had at most": rounds.memory.upper_bound,
    }
    return [{"what": what, "bytes": size} for what, size in sizes.items()]


def _beside(studies: Sequence[Outcome], others: Sequence[Published]) -> Row:
    last, other = studies[-1], others[-1]
    own = [study.seconds - study.timings[NORMALISE] for study in studies]
    per_pass = [sum(s.timings[n] for n in NETWORK_STAGES) / s.counts["passes"] for s in studies]
    theirs = [sum(o.timings[n] for n in NETWORK_STAGES) / o.passes for o in others]
    return {
        "times_faster": _ratio(own, [sum(o.timings.values()) for o in others]),
        "times_faster_per_pass": _ratio(per_pass, theirs), "passes": last.counts["passes"],
        "published_passes": other.passes, "level_hu": last.level, "published_level_hu": other.level,
        "width_hu": last.width, "published_width_hu": other.width,
    }  # fmt: skip


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times longer theirs take, the median over rounds."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def _measured(
    plan: Plan, rounds: _Rounds, stages: Sequence[Row], before: Machine
) -> Iterator[Measured]:
    """What the run says of documented figures."""
    minutes = sum(row["seconds"] for row in stages) / 60
    held = max(s.peak_bytes for s in rounds.studies) + rounds.memory.sampled_peak
    for quantity, value, unit in ((SCAN_TIME, minutes, "min"), (CPU_MEMORY, held / 1e9, "GB")):
        yield figure_of(
            before, "dlpe", quantity, value, unit, f"{rounds.series}; a grid of {plan.grid}³",
            limits=smaller_grid(plan.grid), command=plan.command, weights=plan.weights,
            precision=rounds.precision,
        )  # fmt: skip


def _notes(rounds: _Rounds) -> Iterator[str]:
    last = rounds.studies[-1]
    counts = last.counts
    reading = statistics.median(study.read_s for study in rounds.studies)
    yield (
        f"The study is a generated DICOM series in the page cache: {rounds.series}. "
        f"{counts['passes']} of {counts['published_passes']} passes of networks, "
        f"{counts['slabs']} slabs, at most {counts['most_in_flight']} in flight; "
        f"{counts['bytes_sent'] / 1e6:.0f} MB sent, {counts['bytes_received'] / 1e6:.0f} MB "
        f"received, {last.written_bytes / 1e6:.0f} MB written. Reading alone, slice after slice, "
        f"takes {reading:.2f} s."
    )
    if last.flags:
        yield f"Flags of the result: {', '.join(last.flags)}."
    if rounds.published:
        yield (
            f"The published procedure: PyTorch eager on {rounds.published[-1].threads} threads "
            "(the faster of one and all cores), one direction after the other, batch 4, full "
            "sorts, pixels one by one; tube extension in one process (the published program uses "
            "32). The same normalised volume and weights, in turns with the studies. The deviation "
            "is that of the window's level in HU; decisions are the voxels of all masks."
        )
