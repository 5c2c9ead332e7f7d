"""What a study costs: seconds by stage, passes of networks, slabs, bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hilum.client.models import Inference
from hilum.client.trace import span
from hilum.preprocessing.arrays import Array


@dataclass(slots=True)
class Ledger:
    """Counts the work of one study. Thread-safe.

    Attributes
    ----------
    timings
        Seconds by stage, in the order of the stages.
    passes, published_passes
        Slices through networks, done and in the published program.
    slabs
        Requests.
    most_in_flight
        Requests on their way at once, at most.
    bytes_sent, bytes_received
        Of tensors.
    transport
        How the last one travelled.
    """

    timings: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    published_passes: int = 0
    slabs: int = 0
    most_in_flight: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    transport: str = ""
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """Take the time of a stage, which may come in several parts; `whole` as in `trace.span`."""
        start = time.perf_counter()
        try:
            with span(name, whole=whole):
                yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request is on its way."""
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def add(self, sent: Iterable[Array], answer: Inference, passes: int) -> None:
        """Enter a request that was answered."""
        out, back = sum(a.nbytes for a in sent), sum(a.nbytes for a in answer.outputs.values())
        with self._lock:
            self.slabs += 1
            self.passes += passes
            self.bytes_sent += out
            self.bytes_received += back
            self.transport = answer.transport

    def counts(self) -> dict[str, int]:
        """The whole numbers, for a report."""
        names = ("passes", "published_passes", "slabs", "most_in_flight",
                 "bytes_sent", "bytes_received")  # fmt: skip
        return {name: getattr(self, name) for name in names}
