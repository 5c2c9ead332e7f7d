"""Metrics and health of a gateway over HTTP: ``/metrics``, ``/live``, ``/ready``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from hilum.catalog.errors import OutputError

from .ledger import Ledger
from .records import STATES
from .spool import Spool


class GatewayCollector:
    """Reads the ledger when Prometheus asks. No label comes from a study."""

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger, self._spool = ledger, spool

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs and series by state, age of the oldest open job, bytes in the spool."""
        counts = self._ledger.counts()
        jobs = GaugeMetricFamily("hilum_gateway_jobs", "Jobs by state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], counts[state])
        yield jobs
        series = GaugeMetricFamily("hilum_gateway_series", "Series by state.", labels=["state"])
        for state in ("seen", "taken", "ignored"):
            series.add_metric([state], counts.get(f"series_{state}", 0))
        yield series
        oldest = self._ledger.oldest()
        yield GaugeMetricFamily(
            "hilum_gateway_oldest_job_seconds",
            "Age of the oldest job that is not over; 0 without one.",
            value=0.0 if oldest is None else time.time() - oldest,
        )
        yield GaugeMetricFamily(
            "hilum_gateway_spool_bytes", "Bytes in the spool.", value=self._spool.bytes()
        )
        yield GaugeMetricFamily(
            "hilum_gateway_intake_waits",
            "1 while nothing is fetched because the disk or the spool is full.",
            value=float(bool(self._spool.full())),
        )


@contextmanager
def served(
    host: str, port: int, ledger: Ledger, spool: Spool, health: Callable[[str], str]
) -> Iterator[int]:
    """Serve metrics and health meanwhile; gives the port that is used.

    Parameters
    ----------
    health
        What is wrong for ``live`` or ``ready``; empty when nothing is.

    Raises
    ------
    OutputError
        When the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(GatewayCollector(ledger, spool))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what = self.path.partition("?")[0].strip("/")
            if what == "metrics":
                self._answer(200, generate_latest(registry), "text/plain; version=0.0.4")
            elif what in ("live", "ready"):
                wrong = health(what)
                self._answer(503 if wrong else 200, (wrong or "ok").encode() + b"\n")
            else:
                self._answer(404, b"there are /metrics, /live and /ready\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Requests are not logged."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as failure:
        raise OutputError(
            f"port {port} of {host} cannot be had: {failure.strerror}; choose another one under "
            "[operation]"
        ) from failure
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
