"""Watching what the steps of a pipeline ask of a server: requests, slices, bytes, networks."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...catalog import Ensemble, Network, find_model
from ...client import Client
from ...client.steps import Action, Ask, Compute, Each, Steps, run_steps

T = TypeVar("T")


@dataclass(slots=True)
class Asked:
    """What was asked of one model; seconds are those of requests, which overlap."""

    requests: int = 0
    slices: int = 0
    seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(slots=True)
class Watched:
    """Drives steps through a client and notes what they ask of the server. Thread-safe.

    Attributes
    ----------
    asked
        By Triton model.
    passes
        Slices by network: those of an ensemble whose output was requested.
    local_s
        Seconds that slabs took in the client: cut, converted, added. Of several at once.
    """

    client: Client
    asked: defaultdict[str, Asked] = field(default_factory=lambda: defaultdict(Asked))
    passes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    local_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def drive(self, steps: Steps[T], *, within: bool = False) -> T:
        """Run steps; `within`: they are one of many, those of a slab."""
        return run_steps(steps, lambda action: self._perform(action, within=within))

    def _perform(self, action: Action, *, within: bool) -> Any:
        if isinstance(action, Each):
            action = dataclasses.replace(action, make=self._watched(action))
        start = time.perf_counter()
        outcome = self.client.drive(_alone(action))
        seconds = time.perf_counter() - start
        with self._lock:
            if within and isinstance(action, Compute):
                self.local_s += seconds
            if isinstance(action, Ask) and action.method == "infer":
                self._note(*action.arguments, answer=outcome)
        return outcome

    def _watched(self, each: Each) -> Any:
        def make(item: Any) -> Steps[Any]:
            return (yield Compute(lambda: self.drive(each.make(item), within=True)))

        return make

    def _note(self, model: str, inputs: Any, outputs: Any, *, answer: Any) -> None:
        arrays = answer.outputs.values()
        slices = len(next(iter(arrays)))
        asked = self.asked[model]
        asked.requests += 1
        asked.slices += slices
        asked.seconds += answer.seconds
        asked.bytes_sent += sum(a.nbytes for a in inputs.values())
        asked.bytes_received += sum(a.nbytes for a in arrays)
        for network in called(model, outputs):
            self.passes[network] += slices


def called(model: str, outputs: Any) -> list[str]:
    """Triton models of the networks that run when these outputs of a model are requested."""
    ensemble = find_model(model)
    if not isinstance(ensemble, Ensemble):
        return [model]
    wanted = set(outputs)
    return [
        call.target.model
        for call in ensemble.calls
        if isinstance(call.target, Network) and wanted & set(call.outputs.values())
    ]


def _alone(action: Action) -> Steps[Any]:
    """Steps of a single action."""
    return (yield action)
