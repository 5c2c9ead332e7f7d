"""What the server counted while a lane ran: Triton's statistics by model, and its metrics.

The counts are read before and after each round and subtracted, so that interleaved lanes do not see
each other's work. They count everything the server did meanwhile, other clients' work included.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import ConnectionFailed
from hilum.client import Client
from hilum.client.steps import Rpc, Steps
from hilum.client.transport import CONTROL_TIMEOUT_S

from .loops import Way
from .record import Counters, Round

Counts = Mapping[str, Counters]
"""By Triton model."""

GAUGES: Mapping[str, tuple[str, float]] = {
    "nv_gpu_utilization": ("GPU use, share of 1", 1.0),
    "nv_gpu_memory_used_bytes": ("GPU memory in use, GiB", 2.0**-30),
    "nv_gpu_power_usage": ("GPU power, W", 1.0),
    "nv_cpu_utilization": ("processor use, share of 1", 1.0),
    "nv_cpu_memory_used_bytes": ("memory in use, GiB", 2.0**-30),
}
"""Of the server's metrics: what its machine carries while a lane runs; in words, and the factor to
the unit that these name."""

_SETTLED_S = 1.0
"""Triton counts a request shortly after it has answered; so long is waited for that at most."""

_EVERY_S = 1.0
"""Between two readings of the metrics."""


def counts(client: Client, models: Iterable[str]) -> dict[str, Counters]:
    """What the server has counted for models since it started, summed over their versions.

    A model that the server does not have is left out.

    Raises
    ------
    ConnectionFailed
        When the server does not answer.
    """
    wanted = set(models)
    reply = client.drive(_statistics())
    found: dict[str, list[Any]] = defaultdict(list)
    for entry in reply.model_stats:
        if entry.name in wanted:
            found[entry.name].append(entry)
    return {name: _counters(entries) for name, entries in found.items()}


def settled(client: Client, models: Iterable[str]) -> dict[str, Counters]:
    """Read `counts` once they stand still: what was answered last is then counted, too."""
    models = tuple(models)
    end = time.monotonic() + _SETTLED_S
    found = counts(client, models)
    while time.monotonic() < end:
        time.sleep(0.02)
        again = counts(client, models)
        if again == found:
            break
        found = again
    return found


def gained(before: Counts, after: Counts) -> dict[str, Counters] | None:
    """The difference of two readings; None when the server was restarted in between.

    A server that was restarted begins at nothing, so a count that fell betrays it.
    """
    found: dict[str, Counters] = {}
    for model, now in after.items():
        then = before.get(model, Counters(0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0))
        found[model] = _combined(now, then, -1)
        if any(value < 0 for value in _numbers(found[model])):
            return None
    return found if set(before) <= set(after) else None


def added(one: Counts, other: Counts) -> dict[str, Counters]:
    """The sum of two differences."""
    found = dict(one)
    for model, more in other.items():
        found[model] = _combined(found[model], more, 1) if model in found else more
    return found


@dataclass(slots=True)
class Watch:
    """Counts what the server does during the rounds of each lane.

    Attributes
    ----------
    models
        Whose counts are read; ensembles and what they call.
    metrics_url
        Of the server's Prometheus metrics; None when there are none to read.
    """

    client: Client
    models: tuple[str, ...]
    metrics_url: str | None = None
    _counts: dict[str, Counts] = field(default_factory=dict)
    _restarts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _gauges: dict[str, dict[tuple[str, str], list[float]]] = field(default_factory=dict)

    def over(self, name: str, way: Way) -> Way:
        """The same way, with the server watched during its rounds."""

        def watched(number: int) -> Round:
            before = self._read()
            with self._reading(name):
                measured = way(number)
            after = self._read()
            more = None if before is None or after is None else gained(before, after)
            if more is None:
                self._restarts[name] += 1
            else:
                self._counts[name] = added(self._counts.get(name, {}), more)
            return measured

        return watched

    def counts_of(self, name: str) -> dict[str, Counters]:
        """Sums over the lane's rounds, for the models that did anything."""
        found = self._counts.get(name, {})
        return {m: found[m] for m in self.models if m in found and _did(found[m])}

    def restarts_of(self, name: str) -> int:
        """Rounds during which the server was restarted or away; their counts are left out."""
        return self._restarts[name]

    def gauges(self) -> list[dict[str, Any]]:
        """Rows for JSON: by lane, what the server's metrics said once a second."""
        return [
            {
                "lane": lane,
                "metric": metric,
                "device": device,
                "mean": sum(values) / len(values),
                "largest": max(values),
                "readings": len(values),
            }
            for lane, found in self._gauges.items()
            for (metric, device), values in found.items()
        ]

    def _read(self) -> dict[str, Counters] | None:
        """The counts; None while the server is away, whose rounds are measured all the same."""
        try:
            return settled(self.client, self.models)
        except ConnectionFailed:
            return None

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        if self.metrics_url is None:
            yield
            return
        url, ended = self.metrics_url, threading.Event()
        kept = self._gauges.setdefault(name, defaultdict(list))

        def read() -> None:
            while not ended.wait(_EVERY_S):
                for key, value in gauges(url).items():
                    kept[key].append(value)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def gauges(url: str) -> dict[tuple[str, str], float]:
    """`GAUGES` of a server by their words and device; empty when its metrics cannot be read.

    Devices are numbered, since a GPU's UUID is nobody's business in a report.
    """
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http, from an option
            text = answer.read().decode()
    except (OSError, UnicodeDecodeError, ValueError):
        return {}
    found: dict[tuple[str, str], float] = {}
    seen: list[str] = []
    for family in text_string_to_metric_families(text):
        if family.name not in GAUGES:
            continue
        for sample in family.samples:
            device = sample.labels.get("gpu_uuid")
            if device is not None and device not in seen:
                seen.append(device)
            name = "host" if device is None else f"GPU {seen.index(device)}"
            words, factor = GAUGES[family.name]
            found[words, name] = factor * float(sample.value)
    return found


def _statistics() -> Steps[Any]:
    arguments = {"model_name": ""}
    try:
        return (yield Rpc(lambda stub: stub.get_inference_statistics, CONTROL_TIMEOUT_S, arguments))
    except InferenceServerException as error:
        raise ConnectionFailed(
            f"the server does not report its statistics ({error.message()}); look whether it still "
            "runs, and whether its statistics protocol is restricted"
        ) from error


def _counters(entries: Iterable[Any]) -> Counters:
    entries = list(entries)
    batches: defaultdict[int, int] = defaultdict(int)
    for entry in entries:
        for batch in entry.batch_stats:
            batches[int(batch.batch_size)] += int(batch.compute_infer.count)

    def seconds(part: str) -> float:
        return sum(getattr(e.inference_stats, part).ns for e in entries) / 1e9

    return Counters(
        inferences=sum(e.inference_count for e in entries),
        executions=sum(e.execution_count for e in entries),
        requests=sum(e.inference_stats.success.count for e in entries),
        failures=sum(e.inference_stats.fail.count for e in entries), queue_s=seconds("queue"),
        input_s=seconds("compute_input"), infer_s=seconds("compute_infer"),
        output_s=seconds("compute_output"), batches=dict(sorted(batches.items())),
    )  # fmt: skip


def _combined(a: Counters, b: Counters, sign: int) -> Counters:
    """`a` plus `sign` times `b`."""
    batches = {
        k: a.batches.get(k, 0) + sign * b.batches.get(k, 0) for k in {**a.batches, **b.batches}
    }
    names = [f.name for f in fields(Counters) if f.name != "batches"]
    sums = {name: getattr(a, name) + sign * getattr(b, name) for name in names}
    return Counters(**sums, batches={size: n for size, n in sorted(batches.items()) if n})


def _did(found: Counters) -> bool:
    return found.requests + found.failures > 0


def _numbers(found: Counters) -> tuple[float, ...]:
    return (
        found.inferences, found.executions, found.requests, found.failures,
        *found.batches.values(),
    )  # fmt: skip
