"""One code path for NumPy and CuPy: the namespace comes from the array."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array = Any
"""A NumPy or CuPy array."""


def namespace(*arrays: Array) -> Any:
    """Return the array module (NumPy- or CuPy-compatible) of the `arrays`."""
    return array_api_compat.array_namespace(*arrays)


def to_host(array: Array) -> NDArray[Any]:
    """Return `array` as a NumPy array; copies only when it lies on a GPU."""
    return array.get() if hasattr(array, "get") else np.asarray(array)
