"""The systems there are: the entry points ``hilum.systems`` of all installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hilum import catalog
from hilum.catalog.errors import BadOption

from .protocols import AnySystem, Placed

GROUP = "hilum.systems"
"""Each entry names a system object: ``my-system = "my_package.system:SYSTEM"``."""


class _Systems(Mapping[str, AnySystem]):
    """A system is imported when it is asked for, and the libraries that it computes with."""

    def __getitem__(self, name: str) -> AnySystem:
        return _loaded(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_entries())

    def __len__(self) -> int:
        return len(_entries())


INSTALLED: Mapping[str, AnySystem] = _Systems()
"""Every system by its name: those of the catalog in its order, then others by name."""


def find_system(system: str | AnySystem) -> AnySystem:
    """A system by its name; a system object is itself.

    Raises
    ------
    InputError
        When there is none of this name.
    """
    if not isinstance(system, str):
        return system
    if system not in INSTALLED:
        raise BadOption(
            f"there is no system {system!r}; there are {', '.join(INSTALLED)}"
            if INSTALLED
            else f"there is no system {system!r}, nor any other: install the package hilum"
        )
    return INSTALLED[system]


def resolve(
    system: str | AnySystem, options: object | None, given: Mapping[str, Any]
) -> tuple[AnySystem, Any, Callable[[Any], Any]]:
    """A system, its options from a ready object or from keywords, and what becomes of a study.

    The keywords ``spacing`` and ``affine`` belong to the study, not to the options (`Placed`).

    Raises
    ------
    InputError
        For a system or an option that does not exist.
    """
    found = find_system(system)
    place = {key: given[key] for key in ("spacing", "affine") if key in given}
    given = {key: value for key, value in given.items() if key not in place}

    def placed(study: Any) -> Any:
        return Placed(study, **place) if place else study

    if options is not None:
        return found, options, placed
    try:
        return found, found.options_type(**given), placed
    except TypeError as error:
        known = ", ".join(found.options_type.__dataclass_fields__)
        raise BadOption(f"{found.name}: {error}; its options are {known}") from None


def result_type(name: str) -> type | None:
    """The class of a system's results that has this name; None when no system has it."""
    types = (system.result_type for system in INSTALLED.values())
    return next((found for found in types if found.__name__ == name), None)


@cache
def _entries() -> Mapping[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    order = [name for name in catalog.SYSTEMS if name in found]
    return {name: found[name] for name in (*order, *sorted({*found} - {*order}))}


@cache
def _loaded(name: str) -> AnySystem:
    return _entries()[name].load()
