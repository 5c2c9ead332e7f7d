"""What benchmarks know of each system: one module each, by the name of the system.

A module has a `DESCRIPTION`. A system without one can still be measured by `hilum bench peers`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import InputError
from hilum.client.registry import INSTALLED

from ..figures import Measure
from ..instrument.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One system.

    Attributes
    ----------
    usual, quick
        What is sent to it: studies of usual size, and smaller ones where those take minutes.
    unit
        What one task of a single network works on: "image", "slice".
    networks
        Those that stand for the system where none is named.
    procedure
        `hilum bench SYSTEM` measures the published procedure.
    figures
        Measures what its publication documents of speed; None where nothing is.
    slow_export
        Left out of a quick run over all systems.
    remedies
        By documented quantity, how to measure it where a run did not, or why none can.
    """

    usual: Workload
    quick: Workload
    unit: str
    networks: tuple[str, ...]
    procedure: bool = True
    figures: Measure | None = None
    slow_export: bool = False
    remedies: Mapping[str, str] = field(default_factory=dict)


def described(system: str) -> Description | None:
    """What is known of a system; None without a module of it."""
    name = f"{__name__}.{system.replace('-', '_')}"
    if system not in SYSTEMS or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name).DESCRIPTION


def workload(system: str, *, quick: bool = False, **chosen: Any) -> Workload:
    """The workload of a system.

    Parameters
    ----------
    quick
        Smaller studies, where a study of usual size takes minutes.
    **chosen
        Options of the system's pipeline beside those of the description.

    Raises
    ------
    InputError
        For a system without a description.
    """
    found = described(system) if system in INSTALLED else None
    if found is None:
        known = ", ".join(name for name in INSTALLED if described(name) is not None)
        raise InputError(f"there is no workload of {system!r}; there are {known}")
    load = found.quick if quick else found.usual
    return dataclasses.replace(load, chosen={**load.chosen, **chosen})
