"""The client's Prometheus metrics against what was really asked of a real server."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commands import HILUM
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hilum.catalog.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    HilumError,
    InferenceFailed,
    InputError,
)
from hilum.client import AsyncClient, Client
from hilum.client.metrics import BUCKETS_S, Metrics
from hilum.server.launcher import TritonServer, free_ports

X = np.arange(32, dtype=np.float32).reshape(2, 16)
IMAGE = np.zeros((1, 64, 64, 3), np.uint8)
MODELS = ("small", "picture", "slow")


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Values that are not 0, by name and labels (in alphabetical order); no times of creation."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.value and not sample.name.endswith("_created")
    }


def small(value: float) -> dict[str, np.ndarray]:
    return {"seconds": np.float32([value])}


@pytest.mark.parametrize("transport", ["grpc", "shm"])
def test_requests_bytes_and_latencies(url: str, transport: str) -> None:
    metrics = Metrics(models=MODELS)
    with Client(url, transport=transport, metrics=metrics) as client:
        for _ in range(3):
            client.infer("small", {"x": X}, ["y"])
        seconds = sum(
            client.infer("picture", {"image": IMAGE}, ["doubled"]).seconds for _ in range(2)
        )
    found = read(metrics)
    assert found["hilum_client_requests_total", "small", "ok", transport] == 3
    assert found["hilum_client_requests_total", "picture", "ok", transport] == 2
    assert found["hilum_client_sent_bytes_total", "small", transport] == 3 * X.nbytes
    assert found["hilum_client_sent_bytes_total", "picture", transport] == 2 * IMAGE.nbytes
    assert found["hilum_client_received_bytes_total", "picture", transport] == 4 * IMAGE.nbytes
    name = "hilum_client_request_duration_seconds"
    assert found[f"{name}_count", "picture"] == 2
    assert found[f"{name}_sum", "picture"] == pytest.approx(seconds)
    assert found[f"{name}_bucket", "300.0", "picture"] == 2
    assert not any("failures" in key[0] or "in_flight" in key[0] for key in found)


def test_failures_are_counted_by_reason(url: str) -> None:
    metrics = Metrics(models=MODELS)

    def fails(kind: type[HilumError], *arguments: object, **options: float) -> None:
        with pytest.raises(kind):
            client.infer(*arguments, **options)  # type: ignore[arg-type]

    with Client(url, metrics=metrics) as client:
        for _ in range(2):
            fails(InferenceFailed, "small", {"x": X[:, :7]}, ["y"])
        fails(InferenceFailed, "small", {"x": X.astype(np.complex64)}, ["y"])
        fails(DeadlineExceeded, "slow", small(0.4), ["done"], deadline_s=0.1)
        fails(InferenceFailed, "nope/patient name", {"x": X}, ["y"])
        client.infer("small", {"x": X}, ["y"])
    fails(ConnectionFailed, "small", {"x": X}, ["y"])
    found = read(metrics)
    failures = {k[1:]: v for k, v in found.items() if k[0].endswith("request_failures_total")}
    assert failures == {
        ("small", "invalid_argument"): 3,
        ("slow", "deadline_exceeded"): 1,
        ("other", "not_found"): 1,
        ("small", "unavailable"): 1,
    }
    assert found["hilum_client_requests_total", "small", "failed", "none"] == 4
    assert found["hilum_client_requests_total", "small", "ok", "shm"] == 1
    assert b"patient" not in generate_latest(metrics.registry)


def test_retries_are_counted(url: str) -> None:
    metrics = Metrics(models=MODELS)
    with Client(url, metrics=metrics, backoff_s=0.01) as client:
        attempts = [client.infer("slow", small(-2), ["done"]).attempts for _ in range(2)]
    assert max(attempts) > 1
    found = read(metrics)
    assert found["hilum_client_request_retries_total", "slow"] == sum(attempts) - 2
    assert found["hilum_client_requests_total", "slow", "ok", "shm"] == 2


def test_a_server_that_stays_away(make_server: Callable[..., TritonServer]) -> None:
    metrics = Metrics(models=MODELS)
    server = make_server()
    with Client(server.grpc_url, metrics=metrics, retry_window_s=0.3) as client:
        client.infer("small", {"x": X}, ["y"])
        server.stop(grace=0)
        with pytest.raises(ConnectionFailed):
            client.infer("small", {"x": X}, ["y"])
    found = read(metrics)
    assert found["hilum_client_request_failures_total", "small", "unavailable"] == 1
    assert found["hilum_client_request_retries_total", "small"] >= 1


def test_in_flight_rises_and_returns(url: str) -> None:
    metrics = Metrics(models=MODELS)
    gauge = ("hilum_client_requests_in_flight", "slow")
    with Client(url, metrics=metrics) as client, ThreadPoolExecutor(3) as pool:
        client.model("slow")
        asked = [pool.submit(client.infer, "slow", small(0.3), ["done"]) for _ in range(3)]
        while not all(future.running() or future.done() for future in asked):
            pass
        highest = 0.0
        while not asked[0].done():
            highest = max(highest, read(metrics).get(gauge, 0.0))
        for future in asked:
            future.result()
    assert highest == 3
    assert gauge not in read(metrics)


def test_the_asyncio_client_and_cancelled_requests(url: str) -> None:
    metrics = Metrics(models=MODELS)

    async def ask() -> None:
        async with AsyncClient(url, metrics=metrics) as client:
            await asyncio.gather(*(client.infer("small", {"x": X}, ["y"]) for _ in range(8)))
            task = asyncio.create_task(client.infer("slow", small(2), ["done"], deadline_s=5))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(ask())
    found = read(metrics)
    assert found["hilum_client_requests_total", "small", "ok", "shm"] == 8
    assert found["hilum_client_request_failures_total", "slow", "cancelled"] == 1
    assert not any("in_flight" in key[0] for key in found)


def test_studies_count_by_system(ct_server: TritonServer, tmp_path: Path) -> None:
    metrics = Metrics()
    broken = tmp_path / "SMITH^JOHN.nii.gz"
    broken.write_bytes(b"no series")
    voxels = np.full((2, 64, 64), -1000, np.int16)
    with Client(ct_server.grpc_url, metrics=metrics) as client:
        client.run("lungmask", voxels)
        outcomes = list(client.run_many("lungmask", [broken, voxels, broken]))
        with pytest.raises(InferenceFailed):
            client.run("cxr-severity", np.zeros((64, 64), np.uint8))
    assert [o.error is None for o in outcomes] == [False, True, False]
    found = read(metrics)
    assert found["hilum_client_studies_total", "ok", "lungmask"] == 2
    assert found["hilum_client_study_duration_seconds_count", "lungmask"] == 2
    reasons = {k[1:]: v for k, v in found.items() if k[0].endswith("study_failures_total")}
    assert reasons == {("input", "lungmask"): 2, ("not_found", "cxr-severity"): 1}
    requests = sum(v for k, v in found.items() if k[0] == "hilum_client_requests_total")
    assert requests == found["hilum_client_request_duration_seconds_count", "lungmask_r231"] > 0
    assert not any("in_flight" in key[0] for key in found)
    assert b"SMITH" not in generate_latest(metrics.registry)


def test_clients_share_metrics_and_a_registry_of_the_caller(url: str) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, MODELS)
    for _ in range(2):
        with Client(url, metrics=metrics) as client:
            client.infer("small", {"x": X}, ["y"])
    assert metrics.registry is registry
    assert read(metrics)["hilum_client_requests_total", "small", "ok", "shm"] == 2


def test_served_on_loopback(url: str) -> None:
    metrics = Metrics(models=MODELS)
    with metrics.served(0) as port, Client(url, metrics=metrics) as client:
        client.infer("small", {"x": X}, ["y"])
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
        taken = rf"127\.0\.0\.1:{port}.*another port"
        with pytest.raises(InputError, match=taken), metrics.served(port):
            pass
    assert 'hilum_client_requests_total{model="small",outcome="ok",transport="shm"} 1.0' in text
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_command_line_serves_them_while_it_runs(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    for n in range(4):
        image = nibabel.Nifti1Image(np.full((64, 64, 20), -1000, np.int16), np.eye(4))
        nibabel.save(image, tmp_path / f"{n}.nii.gz")
    words = ["run", "lungmask", tmp_path, "--out", tmp_path / "out", "--url", ct_server.grpc_url,
             "--metrics-port", "0", "--in-flight", "1"]  # fmt: skip
    with subprocess.Popen(
        [*HILUM, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if line.startswith("Metrics: "))
        port = int(told.split(":")[-1].removesuffix("/metrics\n"))
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            text = answer.read().decode()
        process.stderr.read()
        assert process.wait() == 0
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names == {family.name for family in Metrics().registry.collect()}


def test_names_follow_the_conventions() -> None:
    """Snake case, a prefix, base units at the end, `_total` for counters alone."""
    families = list(Metrics().registry.collect())
    assert len(families) == 11
    for family in families:
        assert re.fullmatch(r"hilum_client_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
    assert BUCKETS_S[-1] == 300
    assert list(BUCKETS_S) == sorted(BUCKETS_S)


def test_nothing_is_counted_where_nothing_listens() -> None:
    metrics = Metrics(models=MODELS)
    (port,) = free_ports(1)
    with (
        Client(f"127.0.0.1:{port}", metrics=metrics, connect_window_s=0.2) as client,
        pytest.raises(ConnectionFailed),
    ):
        client.infer("small", {"x": X}, ["y"])
    found = read(metrics)
    assert not any("bytes" in key[0] or "_duration" in key[0] for key in found)
    assert found["hilum_client_request_failures_total", "small", "unavailable"] == 1
