"""COVID-MTL: seconds per study by stage, and the published procedure beside it.

Studies of a generated DICOM series through Triton, with the features computed by the client and by
the server in turns, and in turns with the published procedure on the same series and weights.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.server.launcher import TritonServer

from .beside import PUBLISHED, precision_of
from .covid_mtl_published import Procedure, Published
from .covid_mtl_study import CLIENT, SERVER, Outcome, Studies, write_phantom
from .instrument.machine import machine
from .instrument.record import Deviation, Lane, Record, new_record
from .instrument.variant import timed
from .memory import SessionMemory, apart
from .runs import Progress, exported

SEED = 7

LEAST_SCALE = 0.15
"""A smaller phantom has no lungs worth the name."""

QUICK_SCALE = 0.35
"""Of a run that takes about a minute."""

SAME = 0.05
"""Probabilities of the same network, in whatever precision, differ by less."""

TITLES = {
    "read": "read the series", "resample": "resample to 1 mm",
    "lungs": "lungs: thresholds and active contours", "box": "common box",
    "features": "375 radiomic features", "network": "network, the way there and back included",
}  # fmt: skip
"""Stages by the pipeline's names, in their order."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    scale
        Of the body's sizes, in voxels of the same size; 1 is an adult.
    published
        Whether the published procedure is measured, too.
    """

    scale: float = 1.0
    rounds: int = 1
    repository: Path | None = None
    weights: str = "random"
    published: bool = True

    def __post_init__(self) -> None:
        if not LEAST_SCALE <= self.scale <= 1:
            raise InputError(f"a scale of {self.scale:g}; give {LEAST_SCALE} to 1")

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = [f"hilum bench covid-mtl --scale {self.scale:g} --rounds {self.rounds}"]
        words += ["--no-published"] * (not self.published)
        return " ".join([*words, f"--weights {self.weights}"])


@dataclass(slots=True)
class _Found:
    """What was measured by turns, and what ran.

    Attributes
    ----------
    series
        The DICOM series in words.
    memory
        Of the server.
    ours
        Studies by who computed the features.
    """

    series: str
    precision: str
    memory: SessionMemory
    ours: dict[str, list[Outcome]] = field(default_factory=lambda: {CLIENT: [], SERVER: []})
    published: list[Published] = field(default_factory=list)
    server: Mapping[str, Any] = field(default_factory=dict)


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what the plan says."""
    before, names = machine(), [catalog.DUAL.name]
    with exported(catalog.SYSTEM, names, plan.repository, plan.weights, progress) as folder:
        found = _measure(plan, folder, progress)
    tables = {"stages": tuple(_stages(found)), "memory": tuple(_memory(found))}
    if found.published:
        tables["answers"] = tuple(
            {"features_by": placement, **compare(own[-1], found.published[-1])}
            for placement, own in found.ours.items()
        )
    return new_record(
        "covid-mtl", "COVID-MTL beside its published procedure", plan.command, before,
        server=found.server, lanes=tuple(_lanes(plan, found)), tables=tables,
        notes=tuple(_notes(plan, found)),
    )  # fmt: skip


def _measure(plan: Plan, repository: Path, progress: Progress) -> _Found:
    models = [catalog.ENSEMBLE.model, catalog.SERVER_ENSEMBLE.model]
    with (
        tempfile.TemporaryDirectory(prefix="hilum-bench-") as name,
        TritonServer(repository, models=models, grace=0) as server,
    ):
        progress("generate a DICOM series")
        series = Path(name)
        described = write_phantom(series, plan.scale, SEED)
        precision = precision_of(repository, catalog.DUAL.model)
        found = _Found(described, precision, SessionMemory(server.pid or 0))
        with found.memory, apart(Studies, server.grpc_url, series) as studies:
            for number in range(1, plan.rounds + 1):
                for placement, own in found.ours.items():
                    progress(f"round {number}/{plan.rounds}: features by the {placement}")
                    own.append(studies.one(placement))
                if plan.published:
                    progress(f"round {number}/{plan.rounds}: the published procedure")
                    with apart(Procedure, plan.weights, published_box(plan.scale)) as procedure:
                        found.published.append(procedure.run(series))
        with Client(server.grpc_url) as client:
            found.server = client.describe()
    return found


def published_box(scale: float) -> tuple[int, int, int]:
    """The common box of the published procedure for a smaller body: smaller, too, and even."""
    if scale == 1:
        return catalog.CROP
    z, y, x = (2 * round(n * scale / 2) for n in catalog.CROP)
    return z, y, x


def _lanes(plan: Plan, found: _Found) -> Iterator[Lane]:
    for placement, own in found.ours.items():
        apart = None
        if found.published:
            checks = compare(own[-1], found.published[-1])
            apart = Deviation(
                checks["probabilities"], checks["mask_differing"], found.published[-1].mask.size,
                PUBLISHED,
            )  # fmt: skip
        yield timed(
            f"features by the {placement}", "covid-mtl", [m.seconds["total"] for m in own],
            weights=plan.weights, transport=own[-1].transport, precision=found.precision,
            deviation=apart,
        )  # fmt: skip
    if found.published:
        seconds = [sum(p.seconds.values()) for p in found.published]
        yield timed(PUBLISHED, "covid-mtl", seconds, weights=plan.weights)


def _stages(found: _Found) -> Iterator[Row]:
    """Seconds by stage, medians over the rounds; the last row is the whole study."""
    for name, title in [*TITLES.items(), ("total", "whole study")]:
        own = {p: [_seconds(m, name) for m in ms] for p, ms in found.ours.items()}
        row: Row = {"stage": name, "what": title}
        row |= {f"{p}_seconds": _median(seconds) for p, seconds in own.items()}
        if found.published:
            theirs = [_seconds(p, name) for p in found.published]
            row["published_seconds"] = _median(theirs)
            row["times_faster"] = _median(b / a for a, b in zip(own[CLIENT], theirs, strict=True))
        yield row


def _seconds(study: Outcome | Published, stage: str) -> float:
    """Of a stage; features that the server computes are part of the request."""
    if stage == "total" and isinstance(study, Published):
        return sum(study.seconds.values())
    return study.seconds.get(stage, 0.0)


def _memory(found: _Found) -> list[Row]:
    sizes = {
        "client and its processes, sum of what each had at most": max(
            m.peak_bytes for own in found.ours.values() for m in own
        ),
        "server, at most (sampled; shared pages count once)": found.memory.sampled_peak,
        "server, sum of what each process had at most": found.memory.upper_bound,
    }
    if found.published:
        sizes["published procedure"] = max(p.peak_bytes for p in found.published)
    return [{"what": what, "bytes": size} for what, size in sizes.items()]


def compare(ours: Outcome, other: Published) -> Row:
    """Tell how far answers are apart."""
    return {
        "mask_voxels": int(np.count_nonzero(other.mask)),
        "mask_differing": int(np.count_nonzero(ours.mask != other.mask)),
        "features": relative_difference(ours.features, other.features),
        "probabilities": max(
            float(np.abs(ours.probabilities[n] - p).max()) for n, p in other.probabilities.items()
        ),
    }


def relative_difference(ours: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest relative difference of features; infinite where only one could be computed."""
    unknown = np.isnan(other)
    if (np.isnan(ours) != unknown).any():
        return float("inf")
    away = np.abs(ours - other)[~unknown]
    scale = np.maximum(np.abs(other[~unknown]), np.finfo(np.float64).tiny)
    return float((away / scale).max())


def _notes(plan: Plan, found: _Found) -> Iterator[str]:
    last = found.ours[CLIENT][-1]
    shape = " × ".join(str(n) for n in last.mask.shape)
    yield (
        f"{found.series}, a generated DICOM series in the page cache: {shape} voxels of 1 mm, "
        f"{np.count_nonzero(last.mask)} of lung. Flags of the result: "
        f"{', '.join(last.flags) or 'none'}; {last.clipped} features limited, {last.replaced} "
        "replaced."
    )
    if plan.scale != 1:
        yield (
            f"Not the full size: the phantom's body has {plan.scale:g} of an adult's height, width "
            "and depth, and the box in which the published procedure computes the features "
            "shrinks with it; that of the networks does not."
        )
    if not found.published:
        return
    yield (
        "The published procedure: one process, slices refined one after another, SciPy's zoom, "
        "PyRadiomics on the whole common box with a wavelet transform for each of two passes, "
        f"PyTorch eager on {found.published[-1].threads} thread(s). To compare probabilities, both "
        "limit the features to the same range. The deviation is that of probabilities; decisions "
        "are voxels of the lungs."
    )
    checks = [compare(own[-1], found.published[-1]) for own in found.ours.values()]
    if max(check["probabilities"] for check in checks) > SAME:
        yield (
            "OTHER WEIGHTS: the repository does not serve the network that the published "
            "procedure ran, so the probabilities say nothing; export it again, or leave out "
            "--repository."
        )


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))
