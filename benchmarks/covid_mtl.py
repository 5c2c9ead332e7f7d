"""COVID-MTL: seconds per study by stage, the published procedure, several studies, radiomics.

Four parts, each of which can be left out: (1) studies of a DICOM series through Triton, with the
features computed by the client and by the server in turns; (2) the published procedure on the same
series with the same weights, in turns with these; (3) several studies at once; (4) the radiomic
features of whole lungs at full size by both procedures (`radiomics`).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog import covid_mtl as catalog
from ..catalog.errors import InputError
from ..client import Client
from ..preprocessing.workers import cores
from ..server.launcher import TritonServer
from . import radiomics
from .covid_mtl_published import Procedure, Published
from .covid_mtl_study import CLIENT, SERVER, Measured, Studies, write_phantom
from .instrument.machine import hardware
from .memory import SessionMemory
from .processes import apart
from .runs import Progress, exported, versions

SEED = 7

LEAST_SCALE = 0.15
"""A smaller phantom has no lungs worth the name."""

QUICK_SCALE = 0.35
"""Of a run that takes about a minute."""

IN_FLIGHT = (1, 2)
"""Studies in work at once in part 3."""

STAGES = ("read", "resample", "lungs", "box", "features", "network")
"""In their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    scale
        Of the body's sizes, in voxels of the same size; 1 is an adult.
    rounds
        Of parts 1 and 2.
    study, published, radiomics
        Whether parts 1, 2 and 4 are measured; part 2 needs part 1.
    studies
        Of part 3, for each number in flight; 0 leaves it out, and so does leaving out part 1.
    """

    scale: float = 1.0
    rounds: int = 1
    repository: Path | None = None
    weights: str = "random"
    study: bool = True
    published: bool = True
    studies: int = 2
    radiomics: bool = True

    def __post_init__(self) -> None:
        if not LEAST_SCALE <= self.scale <= 1:
            raise InputError(f"a scale of {self.scale:g}; give {LEAST_SCALE} to 1")
        if not (self.study or self.radiomics):
            raise InputError("nothing is left to measure: choose study or radiomics")
        if self.studies == 1:
            raise InputError("one study has nothing to overlap with; give 2 or more, or 0")

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = [f"hilum bench covid-mtl --scale {self.scale:g}"]
        if self.study:
            words.append(f"--rounds {self.rounds} --studies {self.studies}")
        parts = {
            "study": self.study,
            "published": self.published or not self.study,
            "radiomics": self.radiomics,
        }
        words += [f"--no-{name}" for name, wanted in parts.items() if not wanted]
        return " ".join([*words, f"--weights {self.weights}"])


@dataclass(slots=True)
class _Found:
    """What was measured of studies, and what is to be told about series and server."""

    ours: dict[str, list[Measured]] = field(default_factory=lambda: {CLIENT: [], SERVER: []})
    published: list[Published] = field(default_factory=list)
    several: dict[int, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def measure(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Measure what the plan says.

    Returns
    -------
    dict
        The report, ready for JSON; parts that were left out are None.
    """
    load = os.getloadavg()[0]
    parts: dict[str, Any] = dict.fromkeys(("study", "published", "several", "radiomics"))
    if plan.study:
        names = [catalog.DUAL.name]
        with exported(catalog.SYSTEM, names, plan.repository, plan.weights, progress) as folder:
            found = _studies(plan, folder, progress)
        parts["study"] = _study(found) | found.about
        if found.published:
            parts["published"] = _beside(found)
        if found.several:
            parts["several"] = _several(found.several, plan.studies)
    if plan.radiomics:
        parts["radiomics"] = radiomics.measure(
            plan.scale, processes=sorted({1, cores()}), progress=progress
        )
    return {
        "title": catalog.SYSTEM.title,
        "command": plan.command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "versions": versions() | {"numpy": np.__version__},
        "weights": plan.weights,
        "scale": plan.scale,
        "rounds": plan.rounds,
        **parts,
    }


def _studies(plan: Plan, repository: Path, progress: Progress) -> _Found:
    """Parts 1 to 3."""
    found = _Found()
    models = [catalog.ENSEMBLE.model, catalog.SERVER_ENSEMBLE.model]
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        series = Path(name)
        progress("generate a DICOM series")
        found.about["series"] = write_phantom(series, plan.scale, SEED)
        with TritonServer(repository, models=models, grace=0) as server:
            memory = SessionMemory(server.pid or 0)
            with memory, apart(Studies, server.grpc_url, series) as studies:
                for number in range(1, plan.rounds + 1):
                    _round(plan, number, series, studies, found, progress)
                for in_flight in IN_FLIGHT if plan.studies else ():
                    progress(f"{plan.studies} studies, {in_flight} in flight")
                    found.several[in_flight] = studies.several(plan.studies, in_flight)
            with Client(server.grpc_url) as client:
                found.about |= {"server": client.describe(), "server_memory": memory.report()}
    return found


def _round(
    plan: Plan, number: int, series: Path, studies: Any, found: _Found, progress: Progress
) -> None:
    for placement, measured in found.ours.items():
        progress(f"round {number}/{plan.rounds}: Hilum, features by the {placement}")
        measured.append(studies.one(placement))
    if plan.published:
        progress(f"round {number}/{plan.rounds}: the published procedure")
        with apart(Procedure, plan.weights, published_box(plan.scale)) as procedure:
            found.published.append(procedure.run(series))


def published_box(scale: float) -> tuple[int, int, int]:
    """The common box of the published procedure for a smaller body: smaller, too, and even."""
    if scale == 1:
        return catalog.CROP
    z, y, x = (2 * round(n * scale / 2) for n in catalog.CROP)
    return z, y, x


def _study(found: _Found) -> dict[str, Any]:
    """Seconds by stage and placement: medians over the rounds."""
    rows = {}
    for placement, measured in found.ours.items():
        stages = {n: _median(m.seconds.get(n, 0.0) for m in measured) for n in STAGES}
        total = _median(m.seconds["total"] for m in measured)
        rest = total - sum(stages.values())
        rows[placement] = {"stages": stages, "rest": rest, "total": total}
    last = found.ours[CLIENT][-1]
    return {
        "placements": rows,
        "server_to_client": rows[SERVER]["total"] / rows[CLIENT]["total"],
        "shape": list(last.mask.shape),
        "lung_voxels": int(np.count_nonzero(last.mask)),
        "flags": list(last.flags),
        "replaced": last.replaced,
        "clipped": last.clipped,
        "transport": last.transport,
        "client_peak_bytes": last.peak_bytes,
    }


def _beside(found: _Found) -> dict[str, Any]:
    """The published procedure beside the studies, round by round."""
    totals = [sum(p.seconds.values()) for p in found.published]
    last = found.published[-1]
    ratios = {
        placement: _median(b / m.seconds["total"] for m, b in zip(measured, totals, strict=True))
        for placement, measured in found.ours.items()
    }
    stages = {
        name: {
            "seconds": _median(p.seconds[name] for p in found.published),
            "ratio": _stage_ratio(found, name),
        }
        for name in STAGES
    }
    return {
        "seconds": totals,
        "ratio": ratios,
        "stages": stages,
        "threads": last.threads,
        "peak_bytes": last.peak_bytes,
        "checks": {p: compare(m[-1], last) for p, m in found.ours.items()},
    }


def _stage_ratio(found: _Found, name: str) -> float:
    """How many times faster a stage is with the features computed by the client."""
    pairs = zip(found.ours[CLIENT], found.published, strict=True)
    return _median(p.seconds[name] / m.seconds[name] for m, p in pairs)


def compare(ours: Measured, other: Published) -> dict[str, Any]:
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


def _several(seconds: Mapping[int, float], studies: int) -> dict[str, Any]:
    rates = {n: studies / s for n, s in seconds.items()}
    first = rates[IN_FLIGHT[0]]
    return {
        "studies": studies,
        "rows": [
            {"in_flight": n, "seconds": seconds[n], "per_second": r, "gain": r / first}
            for n, r in rates.items()
        ],
    }


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))
