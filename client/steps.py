"""Client code that is written once and waits in two ways.

A generator of type `Steps` yields what has to be waited for, is sent the outcome, and returns its
result. `run_steps` drives it in a thread, `run_steps_async` in an event loop. Steps call other
steps with ``yield from``::

    def lung_area(image: Array) -> Steps[int]:
        pixels = yield calls.Compute(lambda: prepare(image), "preprocess")
        answer = yield from calls.infer("cxr_lung", {"image": pixels}, ["lung"])
        return int(answer.outputs["lung"].sum())
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .trace import span

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call `method` of tritonclient's ``InferenceServerClient``.

    Outcome: what the method returns, or the ``InferenceServerException`` it raises.
    """

    method: str
    timeout_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait; cut short when the client is closed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a function that computes or blocks: at once, or in a thread beside an event loop.

    Attributes
    ----------
    name
        What it does, in a word, for a trace; empty where that is not worth a bar.
    """

    function: Callable[[], Any]
    name: str = ""

    def perform(self) -> Any:
        """Call it."""
        if not self.name:
            return self.function()
        with span(self.name):
            return self.function()


@dataclass(frozen=True, slots=True)
class Ask:
    """Run a method of the client's `Session` that returns `Steps`, with its retries and all."""

    method: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Each:
    """Run steps for each of many items, `in_flight` at once.

    Outcome: their results, in the order of the items. Items are taken as they are needed, so they
    may be lazy; the first error ends the whole.
    """

    make: Callable[[Any], Steps[Any]]
    items: Iterable[Any]
    in_flight: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell whoever runs the steps how far they have come."""

    stage: str
    done: int
    total: int


Action = Rpc | Sleep | Compute | Ask | Each | Tell
Steps = Generator[Action, Any, T]


def run_steps(steps: Steps[T], perform: Callable[[Action], Any]) -> T:
    """Drive `steps` to their end; `perform` carries out one action and returns its outcome."""
    try:
        action = next(steps)
        while True:
            try:
                outcome = perform(action)
            except BaseException as error:  # noqa: BLE001 - the steps decide, and clean up
                action = steps.throw(error)
            else:
                action = steps.send(outcome)
    except StopIteration as end:
        return end.value


async def run_steps_async(steps: Steps[T], perform: Callable[[Action], Awaitable[Any]]) -> T:
    """`run_steps` for an event loop. A cancelled task cancels the action that is under way."""
    try:
        action = next(steps)
        while True:
            try:
                outcome = await perform(action)
            except BaseException as error:  # noqa: BLE001 - the steps decide, and clean up
                action = steps.throw(error)
            else:
                action = steps.send(outcome)
    except StopIteration as end:
        return end.value


def changed(steps: Steps[T], change: Callable[[Action], Action]) -> Steps[T]:
    """`steps` with other actions in the place of their own; outcomes and errors are theirs."""
    try:
        action = next(steps)
        while True:
            try:
                outcome = yield change(action)
            except BaseException as error:  # noqa: BLE001 - the steps decide, and clean up
                action = steps.throw(error)
            else:
                action = steps.send(outcome)
    except StopIteration as end:
        return end.value
