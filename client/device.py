"""Where arrays are worked on: on the CPU, or on one GPU.

Not yet run on a GPU.
"""

from __future__ import annotations

import importlib
import re
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import numpy as np

from hilum.catalog.errors import BadOption
from hilum.preprocessing.arrays import Array

_GPU = re.compile(r"cuda:(\d+)")


class _Thread(threading.local):
    """A thread's streams by GPU, and what it has entered."""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}
        self.entered: list[ExitStack] = []


_thread = _Thread()


@dataclass(frozen=True, slots=True)
class Device:
    """One place to work on arrays; within its context they are worked on there.

    On a GPU each thread computes on a stream of its own, so that copies and kernels of several
    threads overlap. A context ends when its stream is idle: whoever takes its arrays next, on
    whatever stream, finds them complete.

    Attributes
    ----------
    gpu
        Number of the GPU; None for the CPU.
    """

    gpu: int | None = None

    @classmethod
    def of(cls, given: Device | str) -> Device:
        """A device from its name.

        Parameters
        ----------
        given
            ``cpu``, ``cuda:N``, or ``auto``: ``cuda:0`` when CuPy finds a GPU, else ``cpu``.

        Raises
        ------
        InputError
            For any other text, and for a GPU that is not there or not to be used.
        """
        if isinstance(given, Device):
            return given
        if given == "cpu":
            return cls()
        count, obstacle = gpus()
        if given == "auto":
            return cls(0) if count else cls()
        found = _GPU.fullmatch(given)
        if found is None:
            raise BadOption(f"no device {given!r}; choose auto, cpu or cuda:N (N from 0)")
        number = int(found[1])
        if obstacle is not None:
            raise BadOption(
                f"device {given} cannot be used: {obstacle}; install Hilum's extra 'gpu' (CuPy) "
                "on a machine with an NVIDIA GPU and its driver, or choose the device cpu"
            )
        if number >= count:
            raise BadOption(
                f"device {given} is not there: CuPy sees {count}, from cuda:0; choose one of them, "
                "or look at CUDA_VISIBLE_DEVICES"
            )
        return cls(number)

    @property
    def array_module(self) -> Any:
        """NumPy or CuPy."""
        return np if self.gpu is None else importlib.import_module("cupy")

    def put(self, array: Array) -> Array:
        """`array` where it is worked on; copies only from the host to a GPU."""
        return array if self.gpu is None else self.array_module.asarray(array)

    def synchronize(self) -> None:
        """Wait until what this thread has computed on the GPU is complete."""
        if self.gpu is not None and self.gpu in _thread.streams:
            _thread.streams[self.gpu].synchronize()

    def __enter__(self) -> Self:
        entered = ExitStack()
        if self.gpu is not None:
            cuda = self.array_module.cuda
            entered.enter_context(cuda.Device(self.gpu))
            if self.gpu not in _thread.streams:
                _thread.streams[self.gpu] = cuda.Stream(non_blocking=True)
            stream = entered.enter_context(_thread.streams[self.gpu])
            entered.callback(stream.synchronize)
        _thread.entered.append(entered)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _thread.entered.pop().__exit__(kind, error, trace)

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"


CPU = Device()


@lru_cache(maxsize=1)
def gpus() -> tuple[int, str | None]:
    """How many GPUs CuPy sees, and why it can use none, in one line."""
    try:
        cupy = importlib.import_module("cupy")
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # noqa: BLE001 - CuPy has errors of its own for missing drivers
        cause: BaseException = error
        while cause.__cause__ is not None:  # CuPy wraps what it fails to import in a page of advice
            cause = cause.__cause__
        return 0, f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    return count, None if count else "CuPy sees no GPU"
