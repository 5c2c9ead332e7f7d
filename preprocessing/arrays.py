"""One code path for NumPy and CuPy: the namespace comes from the array.

The array standard is imported when a step asks for it: a client that only sends and receives needs
NumPy alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""A NumPy or CuPy array."""


def namespace(*arrays: Array) -> Any:
    """Return the array module (NumPy- or CuPy-compatible) of the `arrays`."""
    import array_api_compat

    return array_api_compat.array_namespace(*arrays)


def is_numpy(xp: Any) -> bool:
    """Whether arrays of the module `xp` are NumPy's."""
    import array_api_compat

    return xp is np or array_api_compat.is_numpy_namespace(xp)


def to_host(array: Array) -> NDArray[Any]:
    """Return `array` as a NumPy array; copies only when it lies on a GPU."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def as_uint8(mask: Array) -> Array:
    """Return a bool array as uint8 of 0 and 1, without a copy where arrays have views."""
    return mask.view("uint8") if hasattr(mask, "view") else _converted(mask, "uint8")


def as_bool(mask: Array) -> Array:
    """Return a uint8 array of 0 and 1 as bool, without a copy where arrays have views."""
    return mask.view("bool") if hasattr(mask, "view") else _converted(mask, "bool")


def gpu_image_functions(xp: Any) -> Any:
    """Return ``cupyx.scipy.ndimage``, for arrays of CuPy alone."""
    import array_api_compat

    if not array_api_compat.is_cupy_namespace(xp):
        raise TypeError(f"arrays of {xp.__name__}; give NumPy's or CuPy's")
    return importlib.import_module("cupyx.scipy.ndimage")


def _converted(mask: Array, name: str) -> Array:
    xp = namespace(mask)
    return xp.astype(mask, getattr(xp, name))
