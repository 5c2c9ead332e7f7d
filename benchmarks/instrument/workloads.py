"""What is sent to a system: generated studies, and what belongs to running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hilum.catalog import SYSTEMS, Ensemble, System, closure, find_model
from hilum.client import Client, ClientPool
from hilum.client.protocols import AnySystem
from hilum.client.registry import INSTALLED
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.systems.base import BaseSystem

from .loops import Task
from .watched import Moved, Watched

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
    def pipeline(self) -> AnySystem:
        """Of the system."""
        return INSTALLED[self.system]

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
        """Triton models whose counts belong to a task: those it asks for, and what they call."""
        return counted(self.models)

    @property
    def workers(self) -> int:
        """Tasks in flight at most in an open loop; few where a study takes gigabytes."""
        return 64 if self.pipeline.studies_in_flight == BaseSystem.studies_in_flight else 4

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


def moved(client: Client, load: Workload, study: Study) -> Moved:
    """Run one task and count what it moves."""
    watched = Watched(client)
    watched.run(load.pipeline, study, load.options)
    return watched.moved


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


def scan(slices: int, size: int) -> Make:
    """One generated CT, as a volume in HU: its files' decoding is no business of the server."""

    def make() -> list[Study]:
        return [chest_ct(7, slices=slices, size=size).volume]

    return make


def slices_of(system: str, *, quick: bool) -> Workload:
    """A few slices of full size, counted one by one."""
    count = 4 if quick else 16
    return Workload(
        system=system, unit="slice", units=count, make=scan(count, 512),
        describe=f"{system}: CT of {count} slices of 512 × 512, from memory",
    )  # fmt: skip
