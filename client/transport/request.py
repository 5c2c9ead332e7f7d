"""One inference request, what answers it, and how either lies in a region of shared memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

from hilum.catalog.errors import InferenceFailed
from hilum.preprocessing.arrays import Array

from ..options import TransportName
from ..steps import Rpc
from .cuda import as_device_array
from .regions import Region, aligned

CONTROL_TIMEOUT_S = 10.0
"""Time for a call that computes nothing: metadata, readiness, registration of a region."""


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request.

    Attributes
    ----------
    inputs
        NumPy or CuPy arrays as the model takes them, the batch axis included where it has one.
    output_specs
        Triton's element type and the whole shape of every output whose shape is known beforehand;
        only these can come back through shared memory.
    """

    model: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    deadline_s: float
    output_specs: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def fits_shared_memory(self) -> bool:
        """Whether its inputs can lie in a region."""
        # Strings have no fixed size, and Triton takes no empty range of a region.
        return all(a.nbytes > 0 and a.dtype.kind not in "OSU" for a in self.inputs.values())

    def rpc(self, inputs: list[InferInput], outputs: list[InferRequestedOutput]) -> Rpc:
        """The call that sends it."""
        arguments = {"model_name": self.model, "inputs": inputs, "outputs": outputs}
        return Rpc(lambda stub: stub.infer, self.deadline_s, arguments)


@dataclass(frozen=True, slots=True)
class Answer:
    """Output arrays, which belong to the caller, and how they travelled.

    Those on the host are read-only. Of a request that travelled as ``cuda``, outputs whose shapes
    were known beforehand are CuPy arrays on the GPU of the inputs.
    """

    outputs: Mapping[str, Array]
    transport: TransportName


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tensors of one request lie in a region."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, request: Request) -> Layout:
        """Inputs one after the other, then the outputs whose shape is known."""
        inputs: dict[str, int] = {}
        outputs: dict[str, int] = {}
        end = 0
        for name, array in request.inputs.items():
            inputs[name] = end
            end += aligned(array.nbytes)
        for name in request.outputs:
            size = _byte_size(*request.output_specs.get(name, ("UINT8", (0,))))
            if size > 0:
                outputs[name] = end
                end += aligned(size)
        return cls(inputs, outputs, end)

    def describe(
        self, request: Request, region: Region
    ) -> tuple[list[InferInput], list[InferRequestedOutput]]:
        """Write the inputs; return what says where everything is."""
        inputs, outputs = [], []
        for name, array in request.inputs.items():
            offset = self.inputs[name]
            region.write(offset, array)
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_shared_memory(region.name, array.nbytes, offset)
            inputs.append(tensor)
        region.settle()
        for name in request.outputs:
            wanted = InferRequestedOutput(name)
            if name in self.outputs:
                size = _byte_size(*request.output_specs[name])
                wanted.set_shared_memory(region.name, size, self.outputs[name])
            outputs.append(wanted)
        return inputs, outputs

    def collect(self, request: Request, region: Region, result: Any) -> dict[str, Array]:
        """Copy the outputs out of the region; the response says what shape they really have."""
        arrays: dict[str, Array] = {}
        for name in request.outputs:
            if name not in self.outputs:
                arrays[name] = received(result, name)
                continue
            reported = result.get_output(name)
            shape, dtype = tuple(reported.shape), np.dtype(triton_to_np_dtype(reported.datatype))
            room = _byte_size(*request.output_specs[name])
            if prod(shape) * dtype.itemsize > room:
                raise InferenceFailed(
                    f"model {request.model}: output {name!r} came as {reported.datatype} "
                    f"{list(shape)}, more than the {room} bytes it was given; the server's model "
                    "is not the one that was described"
                )
            arrays[name] = region.read(self.outputs[name], shape, dtype)
        region.settle()
        return arrays


def status_of(error: InferenceServerException) -> str:
    """The gRPC status of an error, for instance ``UNAVAILABLE``; empty for one made locally."""
    return str(error.status() or "").removeprefix("StatusCode.")


def checked_input(model: str, name: str, given: ArrayLike) -> Array:
    """An input as an array of a type that Triton knows; what lies on a GPU stays there.

    Raises
    ------
    InferenceFailed
        When Triton has no such type.
    """
    array = as_device_array(given)
    if array is None:
        array = np.asarray(given)
    if np_to_triton_dtype(array.dtype) is None:
        raise InferenceFailed(
            f"input {name!r} of model {model!r}: Triton has no element type for {array.dtype}; "
            "convert the array to what the model takes"
        )
    return array


def inline(name: str, array: NDArray) -> InferInput:
    """An input inside the message."""
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def received(result: Any, name: str) -> NDArray:
    """An output that came inside the message, read-only."""
    array = result.as_numpy(name)
    if array is None:
        raise InferenceFailed(f"the server's answer has no output {name!r}")
    array.flags.writeable = False
    return array


def _byte_size(dtype: str, shape: tuple[int, ...]) -> int:
    return prod(shape) * np.dtype(triton_to_np_dtype(dtype)).itemsize
