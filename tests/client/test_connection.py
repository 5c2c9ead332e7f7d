"""Addresses, encryption, what else may answer on a port, and errors that name the remedy."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from listeners import echo, http_listening, listening

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import ConnectionFailed, DeadlineExceeded, InferenceFailed
from hilum.client import AsyncClient, Client
from hilum.client.calls import Calls
from hilum.client.options import ConnectionOptions
from hilum.client.probe import Listener, identify
from hilum.server.launcher import TritonServer, free_ports
from hilum.systems.base import BaseSystem

X = np.arange(32, dtype=np.float32).reshape(2, 16)


@pytest.mark.parametrize(
    "url", ["http://localhost:8001", "localhost", "localhost:", ":8001", "h:99999", "h:80/v2"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConnectionFailed, match="host:port"):
        ConnectionOptions(url)


def test_endpoints() -> None:
    assert ConnectionOptions("triton.local:8001").endpoint == ("triton.local", 8001)
    assert ConnectionOptions("[::1]:8001").endpoint == ("::1", 8001)
    assert ConnectionOptions("dns:///triton:8001").endpoint is None


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("unix:/run/triton.sock", True),
        ("192.0.2.1:8001", False),  # TEST-NET-1: no host has it
        ("no-such-host.invalid:8001", False),
    ],
)
def test_what_is_on_this_host(url: str, local: bool) -> None:
    assert ConnectionOptions(url).is_on_this_host() is local


def test_secrets_are_not_shown() -> None:
    options = ConnectionOptions(metadata={"Authorization": "Bearer secret"})
    assert options.metadata == {"authorization": "Bearer secret"}
    assert "secret" not in repr(options)


def test_a_key_needs_its_certificate() -> None:
    with pytest.raises(ConnectionFailed, match="belong together"):
        ConnectionOptions(tls_client_key="client.key")


def test_what_a_server_reports(url: str) -> None:
    with Client(url) as client:
        assert client.ready()
        assert client.models() == ("dynamic", "hilum_about", "picture", "slow", "small")
        assert {s.state for s in client.repository()} == {"READY"}
        picture = client.model("picture")
        assert picture.max_batch == 8
        assert picture.inputs["image"].dtype == "UINT8"
        assert picture.inputs["image"].shape == (64, 64, 3)
        assert picture.outputs["doubled"].shape == (128, 64, 3)
        assert client.model("dynamic").outputs["y"].shape == (-1,)
        assert client.about() == {"version": "0.1.0", "models": {"cxr_lung": {"source": "random"}}}
        described = client.describe()
        assert described["version"].startswith("2.")
        assert described["transport"] == "shm"


def test_both_clients_give_the_same(url: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)

    async def ask() -> tuple[np.ndarray, object]:
        async with AsyncClient(url) as client:
            answers = await asyncio.gather(
                *(client.infer("picture", {"image": image[None]}, ["doubled"]) for image in images)
            )
            about = await client.about()
            return np.concatenate([a.outputs["doubled"] for a in answers]), about

    found, about = asyncio.run(ask())
    with Client(url) as client:
        expected = client.infer("picture", {"image": images}, ["doubled"]).outputs["doubled"]
        assert about == client.about()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, np.concatenate([images, images], axis=1))


@dataclass(frozen=True)
class Mean:
    """A result of the system below."""

    value: float
    transport: str
    status: str = "ok"

    def report(self) -> dict[str, Any]:
        return {"status": self.status, "value": self.value}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def row(self) -> dict[str, str]:
        return {"value": str(self.value)}


@dataclass(frozen=True)
class MeanOptions:
    pause: float = 0.0


class MeanSystem(BaseSystem[MeanOptions, Mean]):
    """Has the model ``small`` do something with a number."""

    declared = replace(SYSTEMS["lungmask"], name="mean")
    options_type = MeanOptions
    result_type = Mean

    def models(self, options: MeanOptions) -> tuple[str, ...]:
        return ("small",)

    def run(self, study: float, options: MeanOptions, calls: Calls) -> Mean:
        length = int(calls.model("small").inputs["x"].shape[0])

        def one(number: int) -> tuple[float, str]:
            calls.progress("numbers", number, 3)
            time.sleep(options.pause)
            x = np.full((1, length), study + number, np.float32)
            answer = calls.infer("small", {"x": x}, ["y"])
            return float(answer.outputs["y"].mean()), answer.transport

        found = calls.map(one, range(3), 2)
        return Mean(sum(value for value, _ in found), found[0][1])

    def write(self, result: Mean, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
        return []


def test_a_system_object_runs_in_both_clients(url: str) -> None:
    async def ask() -> Mean:
        async with AsyncClient(url) as client:
            return await client.run(MeanSystem(), 3.0)

    with Client(url) as client:
        assert client.run(MeanSystem(), 3.0) == Mean(12.0, "shm") == asyncio.run(ask())
        outcomes = list(client.run_many(MeanSystem(), [1.0, "no number", 2.0]))
    assert [outcome.result and outcome.result.value for outcome in outcomes] == [6.0, None, 9.0]


def test_a_cancelled_study_ends_at_its_next_call(url: str) -> None:
    async def ask() -> float:
        async with AsyncClient(url) as client:
            reported = asyncio.Event()
            loop = asyncio.get_running_loop()
            client.on_progress = lambda _: loop.call_soon_threadsafe(reported.set)
            study = asyncio.create_task(client.run(MeanSystem(), 3.0, pause=0.3))
            await reported.wait()
            study.cancel()
            started = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await study
            assert not [t for t in threading.enumerate() if t.name.startswith("hilum-work")]
            return time.monotonic() - started

    assert asyncio.run(ask()) < 0.6


def test_nothing_listens() -> None:
    (port,) = free_ports(1)
    with Client(f"127.0.0.1:{port}", connect_window_s=0.5) as client:
        assert not client.ready()
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"nothing listens.*hilum serve"):
            client.infer("small", {"x": X}, ["y"])
        assert 0.4 < time.monotonic() - started < 3
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match="nothing listens"):
            client.models()
        assert time.monotonic() - started < 0.4  # the window is over: one attempt


def test_a_host_that_does_not_exist() -> None:
    with (
        Client("no-such-host.invalid:8001", connect_window_s=0.2) as client,
        pytest.raises(ConnectionFailed, match="no host of this name"),
    ):
        client.models()


def test_an_echo_server_is_not_triton() -> None:
    with listening(echo) as port, Client(f"127.0.0.1:{port}") as client:
        assert identify("127.0.0.1", port) is Listener.OTHER
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match="not a gRPC server"):
            client.models()
        assert time.monotonic() - started < 2  # it does not wait for what cannot come


def test_ports_that_say_nothing_or_hang_up() -> None:
    with listening(lambda connection: time.sleep(0.5)) as port:
        assert identify("127.0.0.1", port, timeout_s=0.1) is Listener.SILENT
    with listening(lambda connection: None) as port:
        assert identify("127.0.0.1", port) is Listener.HANGS_UP
    assert identify("127.0.0.1", port) is Listener.REFUSED


def test_an_http_server_is_not_triton() -> None:
    with (
        http_listening() as port,
        Client(f"127.0.0.1:{port}") as client,
        pytest.raises(ConnectionFailed, match=r"HTTP server answers.*8001"),
    ):
        client.infer("small", {"x": X}, ["y"])


def test_the_http_port_of_triton(server: TritonServer) -> None:
    assert server.http_url is not None
    with (
        Client(server.http_url, connect_window_s=0.3) as client,
        pytest.raises(ConnectionFailed, match=r"HTTP port.*8001"),
    ):
        client.models()


def test_another_grpc_server_is_not_triton() -> None:
    other = grpc.server(futures.ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        assert identify("127.0.0.1", port) is Listener.GRPC
        with (
            Client(f"127.0.0.1:{port}") as client,
            pytest.raises(ConnectionFailed, match="gRPC server answers that is not Triton"),
        ):
            client.models()
    finally:
        other.stop(None).wait()


def test_a_model_that_is_not_there(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InferenceFailed, match=r"no model 'nope'; it has dynamic, .*small"):
            client.infer("nope", {"x": X}, ["y"])
        remedy = r"hilum export cxr-severity --network lung --network manet.*hilum serve"
        with pytest.raises(InferenceFailed, match=remedy):
            client.model("cxr_severity_manet")


@pytest.mark.parametrize("transport", ["grpc", "shm"])
def test_wrong_inputs(url: str, transport: str) -> None:
    with Client(url, transport=transport) as client:
        with pytest.raises(InferenceFailed, match="unexpected shape for input 'x'"):
            client.infer("small", {"x": X[:, :7]}, ["y"])
        with pytest.raises(InferenceFailed, match="data-type"):
            client.infer("small", {"x": X.astype(np.float64)}, ["y"])
        with pytest.raises(InferenceFailed, match="no element type for complex64"):
            client.infer("small", {"x": X.astype(np.complex64)}, ["y"])
        with pytest.raises(InferenceFailed, match="'z'"):
            client.infer("small", {"x": X}, ["z"])
        np.testing.assert_array_equal(client.infer("small", {"x": X}, ["y"]).outputs["y"], X)


def test_deadline(url: str) -> None:
    with Client(url, deadline_s=0.2) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"'slow'.*within 0\.2 s.*deadline_s"):
            client.infer("slow", {"seconds": np.float32([0.6])}, ["done"])
        assert time.monotonic() - started < 0.55
        longer = client.infer("slow", {"seconds": np.float32([0.3])}, ["done"], deadline_s=10)
        assert longer.outputs["done"][0] == np.float32(0.3)


def test_a_closed_client(url: str) -> None:
    client = Client(url)
    client.infer("small", {"x": X}, ["y"])
    client.close()
    client.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        client.infer("small", {"x": X}, ["y"])


def test_closing_ends_requests_in_flight(url: str) -> None:
    client = Client(url)
    client.model("slow")
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.infer, "slow", {"seconds": np.float32([1.0])}, ["done"])
        time.sleep(0.2)
        client.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            waiting.result(timeout=0.5)


def test_a_message_that_is_too_long(url: str) -> None:
    image = np.zeros((8, 64, 64, 3), np.uint8)
    with (
        Client(url, transport="grpc", max_message_bytes=50_000) as client,
        pytest.raises(InferenceFailed, match="max_message_bytes"),
    ):
        client.infer("picture", {"image": image}, ["doubled"])


def test_a_proxy_of_the_environment_is_not_for_this_machine(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = socket.gethostname()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    direct = ("grpc.enable_http_proxy", 0)
    assert direct in ConnectionOptions("localhost:8001").channel_arguments()
    if ConnectionOptions(f"{name}:8001").is_on_this_host():
        assert direct in ConnectionOptions(f"{name}:8001").channel_arguments()
    assert direct not in ConnectionOptions("192.0.2.7:8001").channel_arguments()
    with Client(f"localhost:{server.grpc_url.rpartition(':')[2]}") as client:
        assert client.ready()


def test_a_proxy_that_cannot_be_reached_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    with (
        Client("192.0.2.7:8001", connect_window_s=1) as client,
        pytest.raises(ConnectionFailed, match=r"proxy of .*http_proxy.*set no_proxy=192\.0\.2\.7 "),
    ):
        client.models()
    monkeypatch.setenv("no_proxy", "example.org,192.0.2.7")
    assert ConnectionOptions("192.0.2.7:8001").proxy_variable() is None
    assert ConnectionOptions("192.0.2.8:8001").proxy_variable() == "http_proxy"
