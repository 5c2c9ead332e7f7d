"""Regions of CUDA shared memory: memory of a GPU that a Triton on the same host opens, too.

A region is an allocation of its own (not of CuPy's pool), made known by its CUDA IPC handle. Beside
it lies an empty locked file in ``/dev/shm``, as for regions of system shared memory, by which
others see that its owner lives. Not yet run on a GPU.
"""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import InferenceFailed
from hilum.preprocessing.arrays import Array, to_host

from ..steps import Method, Stub
from .system import PREFIX, Mark, has_folder, ownerless

_CUDA_DEVICES = (2, 13)
"""DLPack's numbers for memory of a GPU: of one, and managed (dlpack.h, ``DLDeviceType``)."""


def as_device_array(array: Any) -> Array | None:
    """A CuPy array of what lies on a GPU, without a copy; None for anything else.

    Parameters
    ----------
    array
        Of any library that speaks DLPack, CuPy and PyTorch for instance. CuPy's current stream
        waits for what the library still computes on it.
    """
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack_device__"):
        return None
    if array.__dlpack_device__()[0] not in _CUDA_DEVICES:
        return None
    cupy = importlib.import_module("cupy")
    return array if isinstance(array, cupy.ndarray) else cupy.from_dlpack(array)


def device_of(arrays: Mapping[str, Array]) -> int | None:
    """Number of the GPU on which `arrays` lie, be it some of them; None when all are on the host.

    Raises
    ------
    InferenceFailed
        When they lie on several GPUs.
    """
    found = {a.device.id for a in arrays.values() if not isinstance(a, np.ndarray)}
    if len(found) > 1:
        raise InferenceFailed(
            f"inputs lie on several GPUs ({', '.join(map(str, sorted(found)))}); bring them "
            "together on one, or to the host"
        )
    return next(iter(found), None)


def on_host(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """The same arrays in the memory of the host."""
    return {name: to_host(array) for name, array in arrays.items()}


class CudaMemory:
    """Memory of one GPU, shared by CUDA IPC handles."""

    name: Literal["shm", "cuda"] = "cuda"
    noun: str = "CUDA shared memory"
    smallest: int = 1 << 21
    """CUDA puts smaller allocations together, and a handle gives all of them away."""

    def __init__(self, gpu: int) -> None:
        self._gpu = gpu

    def obstacle(self) -> str | None:
        """Why there is none."""
        return None if has_folder() else "this system has no /dev/shm"

    def make(self, size: int) -> CudaRegion:
        """A new region; MemoryError when there is no room for it."""
        return CudaRegion(size, self._gpu)

    def ownerless(self, names: Iterable[str]) -> list[str]:
        """Those of the server's region `names` whose owner is dead.

        Only of clients that see the same ``/dev/shm``: other containers' regions have no file here.
        """
        return ownerless(name for name in names if name.startswith(PREFIX + _word()))

    def register(self, stub: Stub) -> Method:
        """The call that makes a region known to the server."""
        return stub.register_cuda_shared_memory

    def unregister(self, stub: Stub) -> Method:
        """The call that has the server forget a region."""
        return stub.unregister_cuda_shared_memory

    def status(self, stub: Stub) -> Method:
        """The call for the regions that the server knows."""
        return stub.get_cuda_shared_memory_status


class CudaRegion:
    """One allocation on a GPU; see `pool.Region`. Copies go on the caller's current stream."""

    __slots__ = (
        "_cupy", "_gpu", "_handle", "_mark", "_owner", "_pointer", "name", "registered", "size",
    )  # fmt: skip

    def __init__(self, size: int, gpu: int) -> None:
        self._cupy = importlib.import_module("cupy")
        self._gpu = gpu
        self._owner = os.getpid()
        self.size = size
        self.registered = False
        self._mark = Mark(_word())
        self.name = self._mark.name
        self._pointer = 0
        runtime = self._cupy.cuda.runtime
        try:
            with self._cupy.cuda.Device(gpu):
                self._pointer = runtime.malloc(size)
                self._handle = bytes(runtime.ipcGetMemHandle(self._pointer))
        except runtime.CUDARuntimeError as error:
            self.free()
            raise MemoryError(str(error)) from error

    def registration(self) -> dict[str, Any]:
        """Arguments of the call that registers it; the server counts GPUs as this process does."""
        handle = base64.b64encode(self._handle)
        return {
            "name": self.name, "raw_handle": handle, "device_id": self._gpu, "byte_size": self.size,
        }  # fmt: skip

    def write(self, offset: int, array: Array) -> None:
        """Copy an array of the GPU, or of the host, into the region."""
        with self._cupy.cuda.Device(self._gpu):
            place = self._array(offset, array.shape, array.dtype)
            if isinstance(array, np.ndarray):
                place.set(np.ascontiguousarray(array))
            else:
                self._cupy.copyto(place, array)

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """A copy of the region's bytes as an array on the GPU."""
        with self._cupy.cuda.Device(self._gpu):
            return self._array(offset, shape, dtype).copy()

    def settle(self) -> None:
        """Wait for the copies on the current stream, by an event."""
        with self._cupy.cuda.Device(self._gpu):
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record()
            event.synchronize()

    def retire(self) -> None:
        """Nothing goes yet: memory that another process has open must not be freed."""

    def free(self) -> None:
        """Free the memory and remove the file beside it; may be repeated."""
        if os.getpid() != self._owner:  # a fork's copy is not the owner
            return
        pointer, self._pointer = self._pointer, 0
        if pointer:
            with self._cupy.cuda.Device(self._gpu):
                self._cupy.cuda.runtime.free(pointer)
        self._mark.remove()

    def _array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        cuda = self._cupy.cuda
        memory = cuda.UnownedMemory(self._pointer, self.size, self, self._gpu)
        return self._cupy.ndarray(shape, dtype, memptr=cuda.MemoryPointer(memory, offset))


def _word() -> str:
    """What names of regions have after the prefix: that they are of a GPU, and whose /dev/shm."""
    return f"cuda{Path('/dev/shm').stat().st_dev:x}-"  # noqa: S108 - where `Mark` puts its files
