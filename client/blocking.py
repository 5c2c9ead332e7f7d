"""What clients that block have in common, be it for one server or for several."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..preprocessing.arrays import Array
from .batch import Batch, Outcome, as_it_is, at_once, choose
from .connection import counted
from .pipelines import Pipeline, Source
from .session import Inference
from .steps import Action, Ask, Compute, Each, Rpc, Sleep, Steps, Tell, run_steps
from .window import in_order

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class Blocking(ABC):
    """Runs steps, and with them systems and models, in the thread that asks.

    Attributes
    ----------
    metrics
        Where requests and studies are counted for Prometheus; None for nowhere.
    on_progress
        Called with what studies tell of their progress, from several threads.
    servers
        How many servers there are.
    """

    metrics: Metrics | None
    on_progress: Callable[[Tell], None]
    servers: int = 1

    def study(self, pipeline: Pipeline, source: Source, options: Any) -> Steps[Any]:
        """The steps of one study, counted where the client has metrics; `drive` runs them."""
        return counted(pipeline, source, options, self.metrics)

    def drive(self, steps: Steps[T], stop: threading.Event | None = None) -> T:
        """Run steps, those of a pipeline for instance, in this thread.

        Parameters
        ----------
        stop
            Once it is set the steps end with `CancelledError` at their next action.
        """

        def perform(action: Action) -> Any:
            if stop is not None and stop.is_set():
                raise CancelledError
            return self._perform(action)

        return run_steps(steps, perform)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays, see `Session.infer`."""
        options = {"deadline_s": deadline_s, "output_shapes": output_shapes}
        return self._reach(Ask("infer", (model, inputs, outputs), options))

    def run(
        self, system: str, source: Source, *, options: object | None = None, **given: Any
    ) -> Any:
        """Run a system on one study.

        Parameters
        ----------
        system
            Its name, for instance ``"cxr-severity"``.
        source
            A file or folder, the bytes of a file, or an array.
        options
            The pipeline's options as an object, instead of keywords.
        **given
            Fields of the pipeline's options, for instance ``network="pspnet"``.

        Returns
        -------
        The result type of the system's pipeline, for instance `CxrResult`.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """
        pipeline, chosen = choose(system, options, given)
        return self.drive(self.study(pipeline, source, chosen))

    def run_many(
        self,
        system: str,
        sources: Iterable[Source],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        **given: Any,
    ) -> Generator[Any, None, None]:
        """Run a system on many studies, `in_flight` at once; yields outcomes in input order.

        A study that fails is an outcome with an error; the batch goes on. Memory is bounded by
        `in_flight`, however many studies there are.

        Parameters
        ----------
        in_flight
            None: 4 for each server, or fewer where one study takes gigabytes (`dlpe`).
        finish
            Called with each `Outcome` in the thread that computed it; what it returns is yielded
            in the outcome's place.
        """
        pipeline, chosen = choose(system, options, given)
        at = self.servers * at_once(pipeline, None) if in_flight is None else in_flight
        return Batch(pipeline, chosen, finish or as_it_is, at).run(self, sources)

    @abstractmethod
    def close(self) -> None:
        """End all requests and close what is open. May be repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _perform(self, action: Action) -> Any:
        match action:
            case Compute():
                return action.perform()
            case Each():
                make = action.make
                return list(
                    in_order(lambda item: self.drive(make(item)), action.items, action.in_flight)
                )
            case Tell():
                self.on_progress(action)
                return None
            case Ask() | Rpc() | Sleep():
                return self._reach(action)

    @abstractmethod
    def _reach(self, action: Ask | Rpc | Sleep) -> Any:
        """Do what has to do with servers."""
