"""What a system asks of the client that runs it: plain calls that wait.

A system's `run` is ordinary Python in a thread of its own::

    def run(self, study: Study, options: Options, calls: Calls) -> LungResult:
        pixels = prepare(study)
        answer = calls.infer("cxr_lung", {"image": pixels[None]}, ["lung"])
        return LungResult(answer.outputs["lung"][0])
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from hilum.preprocessing.arrays import Array

from .concurrent import in_order
from .device import CPU, Device
from .models import Inference, ModelInfo

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study has come.

    Attributes
    ----------
    stage
        What is being done, one word.
    done, total
        Steps of the stage that are done, and all of them.
    """

    stage: str
    done: int
    total: int


class Models(Protocol):
    """Who answers: one server, or several."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays."""
        ...

    def model(self, name: str) -> ModelInfo:
        """The signature of a model."""
        ...

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        ...

    def about(self) -> dict[str, Any] | None:
        """What is known of the weights that are served."""
        ...


class Calls:
    """The calls of one study. Any of its threads may use them.

    Parameters
    ----------
    server
        Who answers.
    progress
        Called with the study's progress, from several threads.
    stop
        Once it is set the study ends with `CancelledError` at its next call.
    """

    def __init__(
        self,
        server: Models,
        progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self._server, self._progress = server, progress
        self._device = CPU

    def on(self, device: Device) -> Self:
        """The same for a study that works on `device`: so do the threads of `map`.

        Parameters
        ----------
        device
            Where arrays are worked on.
        """
        other = copy.copy(self)
        other._device = device
        return other

    def check(self) -> None:
        """End the study here if it is to end.

        Raises
        ------
        concurrent.futures.CancelledError
            Then.
        """
        if self.stop.is_set():
            raise CancelledError

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays.

        Parameters
        ----------
        model
            Name of the Triton model.
        inputs
            Arrays by name, with the model's element types and shapes; with the batch axis where it
            has one. Arrays on a GPU travel through CUDA shared memory where the server takes it.
        outputs
            Names of the outputs that are wanted.
        deadline_s
            Seconds for the answer; None for the connection's own.
        output_shapes
            Whole shapes of outputs that the server declares with lengths of -1 and the caller
            knows; without them such outputs come over gRPC.

        Raises
        ------
        ConnectionFailed
            No server, none that is Triton, or it went away for longer than the retry window.
        DeadlineExceeded
            The server had the request and did not answer in time.
        InferenceFailed
            The server answered with an error; an unknown model and wrong inputs are such.
        """
        self.check()
        self._device.synchronize()  # the arrays are complete, whatever stream takes them
        return self._server.infer(
            model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
        )

    def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it; asked once until the server goes away.

        Parameters
        ----------
        name
            Name of the Triton model.
        """
        self.check()
        return self._server.model(name)

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        self.check()
        return self._server.models()

    def about(self) -> dict[str, Any] | None:
        """What the server says about the weights it serves, None when it says nothing."""
        self.check()
        return self._server.about()

    @property
    def about_later(self) -> Callable[[], dict[str, Any] | None]:
        """`about` for the time after the study, when its end no longer matters."""
        return self._server.about

    def integers(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Widen integer inputs to what the served model takes.

        The ONNX models take INT16; TensorRT has no 16-bit integers, so its engines of the same
        name take INT32. What would lose something stays, and the server refuses it.

        Parameters
        ----------
        name
            Name of the Triton model.
        inputs
            Arrays by name.
        """
        served = self.model(name)
        found = dict(inputs)
        for key, array in inputs.items():
            wanted = triton_to_np_dtype(served.inputs[key].dtype)
            if wanted is not None and np.can_cast(array.dtype, wanted):
                found[key] = array.astype(wanted, copy=False)
        return found

    def map(self, function: Callable[[S], T], items: Iterable[S], in_flight: int) -> list[T]:
        """Call `function` on each item in threads, `in_flight` at once; results in order.

        Items are taken as they are needed, so they may be lazy; the first error ends the whole.

        Parameters
        ----------
        function
            Called with one item, in a thread that works on the study's device.
        items
            What it is called with.
        in_flight
            How many at once.
        """
        self._device.synchronize()

        def one(item: S) -> T:
            self.check()
            with self._device:
                return function(item)

        return list(in_order(one, items, in_flight))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report how far the study has come.

        Parameters
        ----------
        stage
            Name of the stage.
        done, total
            Steps of it that are done, and all of them.
        """
        self.check()
        self._progress(Progress(stage, done, total))

    def steps(self, stage: str, total: int) -> Callable[[], None]:
        """What each of several threads calls when it has done a step: reports 1, 2, … in order.

        Parameters
        ----------
        stage
            Name of the stage.
        total
            How many steps it has.
        """
        lock, numbers = threading.Lock(), itertools.count(1)

        def one_more() -> None:
            with lock:  # reported before the next is counted: no thread overtakes another
                self.progress(stage, next(numbers), total)

        return one_more
