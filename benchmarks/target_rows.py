"""Published figures: what was documented, what was measured, whether they may be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hilum.catalog import SYSTEMS, Figure
from hilum.catalog.errors import InputError

from .instrument.record import read

Outcome = Literal["pass", "fail", "not comparable"]

Needs = Literal["", "a GPU", "data that is not public"]
"""What is missing where nothing can be compared; empty where neither would help."""

GPU_NEEDED, DATA_NEEDED = "a GPU", "data that is not public"

Better = Literal["higher", "lower"]

PASS, FAIL, NOT_COMPARABLE = "pass", "fail", "not comparable"

WEIGHTS_AND_DATA = "needs the authors' weights and data"
PREDICTIONS = "give the published predictions: --predictions FILE"
LABELS = "a property of the published labels"
"""Why figures that no deployment can meet or miss are not comparable."""

SIZES = {"parameters": 0, "MACs": 1}
"""Documented sizes of a network, and their place in what is counted."""

TOLERANCES = {"M": 0.05, "G": 0.05, "points": 0.005, "%": 0.005, "": 0.0005}
"""Half a unit of the last digit that is published, by unit: what a checked value may differ by."""

_GPU = re.compile(r"GPU|RTX|GTX|TITAN|Tesla|GeForce|\b[VAHTL]\d{2,3}\b|2080", re.IGNORECASE)
"""Documented hardware that is a GPU."""

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}

_BYTES = {"MB": 1e6, "GB": 1e9}


@dataclass(frozen=True, slots=True)
class Target:
    """One documented figure and whose it is; `network` is empty for one of the whole system."""

    system: str
    network: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured for one documented figure, or for none.

    Attributes
    ----------
    network
        Empty for a figure of the whole system.
    quantity
        As the documented figure has it.
    hardware
        In words.
    gpu
        The networks ran on a GPU.
    how
        The setting in words: what ran, at which size.
    limits
        Why it cannot stand beside the documented figure; empty where it can.
    command
        That measured it.
    documented_on
        The setting of the documented figure, where a quantity is documented in several.
    """

    system: str
    network: str
    quantity: str
    value: float
    unit: str
    hardware: str
    gpu: bool
    weights: str
    precision: str
    how: str
    limits: str = ""
    command: str = ""
    documented_on: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is made of a documented and a measured figure, and why."""

    outcome: Outcome
    reason: str
    needs: Needs = ""


def targets(systems: Sequence[str] = ()) -> Iterator[Target]:
    """Every documented figure of the systems, all when none is named: one each.

    Raises
    ------
    InputError
        For a system that there is not.
    """
    unknown = [name for name in systems if name not in SYSTEMS]
    if unknown:
        raise InputError(f"there is no system {unknown[0]!r}; there are {', '.join(SYSTEMS)}")
    for system in SYSTEMS.values():
        if systems and system.name not in systems:
            continue
        for figure in system.published:
            yield Target(system.name, "", figure)
        for network in system.networks:
            for figure in network.published:
                yield Target(system.name, network.name, figure)


def better(figure: Figure) -> Better | None:
    """Whether more or less of a figure is better; None for figures of accuracy and the like."""
    if figure.unit.endswith("/s"):
        return "higher"
    return "lower" if figure.unit in (*_SECONDS, *_BYTES) else None


def judge(figure: Figure, measured: Measured | None, remedy: str = "") -> Verdict:
    """What a measured figure says about a documented one.

    Speed on other hardware is a pass where the documented figure is met all the same. Where it is
    not, it is a failure only on a GPU, and both kinds of hardware are named.

    Parameters
    ----------
    remedy
        How the figure could be measured, for one that was not, or where it is found instead.
    """
    direction = better(figure)
    if direction is None:
        return _checked(figure, measured, remedy)
    if measured is None:
        gpu: Needs = GPU_NEEDED if _GPU.search(figure.hardware) else ""
        return Verdict(NOT_COMPARABLE, "; ".join(filter(None, ("not measured", remedy))), gpu)
    if measured.limits:
        return Verdict(NOT_COMPARABLE, measured.limits)
    value = convert(measured.value, measured.unit, figure.unit)
    where = (
        f"measured on {measured.hardware}; documented on {figure.hardware or 'no named hardware'}"
    )
    if value >= figure.value if direction == "higher" else value <= figure.value:
        return Verdict(PASS, f"met: {where}")
    if not measured.gpu and _GPU.search(figure.hardware):
        return Verdict(NOT_COMPARABLE, f"{where}: run it on a GPU server", GPU_NEEDED)
    if not figure.hardware and figure.unit not in _BYTES:
        return Verdict(NOT_COMPARABLE, f"{where}: what it was measured on is not documented")
    return Verdict(FAIL, f"not met: {where}")


def _checked(figure: Figure, measured: Measured | None, remedy: str) -> Verdict:
    """Of a figure that is neither a speed nor a size of memory: whether it was found here too."""
    if measured is None:
        if remedy:
            return Verdict(NOT_COMPARABLE, remedy)
        return Verdict(NOT_COMPARABLE, WEIGHTS_AND_DATA, DATA_NEEDED)
    apart = abs(measured.value - figure.value)
    if apart <= TOLERANCES.get(figure.unit, 0.0) * (1 + 1e-6):
        return Verdict(PASS, f"the same to its last digit: {measured.how}")
    return Verdict(FAIL, f"differs by {apart:.3g} {figure.unit}".rstrip() + f": {measured.how}")


def convert(value: float, unit: str, wanted: str) -> float:
    """A value in another unit of the same kind.

    Raises
    ------
    InputError
        When the units are of different kinds.
    """
    if unit == wanted:
        return value
    for kind in (_SECONDS, _BYTES):
        if unit in kind and wanted in kind:
            return value * kind[unit] / kind[wanted]
    raise InputError(f"a figure in {unit} cannot be compared with a documented one in {wanted}")


def rows(
    wanted: Iterable[Target],
    measured: Iterable[Measured],
    remedies: Mapping[tuple[str, str], str],
) -> list[dict[str, Any]]:
    """One row for each documented figure, ready for JSON.

    Parameters
    ----------
    remedies
        How to measure what was not, by system and quantity.
    """
    found = {(m.system, m.network, m.quantity, m.documented_on): m for m in measured}
    made = []
    for target in wanted:
        figure = target.figure
        key = (target.system, target.network, figure.quantity)
        own = found.get((*key, figure.hardware)) or found.get((*key, ""))
        verdict = judge(figure, own, remedies.get((target.system, figure.quantity), ""))
        made.append(
            {
                "system": target.system, "network": target.network, "figure": figure.quantity,
                "documented": figure.value, "unit": figure.unit, "documented_on": figure.hardware,
                "source": figure.source,
                "measured": None if own is None else convert(own.value, own.unit, figure.unit),
                "measured_on": "" if own is None else own.hardware,
                "how": "" if own is None else own.how,
                "weights": "" if own is None else own.weights,
                "precision": "" if own is None else own.precision, "verdict": verdict.outcome,
                "reason": verdict.reason, "needs": verdict.needs,
            }
        )  # fmt: skip
    return made


def measured_in(paths: Sequence[Path]) -> list[Measured]:
    """What earlier runs measured; of one figure in several records, the last one counts.

    Raises
    ------
    InputError
        For a file that is no record, or holds no figure of the table.
    """
    found: dict[tuple[str, str, str, str], Measured] = {}
    for path in paths:
        rows_of = read(path).tables.get("measured", ())
        if not rows_of:
            raise InputError(
                f"{path} holds no figure that a publication documents; give records of `hilum "
                "bench targets`, `cxr-severity` or `dlpe`"
            )
        for row in rows_of:
            try:
                own = Measured(**row)
            except TypeError as error:
                raise InputError(f"{path} has a measured figure that is none: {error}") from None
            found[own.system, own.network, own.quantity, own.documented_on] = own
    return list(found.values())
