"""Addresses, encryption, what else may answer on a port, and errors that name the remedy."""

from __future__ import annotations

import asyncio
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from hilum.catalog.errors import ConnectionFailed, DeadlineExceeded, InferenceFailed
from hilum.client import AsyncClient, Client, calls
from hilum.client.listener import Listener, identify, unverified
from hilum.client.options import ConnectionOptions
from hilum.server.launcher import TritonServer, free_ports

BareServer = Callable[..., AbstractContextManager[int]]
X = np.arange(32, dtype=np.float32).reshape(2, 16)


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection:
                answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


@contextmanager
def http_listening() -> Iterator[int]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


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


def test_what_a_server_tells(url: str) -> None:
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


def test_a_pipeline_runs_in_both_clients(url: str) -> None:
    def mean(value: float) -> calls.Steps[tuple[float, str]]:
        info = yield from calls.model("small")
        length = info.inputs["x"].shape[0]
        x = yield calls.Compute(lambda: np.full((1, int(length)), value, np.float32))
        yield calls.Sleep(0.01)
        answer = yield from calls.infer("small", {"x": x}, ["y"])
        return float(answer.outputs["y"].mean()), answer.transport

    async def ask() -> tuple[float, str]:
        async with AsyncClient(url) as client:
            return await client.drive(mean(3.0))

    with Client(url) as client:
        assert client.drive(mean(3.0)) == (3.0, "shm") == asyncio.run(ask())


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for the name ``triton.example``, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=triton.example", "-keyout", key, "-out", chain,
         "-addext", "subjectAltName=DNS:triton.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, chain


@pytest.fixture(scope="module")
def tls_port(certificate: tuple[Path, Path], bare_server: BareServer) -> Iterator[int]:
    """Port of a server that takes encrypted connections only."""
    key, chain = certificate
    with bare_server(
        "--grpc-use-ssl=true", f"--grpc-server-cert={chain}", f"--grpc-server-key={key}"
    ) as port:
        yield port


def test_tls(certificate: tuple[Path, Path], tls_port: int) -> None:
    options = {"tls_root_certificates": certificate[1], "tls_server_name": "triton.example"}
    url = f"127.0.0.1:{tls_port}"
    with Client(url, **options) as client:
        answer = client.infer("small", {"x": X}, ["y"])
        np.testing.assert_array_equal(answer.outputs["y"], X)
        assert client.about() is None  # this server has no such model

    async def ask() -> np.ndarray:
        async with AsyncClient(url, **options) as client:
            return (await client.infer("small", {"x": X}, ["y"])).outputs["y"]

    np.testing.assert_array_equal(asyncio.run(ask()), X)


def test_a_proxy_without_a_server_behind_it(certificate: tuple[Path, Path]) -> None:
    """Its TLS port speaks HTTP/2 and says that what it stands for is away."""
    key, chain = certificate

    class Away(grpc.GenericRpcHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.UNAVAILABLE, "bad gateway")

            return grpc.unary_unary_rpc_method_handler(answer)

    proxy = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Away()])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
    port = proxy.add_secure_port("127.0.0.1:0", credentials)
    proxy.start()
    options = {"tls_root_certificates": chain, "tls_server_name": "triton.example"}
    try:
        with (
            Client(f"127.0.0.1:{port}", connect_window_s=0.3, **options) as client,
            pytest.raises(
                ConnectionFailed, match=r"HTTP/2 over TLS.*Triton behind it.*bad gateway"
            ),
        ):
            client.models()
    finally:
        proxy.stop(None).wait()


def test_what_is_behind_a_tls_port(tls_port: int, url: str) -> None:
    plain = int(url.rpartition(":")[2])
    tls = unverified()
    assert identify("127.0.0.1", tls_port, tls=tls) is Listener.HTTP2_OVER_TLS
    assert identify("127.0.0.1", tls_port) is Listener.TLS
    assert identify("127.0.0.1", plain, tls=tls) in (Listener.NO_TLS, Listener.HANGS_UP)
    with listening(lambda connection: time.sleep(0.5)) as port:
        assert identify("127.0.0.1", port, timeout_s=0.1, tls=tls) is Listener.SILENT
    assert identify("127.0.0.1", port, tls=tls) is Listener.REFUSED


def test_tls_that_cannot_work(certificate: tuple[Path, Path], tls_port: int, url: str) -> None:
    chain = certificate[1]
    encrypted = f"127.0.0.1:{tls_port}"
    for options, remedy in (
        ({"tls": True}, "not trusted.*tls_root_certificates"),
        ({"tls_root_certificates": chain}, "another host.*tls_server_name"),
        ({}, "server answers that wants TLS; turn TLS on"),
    ):
        with Client(encrypted, **options) as client, pytest.raises(ConnectionFailed, match=remedy):
            client.models()
    with (
        Client(url, tls_root_certificates=chain) as client,
        pytest.raises(ConnectionFailed, match="speaks without TLS"),
    ):
        client.models()
    with pytest.raises(ConnectionFailed, match="cannot read a certificate"):
        Client(url, tls_root_certificates=chain.parent / "missing.pem")
