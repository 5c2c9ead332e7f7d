"""How the client talks to a server, written once and waiting in two ways.

A generator of type `Steps` yields what has to be waited for, is sent the outcome, and returns its
result. `run_steps` drives it in a thread, `run_steps_async` in an event loop. Steps call other
steps with ``yield from``. Systems know nothing of this: they use `hilum.client.calls`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.grpc.aio import InferenceServerClient as AsyncInferenceServerClient

T = TypeVar("T")

Stub: TypeAlias = "InferenceServerClient | AsyncInferenceServerClient"
"""What makes the calls, in a thread or in an event loop."""

Method = Callable[..., Any]
"""A method of a `Stub`: the asyncio one's give awaitables."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call the method that `method` takes of a stub: ``Rpc(lambda stub: stub.infer, 10.0)``.

    Outcome: what the method returns, or the ``InferenceServerException`` it raises.
    """

    method: Callable[[Stub], Method]
    timeout_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait; cut short when the client is closed."""

    seconds: float


SMALL_BYTES = 1 << 16
"""What is copied at once on an event loop: a thread would take longer to be asked."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a function that computes, copies or blocks.

    Outcome: what it returns. In an event loop it runs in a thread beside it.

    Attributes
    ----------
    size
        Bytes that it copies, if that is all it does: few are copied on the event loop.
    """

    function: Callable[[], Any]
    size: int | None = None

    @property
    def is_short(self) -> bool:
        """Whether it takes no longer than to ask a thread."""
        return self.size is not None and self.size <= SMALL_BYTES


Action = Rpc | Sleep | Compute
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
