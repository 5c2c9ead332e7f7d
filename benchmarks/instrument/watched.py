"""Counting what a study asks of a server: requests and bytes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum.client import Client, Inference
from hilum.client.batch import run_study
from hilum.client.calls import Calls
from hilum.client.protocols import AnySystem
from hilum.preprocessing.arrays import Array


@dataclass(slots=True)
class Moved:
    """What one task moves: requests, and tensors of all of them over whichever transport."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Watched(Calls):
    """The calls of one study, counted in `moved`. Thread-safe.

    A study works on a copy of them, which counts in the same place.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.moved = Moved()
        self._lock = threading.Lock()

    def run(self, system: AnySystem, study: Any, options: Any) -> Any:
        """Run one study of a system with these calls."""
        return run_study(system, study, options, self, None)

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], **options: Any
    ) -> Inference:
        """Run a model on arrays and count it."""
        answer = super().infer(model, inputs, outputs, **options)
        with self._lock:
            self.moved.requests += 1
            self.moved.sent_bytes += sum(a.nbytes for a in inputs.values())
            self.moved.received_bytes += sum(a.nbytes for a in answer.outputs.values())
        return answer
