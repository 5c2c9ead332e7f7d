"""Clients and servers over TLS, and what is said where it cannot work."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from listeners import listening

from hilum.catalog.errors import ConnectionFailed
from hilum.client import AsyncClient, Client
from hilum.client.probe import Listener, identify, unverified

BareServer = Callable[..., AbstractContextManager[int]]
X = np.arange(32, dtype=np.float32).reshape(2, 16)


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
