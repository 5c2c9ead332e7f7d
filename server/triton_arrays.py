"""Requests to and answers of Python models: the one place that knows about NumPy 1 and 2.

The Python backend of Triton 24.10 was built with a pybind11 that does not know NumPy 2: there
``as_numpy()`` silently hands over zeros and ``Tensor(name, array)`` an empty tensor, while DLPack
works. Under NumPy 1 it is the other way round: DLPack ends the process. Strings have no DLPack.
Imports only inside Triton's Python backend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from .stubs import QUESTION

NUMPY2 = int(np.__version__.partition(".")[0]) >= 2

Tensor = Any
"""A ``pb_utils.Tensor``."""

DTYPES: dict[str, type[np.generic]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}
"""NumPy's types by their names in a model configuration."""


def as_array(tensor: Tensor, *, strings: bool = False) -> np.ndarray:
    """The array in `tensor`, read-only and without a copy; valid while its request is.

    `strings` marks a tensor of strings.
    """
    array = np.from_dlpack(tensor) if NUMPY2 and not strings else tensor.as_numpy()
    array.flags.writeable = False
    return array


def as_tensor(name: str, array: np.ndarray) -> Tensor:
    """A tensor with the contents of `array`; strings only under NumPy 1."""
    array = np.ascontiguousarray(array)
    if not NUMPY2:
        return pb_utils.Tensor(name, array)
    if not array.flags.writeable:
        array = array.copy()  # DLPack exports no read-only arrays
    return pb_utils.Tensor.from_dlpack(name, array)


def is_question(request: Any) -> bool:
    """Whether a request only asks if the model answers (`hilum.server.questions`)."""
    return QUESTION in request.parameters()


def answer(outputs: list[Tensor]) -> Any:
    """A response with the `outputs`."""
    return pb_utils.InferenceResponse(output_tensors=outputs)


def refusal(message: str, code: int) -> Any:
    """A response with an error; `code` is one of ``pb_utils.TritonError``'s."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
