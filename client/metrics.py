"""What a client did, for Prometheus: requests, failures, latencies, bytes, what is in flight.

No label holds anything that comes from a study, and every label has few values: a model or system
that is not in the catalog counts as ``other``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from tritonclient.utils import InferenceServerException

from hilum.catalog import ABOUT, SYSTEMS
from hilum.catalog.errors import ConnectionFailed, DeadlineExceeded, InferenceFailed, InputError
from hilum.preprocessing.arrays import Array

from .models import Inference
from .steps import Steps
from .transport import status_of

BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""Upper bounds of the latency histograms in seconds; a whole CT takes minutes on a CPU."""

OTHER = "other"
"""Label of a model or system that is not in the catalog."""

_STATUSES = frozenset(status.name for status in grpc.StatusCode)

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (InputError, "input"),
    (DeadlineExceeded, "deadline_exceeded"),
    (ConnectionFailed, "unavailable"),
    (InferenceFailed, "invalid_argument"),
    (CancelledError, "cancelled"),
    (asyncio.CancelledError, "cancelled"),
    (GeneratorExit, "cancelled"),
    (KeyboardInterrupt, "cancelled"),
)
"""Of errors that no gRPC status caused; any other is ``internal``."""


class Metrics:
    """Metrics of one or more clients. Thread-safe.

    Parameters
    ----------
    registry
        Where they are registered, for instance ``prometheus_client.REGISTRY``; None for one of
        their own (`registry`). A registry takes one `Metrics`; clients share it.
    models
        Names of models beside those of the catalog that get a label of their own.

    Examples
    --------
    >>> metrics = Metrics()
    >>> with metrics.served(9464), Client("localhost:8001", metrics=metrics) as client:
    ...     client.run("cxr-severity", "study.dcm")  # doctest: +SKIP
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, models: Iterable[str] = ()
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._models = {m.model for s in SYSTEMS.values() for m in s.models()}
        self._models |= {ABOUT.model, *models}
        on: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "hilum_client_requests",
            "Inference requests that ended, by outcome (ok, failed) and transport of the tensors "
            "(grpc, shm, cuda; none where no answer came).",
            ("model", "outcome", "transport"), **on,
        )  # fmt: skip
        self._failures = Counter(
            "hilum_client_request_failures",
            "Inference requests that failed after all retries, by gRPC status.",
            ("model", "reason"), **on,
        )  # fmt: skip
        self._retries = Counter(
            "hilum_client_request_retries",
            "Attempts after the first of a request: the server was away or busy.",
            ("model",), **on,
        )  # fmt: skip
        self._duration = Histogram(
            "hilum_client_request_duration_seconds",
            "From the first attempt of a request to its answer, waits between attempts included; "
            "failed requests are left out.",
            ("model",), buckets=BUCKETS_S, **on,
        )  # fmt: skip
        self._sent = Counter(
            "hilum_client_sent_bytes", "Input tensors of answered requests.",
            ("model", "transport"), **on,
        )  # fmt: skip
        self._received = Counter(
            "hilum_client_received_bytes", "Output tensors of answered requests.",
            ("model", "transport"), **on,
        )  # fmt: skip
        self._in_flight = Gauge(
            "hilum_client_requests_in_flight",
            "Inference requests under way, waits between attempts included.", ("model",), **on,
        )  # fmt: skip
        self._studies = Counter(
            "hilum_client_studies", "Studies that ended, by outcome (ok, failed).",
            ("system", "outcome"), **on,
        )  # fmt: skip
        self._study_failures = Counter(
            "hilum_client_study_failures",
            "Studies that failed, by reason: input, or as for requests.",
            ("system", "reason"), **on,
        )  # fmt: skip
        self._study_duration = Histogram(
            "hilum_client_study_duration_seconds",
            "From the start of reading a study to its result; failed studies are left out.",
            ("system",), buckets=BUCKETS_S, **on,
        )  # fmt: skip
        self._studies_in_flight = Gauge(
            "hilum_client_studies_in_flight", "Studies that run.", ("system",), **on
        )

    def request(
        self, model: str, inputs: Mapping[str, Array], steps: Steps[Inference]
    ) -> Steps[Inference]:
        """Run the steps of a request and count it.

        Parameters
        ----------
        model
            Name of the Triton model.
        inputs
            Its input arrays, whose bytes are counted.
        steps
            The request.
        """
        model = model if model in self._models else OTHER
        with self._in_flight.labels(model).track_inprogress():
            try:
                answer = yield from steps
            except BaseException as error:
                self._requests.labels(model, "failed", "none").inc()
                self._failures.labels(model, reason(error)).inc()
                raise
            self._requests.labels(model, "ok", answer.transport).inc()
            self._duration.labels(model).observe(answer.seconds)
            self._sent.labels(model, answer.transport).inc(_size(inputs))
            self._received.labels(model, answer.transport).inc(_size(answer.outputs))
            return answer

    def retried(self, model: str) -> None:
        """Count an attempt after the first.

        Parameters
        ----------
        model
            Name of the Triton model.
        """
        self._retries.labels(model if model in self._models else OTHER).inc()

    @contextmanager
    def study(self, system: str) -> Iterator[None]:
        """Count the study that is run meanwhile.

        Parameters
        ----------
        system
            Name of the system.
        """
        system = system if system in SYSTEMS else OTHER
        with self._studies_in_flight.labels(system).track_inprogress():
            started = time.perf_counter()
            try:
                yield
            except BaseException as error:
                self._studies.labels(system, "failed").inc()
                self._study_failures.labels(system, reason(error)).inc()
                raise
            self._studies.labels(system, "ok").inc()
            self._study_duration.labels(system).observe(time.perf_counter() - started)

    @contextmanager
    def served(self, port: int, address: str = "127.0.0.1") -> Iterator[int]:
        """Answer on ``http://ADDRESS:PORT/metrics`` meanwhile; yields the port.

        Parameters
        ----------
        port
            0 for a free one.
        address
            Address to bind; the loopback unless you decide otherwise.

        Raises
        ------
        InputError
            When something else listens there.
        """
        try:
            server, thread = start_http_server(port, address, self.registry)
        except OSError as error:
            raise InputError(
                f"metrics cannot be served on {address}:{port} ({error}); choose another port"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def reason(error: BaseException) -> str:
    """Why a request or study failed: a gRPC status in lower case, or one of few other words."""
    cause = error.__cause__
    if isinstance(cause, InferenceServerException) and status_of(cause) in _STATUSES:
        return status_of(cause).lower()
    return next((word for kind, word in _REASONS if isinstance(error, kind)), "internal")


def _size(arrays: Mapping[str, Array]) -> int:
    return sum(
        array.nbytes if hasattr(array, "nbytes") else np.asarray(array).nbytes
        for array in arrays.values()
    )
