"""Where arrays are worked on: on the processors, or on one GPU.

Not yet run on a GPU.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from ..catalog.errors import InputError
from ..preprocessing.arrays import Array
from .steps import Action, Compute, Each, Steps, changed

T = TypeVar("T")

_GPU = re.compile(r"cuda:(\d+)")


class _Streams(threading.local):
    """A thread's streams by GPU."""

    def __init__(self) -> None:
        self.by_gpu: dict[int | None, Any] = {}


_streams = _Streams()


@dataclass(frozen=True, slots=True)
class Device:
    """One place to work on arrays.

    Attributes
    ----------
    gpu
        Number of the GPU; None for the processors.
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
            raise InputError(f"no device {given!r}; choose auto, cpu or cuda:N (N from 0)")
        number = int(found[1])
        if obstacle is not None:
            raise InputError(
                f"device {given} cannot be used: {obstacle}; install Hilum's extra 'gpu' (CuPy) "
                "on a machine with an NVIDIA GPU and its driver, or choose the device cpu"
            )
        if number >= count:
            raise InputError(
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

    def follow(self, steps: Steps[T]) -> Steps[T]:
        """Run steps; what they compute is computed on this device.

        On a GPU each thread computes on a stream of its own, so that copies and kernels of several
        threads overlap. A computation ends when its stream is idle: whoever takes its arrays next,
        on whatever stream, finds them complete.
        """
        return steps if self.gpu is None else changed(steps, self._here)

    def _here(self, action: Action) -> Action:
        match action:
            case Compute():
                return dataclasses.replace(action, function=partial(self._call, action.function))
            case Each():
                make = action.make
                return dataclasses.replace(action, make=lambda item: self.follow(make(item)))
            case _:
                return action

    def _call(self, function: Callable[[], T]) -> T:
        cupy = self.array_module
        with cupy.cuda.Device(self.gpu), self._stream(cupy) as stream:
            try:
                return function()
            finally:
                stream.synchronize()

    def _stream(self, cupy: Any) -> Any:
        """The stream on the device that belongs to the thread that asks."""
        own = _streams.by_gpu
        if self.gpu not in own:
            own[self.gpu] = cupy.cuda.Stream(non_blocking=True)
        return own[self.gpu]

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
