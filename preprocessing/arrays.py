"""One code path for NumPy and CuPy: the namespace comes from the array."""

from __future__ import annotations

from typing import Any

import array_api_compat

Array = Any
"""A NumPy or CuPy array."""


def namespace(*arrays: Array) -> Any:
    """The array module (NumPy- or CuPy-compatible) of the `arrays`."""
    return array_api_compat.array_namespace(*arrays)
