"""A system's options from the plain values of a file or a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hilum.catalog.errors import BadOption
from hilum.client.protocols import AnySystem


def options_from(system: AnySystem, given: Mapping[str, Any]) -> Any:
    """The options of a system; numbers and choices may be given as text. Needs msgspec.

    Raises
    ------
    InputError
        For an unknown option, or a value that it does not take.
    """
    import msgspec  # of an extra

    known = [f.name for f in dataclasses.fields(system.options_type) if "from" not in f.metadata]
    for name in given:
        if name not in known:
            raise BadOption(f"{system.name} has no option {name!r}; it has {', '.join(known)}")
    try:
        if not given:
            return system.options_type()
        return msgspec.convert(dict(given), system.options_type, strict=False)
    except (msgspec.ValidationError, TypeError, ValueError) as failure:
        raise BadOption(f"options of {system.name}: {failure}") from failure
