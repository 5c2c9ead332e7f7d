"""What is sent to each system: generated studies, and what belongs to running them.

A system's entry in `WORKLOADS` is all that load, capacity and scale need to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2

from ...catalog import SYSTEMS, Ensemble, System, closure, find_model
from ...catalog.errors import InputError
from ...client import Client, ClientPool
from ...client.pipelines import PIPELINES, Pipeline
from ...client.pipelines.base import Heavy
from ...preprocessing.phantom import chest_xray
from ...preprocessing.phantom_ct import chest_ct
from .loops import Task
from .watched import Watched

Study = Any
"""Whatever the system's pipeline takes as a study."""

Make = Callable[[], Sequence[Study]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One system's tasks: a task is one study, from the source to the result.

    Attributes
    ----------
    unit, units
        What one task works on ("image", "slice", "study") and how many of it.
    make
        Generates the studies that the tasks take in turn; seeded, so always the same.
    describe
        The studies in words.
    chosen
        Options of the system's pipeline.
    """

    system: str
    unit: str
    units: int
    make: Make
    describe: str
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> Pipeline:
        """Of the system."""
        return PIPELINES[self.system]

    @property
    def declared(self) -> System:
        """The system in the catalog."""
        return SYSTEMS[self.system]

    @property
    def options(self) -> Any:
        """The pipeline's options with what is chosen."""
        return self.pipeline.options_type(**self.chosen)

    @property
    def models(self) -> tuple[str, ...]:
        """Triton models that a task asks for."""
        return self.pipeline.models(self.options)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names, in the system, of the networks that a task needs: for an export."""
        models = set(self.counted)
        return tuple(n.name for n in self.declared.networks if n.model in models)

    @property
    def counted(self) -> tuple[str, ...]:
        """Triton models whose counts tell of a task: those it asks for, and what they call."""
        return counted(self.models)

    @property
    def workers(self) -> int:
        """Tasks in work at most in an open loop; few where a study takes gigabytes."""
        heavy = isinstance(self.pipeline, Heavy)
        return 4 if heavy else 64

    def task(self, client: Client | ClientPool, sources: Sequence[Study] | None = None) -> Task:
        """A task that runs the system through a client.

        Parameters
        ----------
        sources
            Studies instead of the generated ones.
        """
        studies, options = list(sources or self.make()), self.options

        def task(number: int) -> Any:
            return client.run(self.system, studies[number % len(studies)], options=options)

        return task


@dataclass(frozen=True, slots=True)
class Moved:
    """What one task moves, counted on a run of it.

    Attributes
    ----------
    requests
        That the client sends.
    sent_bytes, received_bytes
        Tensors of all its requests, over whichever transport.
    """

    requests: int
    sent_bytes: int
    received_bytes: int


def moved(client: Client, load: Workload, study: Study) -> Moved:
    """Run one task and count what it moves."""
    watched = Watched(client)
    watched.drive(load.pipeline.study(study, load.options))
    asked = watched.asked.values()
    return Moved(
        sum(a.requests for a in asked),
        sum(a.bytes_sent for a in asked),
        sum(a.bytes_received for a in asked),
    )


def counted(models: Sequence[str]) -> tuple[str, ...]:
    """The models and, of those that are ensembles, what they call."""
    declared = [find_model(name) for name in models]
    ensembles = [m for m in declared if isinstance(m, Ensemble)]
    return tuple(dict.fromkeys((*(m.model for m in closure(ensembles)), *models)))


def is_ensemble(model: str) -> bool:
    """Whether a Triton model only calls others, so that its times are theirs once more."""
    try:
        return isinstance(find_model(model), Ensemble)
    except KeyError:
        return False


def workload(system: str, *, quick: bool = False, **chosen: Any) -> Workload:
    """The workload of a system.

    Parameters
    ----------
    quick
        Smaller studies, where a study of usual size takes minutes.
    **chosen
        Options of the system's pipeline beside those of the entry.

    Raises
    ------
    InputError
        For a system without an entry.
    """
    if system not in WORKLOADS or system not in PIPELINES:
        known = ", ".join(name for name in WORKLOADS if name in PIPELINES)
        raise InputError(f"there is no workload of {system!r}; there are {known}")
    load = WORKLOADS[system](quick)
    return Workload(
        system=load.system,
        unit=load.unit,
        units=load.units,
        make=load.make,
        describe=load.describe,
        chosen={**load.chosen, **chosen},
    )


IMAGES = 8
"""Generated X-rays, which tasks score in turn."""


def _xrays() -> list[Study]:
    def png(i: int) -> bytes:
        pixels = chest_xray(100 + i, height=900, width=800, severity=i / (IMAGES - 1)).pixels
        return cv2.imencode(".png", pixels)[1].tobytes()

    return [png(i) for i in range(IMAGES)]


def _scan(slices: int, size: int) -> Make:
    """One generated CT, as a volume in HU: its files' decoding is no business of the server."""

    def make() -> list[Study]:
        return [chest_ct(7, slices=slices, size=size).volume]

    return make


def _slices(system: str, count: int, **chosen: Any) -> Workload:
    return Workload(
        system=system, unit="slice", units=count, make=_scan(count, 512), chosen=chosen,
        describe=f"{system}: CT of {count} slices of 512 × 512, from memory",
    )  # fmt: skip


def _study(system: str, slices: int, size: int, **chosen: Any) -> Workload:
    options = "".join(f", {name} {value}" for name, value in chosen.items())
    return Workload(
        system=system, unit="study", units=1, make=_scan(slices, size), chosen=chosen,
        describe=f"{system}: CT of {slices} slices of {size} × {size}, from memory{options}",
    )  # fmt: skip


def _body(scale: float) -> Make:
    """A generated CT of a body that is smaller than an adult's along every axis.

    Features are computed of every voxel of the lungs, so a coarser picture would not do.
    """

    def make() -> list[Study]:
        made = chest_ct(7, slices=round(240 * scale), size=round(512 * scale)).volume
        z, y, x = (scale * mm for mm in made.geometry.spacing)
        return [replace(made, geometry=replace(made.geometry, spacing=(z, y, x)))]

    return make


def _covid_mtl(quick: bool) -> Workload:
    scale = 0.35 if quick else 1.0
    return Workload(
        system="covid-mtl", unit="study", units=1, make=_body(scale),
        describe=f"covid-mtl: CT of a body of {scale:g} of an adult's sizes, from memory",
    )  # fmt: skip


def _cxr(_quick: bool) -> Workload:
    return Workload(
        system="cxr-severity", unit="image", units=1, make=_xrays,
        describe=f"cxr-severity: {IMAGES} X-rays of 800 × 900 pixels as PNG in turn",
    )  # fmt: skip


WORKLOADS: dict[str, Callable[[bool], Workload]] = {
    "cxr-severity": _cxr,
    "lungmask": lambda quick: _slices("lungmask", 4 if quick else 16),
    "ct-classifier": lambda quick: _slices("ct-classifier", 4 if quick else 16),
    "ct-angel": lambda quick: _slices("ct-angel", 4 if quick else 16),
    "dlpe": lambda quick: (
        _study("dlpe", 48, 128, grid=32) if quick else _study("dlpe", 240, 512, grid=128)
    ),
    "covid-mtl": _covid_mtl,
}
"""By system, what is sent: its usual or its quick studies."""
