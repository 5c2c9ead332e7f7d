"""What a driver counts for Prometheus. No label holds anything that comes from a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_BUCKETS_S = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class BatchMetrics:
    """Metrics of one batch, with a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._studies = Gauge(
            "hilum_batch_studies", "Studies of the ledger, by state.", ("state",),
            registry=self.registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "hilum_batch_in_flight", "Studies that run now.", registry=self.registry
        )
        self._failures = Counter(
            "hilum_batch_failures", "Tries that failed, by kind of error.", ("kind",),
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "hilum_batch_study_seconds", "From fetching a study to its committed result.",
            buckets=_BUCKETS_S, registry=self.registry,
        )  # fmt: skip

    def tried(self, kind: str, seconds: float) -> None:
        """Count a try."""
        if kind:
            self._failures.labels(kind).inc()
        else:
            self._seconds.observe(seconds)

    def count(self, counts: Mapping[str, int]) -> None:
        """Show the states of all studies."""
        for state, count in counts.items():
            self._studies.labels(state).set(count)

    def fly(self, count: int) -> None:
        """Show how many studies run now."""
        self._in_flight.set(count)

    @contextmanager
    def served(self, port: int) -> Iterator[int]:
        """Serve them on the loopback meanwhile; 0 for any port."""
        server, thread = start_http_server(port, "127.0.0.1", self.registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)
