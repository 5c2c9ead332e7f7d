"""The client that blocks, for one server."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tritonclient.grpc

from hilum.preprocessing.arrays import Array

from . import errors as failures
from .blocking import Blocking
from .connection import Connection, arguments, connect
from .models import Inference, ModelInfo, ModelState, ModelStatistics
from .options import ConnectionOptions
from .session import Session
from .steps import Action, Compute, Rpc, Sleep, Steps, run_steps

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class Client(Connection, Blocking):
    """A client that blocks. Many threads may use one at once.

    Parameters
    ----------
    url
        ``host:port`` of Triton's gRPC endpoint, or ready options.
    metrics
        Where requests and studies are counted for Prometheus (`hilum.client.metrics`); None for
        nowhere.
    **options
        Fields of `ConnectionOptions`.

    Examples
    --------
    >>> with Client("localhost:8001", deadline_s=30) as client:  # doctest: +SKIP
    ...     answer = client.infer("cxr_lung", {"image": pixels}, ["lung"])
    ...     mask = answer.outputs["lung"]
    """

    def __init__(
        self,
        url: str | ConnectionOptions = "localhost:8001",
        *,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, metrics=metrics, **options)
        self._closing = threading.Event()
        self._stub = connect(tritonclient.grpc.InferenceServerClient, self.options)
        # Also runs when the interpreter ends, while RPCs still work.
        self._end = weakref.finalize(self, _shut, self.session, self._stub, self._closing)

    def drive(self, steps: Steps[T]) -> T:
        """Run steps of the wire in this thread.

        Parameters
        ----------
        steps
            What to send and wait for, see `hilum.client.steps`.

        Returns
        -------
        T
            What the steps return.
        """
        return run_steps(steps, self._perform)

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
        return self.drive(
            self.session.infer(
                model, inputs, outputs, deadline_s=deadline_s, output_shapes=output_shapes
            )
        )

    def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it.

        Parameters
        ----------
        name
            Name of the Triton model.
        """
        return self.drive(self.session.model(name))

    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""
        return self.drive(self.session.models())

    def repository(self) -> tuple[ModelState, ...]:
        """Every model in the server's repository, with its state."""
        return self.drive(self.session.repository())

    def statistics(self, model: str) -> ModelStatistics:
        """What the server counted for a model since it started.

        Parameters
        ----------
        model
            Name of the Triton model.
        """
        return self.drive(self.session.statistics(model))

    def describe(self) -> dict[str, str]:
        """Address, name and version of the server, and how tensors travel, for a report."""
        return self.drive(self.session.describe())

    def about(self) -> dict[str, Any] | None:
        """What the server says about the weights it serves, None when it says nothing."""
        return self.drive(self.session.about())

    def ready(self) -> bool:
        """Whether a Triton server answers and all its models are ready."""
        return self.drive(self.session.ready())

    def close(self) -> None:
        """End all requests, give shared memory back, close the connection. May be repeated."""
        self._end()

    def _perform(self, action: Action) -> Any:
        match action:
            case Rpc():
                try:
                    return action.method(self._stub)(**arguments(action, self.options))
                except ValueError as error:
                    if self.session.closed:
                        raise failures.client_closed() from error
                    raise
            case Sleep():
                self._closing.wait(action.seconds)
                return None
            case Compute():
                return action.function()


def _shut(
    session: Session, stub: tritonclient.grpc.InferenceServerClient, closing: threading.Event
) -> None:
    def perform(action: Action) -> Any:
        if isinstance(action, Rpc):
            return action.method(stub)(**arguments(action, session.options))
        assert isinstance(action, Sleep)  # noqa: S101 - closing computes nothing
        time.sleep(action.seconds)
        return None

    try:
        run_steps(session.close(), perform)
    finally:
        closing.set()
        stub.close()
