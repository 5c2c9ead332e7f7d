"""What clients that block have in common, be it for one server or for several."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hilum.preprocessing.arrays import Array

from .batch import Batch, identity, run_study
from .calls import Calls, Progress
from .concurrent import in_order
from .models import Inference, ModelInfo
from .protocols import AnySystem, Outcome
from .registry import resolve

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class Blocking(ABC):
    """Runs systems and models in the thread that asks.

    Attributes
    ----------
    metrics
        Where requests and studies are counted for Prometheus; None for nowhere.
    on_progress
        Called with the progress of studies, from several threads.
    servers
        How many servers there are.
    """

    metrics: Metrics | None
    on_progress: Callable[[Progress], None]
    servers: int = 1

    def calls(self, stop: threading.Event | None = None) -> Calls:
        """What a system is given to ask this client.

        Parameters
        ----------
        stop
            Once it is set the study ends with `CancelledError` at its next call.
        """
        return Calls(self, lambda progress: self.on_progress(progress), stop)

    def run(
        self,
        system: str | AnySystem,
        study: Any,
        *,
        options: object | None = None,
        **given: Any,
    ) -> Any:
        """Run a system on one study.

        Parameters
        ----------
        system
            Its name, for instance ``"cxr-severity"``, or a system object.
        study
            A file or folder, the bytes of a file, an array, or what else the system takes.
        options
            The system's options as an object, instead of keywords.
        **given
            Fields of the system's options, for instance ``network="pspnet"``; and for an array of a
            CT ``spacing`` or ``affine``, see `Placed`.

        Returns
        -------
        Result
            Of the system's own type, for instance `CxrResult`.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """
        found, chosen, placed = resolve(system, options, given)
        return run_study(found, placed(study), chosen, self.calls(), self.metrics)

    def run_many(
        self,
        system: str | AnySystem,
        studies: Iterable[Any],
        *,
        in_flight: int | None = None,
        finish: Callable[[Outcome], Any] | None = None,
        options: object | None = None,
        stop: threading.Event | None = None,
        **given: Any,
    ) -> Generator[Any, None, None]:
        """Run a system on many studies, `in_flight` at once; yields outcomes in input order.

        A study that fails is an outcome with an error; the batch goes on. Memory is bounded by
        `in_flight`, however many studies there are. When the iteration is ended, by Ctrl-C for
        instance, the studies that run end, too.

        Parameters
        ----------
        system
            Its name, or a system object.
        studies
            The studies, which may be lazy.
        in_flight
            None: 4 for each server, or fewer where one study takes gigabytes (`dlpe`).
        finish
            Called with each `Outcome` in the thread that computed it; what it returns is yielded
            in the outcome's place.
        options
            The system's options as an object, instead of keywords.
        **given
            Fields of the system's options, and for arrays of a CT ``spacing`` or ``affine``.
        stop
            Once it is set, from any thread, each study ends with `CancelledError` at its next
            call, and those that follow at once.
        """
        found, chosen, placed = resolve(system, options, given)
        at_once = self.servers * found.studies_in_flight if in_flight is None else in_flight
        batch = Batch(found, chosen, finish or identity, at_once, self.metrics)
        end = stop or threading.Event()

        def work(numbered: tuple[int, Any]) -> Any:
            return batch.run(*numbered, self.calls(end))

        return in_order(work, enumerate(map(placed, studies)), at_once, end.set)

    @abstractmethod
    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        deadline_s: float | None = None,
        output_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Inference:
        """Run a model on arrays, see `Client.infer`."""

    @abstractmethod
    def model(self, name: str) -> ModelInfo:
        """The signature of a model as the server has it."""

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the models that are ready."""

    @abstractmethod
    def about(self) -> dict[str, Any] | None:
        """What is known of the weights that are served, None when the server says nothing."""

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
