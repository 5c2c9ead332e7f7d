"""Which graphs there are for NVIDIA's compiler to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from hilum.catalog import Arithmetic, Network, System, dlpe
from hilum.catalog.errors import ExportError

PRECISIONS: tuple[Arithmetic, ...] = get_args(Arithmetic)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One graph to check."""

    system: System
    network: Network
    precision: Arithmetic

    @property
    def label(self) -> str:
        """For progress and reports."""
        return f"{self.network.model} {self.precision}"


def wanted(
    systems: Iterable[System], networks: Sequence[str] | None, precisions: Sequence[Arithmetic]
) -> list[Wanted]:
    """The graphs of some systems, systems with few networks first; shared networks once.

    INT8 are those of DLPE only.

    Raises
    ------
    ExportError
        When no system has one of the `networks`.
    """
    chosen = sorted(systems, key=lambda system: len(system.networks))
    known = {n.name for s in chosen for n in s.networks}
    if missing := sorted(set(networks or ()) - known):
        raise ExportError(f"no network {missing[0]!r}; there are {', '.join(sorted(known))}")
    found: dict[tuple[str, str], Wanted] = {}
    for system in chosen:
        for network in system.networks:
            if networks is not None and network.name not in networks:
                continue
            for precision in precisions_of(system, precisions):
                wanted_graph = Wanted(system, network, precision)
                found.setdefault((network.model, precision), wanted_graph)
    return list(found.values())


def precisions_of(
    system: System, precisions: Sequence[Arithmetic] = PRECISIONS
) -> list[Arithmetic]:
    """Those of `precisions` in which networks of a system are exported."""
    return [p for p in precisions if p != "int8" or system.name == dlpe.SYSTEM.name]
