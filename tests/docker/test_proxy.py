"""The proxy's configuration in a real nginx before a real Triton, with certificates."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from manual import Typist, shown
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from hilum.catalog.errors import ConnectionFailed, HilumError
from hilum.cli import app
from hilum.client import Client
from hilum.client.options import ConnectionOptions
from hilum.server.launcher import TritonServer, free_ports

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="no nginx or no openssl"
)

X = np.ones((2, 3), np.float32)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


def signed(folder: Path, name: str, authority: Pair) -> Pair:
    """A certificate of the authority for localhost."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    asked = folder / f"{name}.csr"
    names = folder / f"{name}.names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", f"/CN={name}", "-keyout", pair.key, "-out", asked)  # fmt: skip
    run("x509", "-req", "-in", asked, "-CA", authority.certificate, "-CAkey", authority.key,
        "-CAcreateserial", "-days", "2", "-extfile", names, "-out", pair.certificate)  # fmt: skip
    return pair


def own_authority(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
        "2", "-subj", f"/CN={name}", "-keyout", pair.key, "-out", pair.certificate)  # fmt: skip
    return pair


def run(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = own_authority(folder, "hospital"), own_authority(folder, "stranger")
    return {
        "authority": authority,
        "server": signed(folder, "server", authority),
        "client": signed(folder, "client", authority),
        "stranger": signed(folder, "visitor", stranger),
    }


@contextmanager
def proxied(
    docker: Path, clients: str, backend: str, pairs: dict[str, Pair], folder: Path
) -> Iterator[str]:
    """Run nginx with a profile's files, its paths and addresses those of this test."""
    port = free_ports(1)[0]
    texts = {
        "nginx.conf": (docker / "nginx" / "nginx.conf").read_text(),
        "clients.conf": (docker / "nginx" / clients).read_text(),
    }
    changes = {
        "/tmp/": f"{folder}/",  # noqa: S108
        "/run/secrets/server_certificate": pairs["server"].certificate,
        "/run/secrets/server_key": pairs["server"].key,
        "/run/secrets/client_authority": pairs["authority"].certificate,
        "server triton:8001": f"server {backend}",
        "8443": port,
    }
    if nginx_version() < (1, 25, 1):  # there `http2` was a word of `listen`
        changes |= {" ssl;": " ssl http2;", "http2 on;": ""}
    for name, text in texts.items():
        for old, new in changes.items():
            text = text.replace(old, str(new))
        (folder / name).write_text(text)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL) as nginx:
        try:
            deadline = time.monotonic() + 10
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"localhost:{port}"
        finally:
            nginx.send_signal(3)  # SIGQUIT, as the compose file says
            assert nginx.wait(20) == 0


def nginx_version() -> tuple[int, ...]:
    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    found = re.search(r"nginx/([\d.]+)", told)
    assert found
    return tuple(map(int, found[1].split(".")))


def infer(url: str, trusted: Pair, own: Pair | None = None) -> np.ndarray:
    """What a client gets for a batch of ones."""
    options = ConnectionOptions(
        url=url, connect_window_s=0.5, retry_window_s=0.5, transport="grpc",
        tls_root_certificates=trusted.certificate,
        tls_client_key=own and own.key, tls_client_certificate=own and own.certificate,
    )  # fmt: skip
    with Client(options) as client:
        assert client.models()
        return client.infer("double", {"x": X}, ["y"]).outputs["y"]


def test_tls_takes_the_calls_of_clients_and_no_others(
    docker: Path, open_server: TritonServer, certificates: dict[str, Pair], tmp_path: Path
) -> None:
    with proxied(docker, "tls.conf", open_server.grpc_url, certificates, tmp_path) as url:
        assert infer(url, certificates["authority"]).tolist() == (2 * X).tolist()
        with pytest.raises(HilumError):
            infer(url, certificates["stranger"])  # trusts another authority
        with triton.InferenceServerClient(
            url, ssl=True, root_certificates=str(certificates["authority"].certificate)
        ) as raw:
            for call in (
                lambda: raw.load_model("double"),
                lambda: raw.register_system_shared_memory("mine", "/mine", 8),
                lambda: raw.update_trace_settings(),
            ):
                with pytest.raises(InferenceServerException, match="not offered here"):
                    call()


def test_without_triton_clients_are_informed_that_it_is_away(
    docker: Path, certificates: dict[str, Pair], tmp_path: Path
) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    root = str(certificates["authority"].certificate)
    with (
        proxied(docker, "tls.conf", nobody, certificates, tmp_path) as url,
        triton.InferenceServerClient(url, ssl=True, root_certificates=root) as raw,
        pytest.raises(InferenceServerException, match="Triton is away") as told,
    ):
        raw.get_server_metadata()
    assert "UNAVAILABLE" in told.value.status()  # which Hilum's client repeats


def test_mutual_tls_takes_clients_of_the_authority_alone(
    docker: Path, open_server: TritonServer, certificates: dict[str, Pair], tmp_path: Path
) -> None:
    authority = certificates["authority"]
    with proxied(docker, "mutual-tls.conf", open_server.grpc_url, certificates, tmp_path) as url:
        assert infer(url, authority, certificates["client"]).tolist() == (2 * X).tolist()
        for own in (None, certificates["stranger"]):
            with pytest.raises(ConnectionFailed, match="does not let this client in"):
                infer(url, authority, own)


def test_the_command_line_shows_its_certificate(
    docker: Path, open_server: TritonServer, certificates: dict[str, Pair], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    made = CliRunner().invoke(app, ["phantom", "cxr", f"--out={images}", "--count=1", "--size=256"])
    assert made.exit_code == 0, made.output
    own = certificates["client"]
    pair = [f"--tls-cert={own.certificate}", f"--tls-key={own.key}"]
    with proxied(docker, "mutual-tls.conf", open_server.grpc_url, certificates, tmp_path) as url:
        authority = f"--tls-ca={certificates['authority'].certificate}"
        run = ["run", "cxr-severity", str(images), f"--out={tmp_path / 'out'}", f"--url={url}"]
        run += [authority, "--retry-window=0.2"]
        let_in = CliRunner().invoke(app, run + pair)
        assert "does not serve" in let_in.stderr  # it got an answer: other models are served here
        kept_out = CliRunner().invoke(app, run)
        assert kept_out.exit_code == 3
        assert "does not let this client in" in kept_out.stderr
    half = CliRunner().invoke(app, run + pair[:1])
    assert "belong together" in half.stderr


def test_a_client_of_the_network_profile_trusts_the_authority(
    docker: Path, open_server: TritonServer, certificates: dict[str, Pair], tmp_path: Path
) -> None:
    """The server of these tests serves other models, so a client that is let in says that."""
    (command,) = shown("docs/how-to/service.md", "Who may send images", "sh")
    reader = Typist(tmp_path)
    reader.type("hilum phantom cxr --out study --count 1 --size 256")
    shutil.copy(certificates["authority"].certificate, tmp_path / "hospital-ca.pem")
    with proxied(docker, "tls.conf", open_server.grpc_url, certificates, tmp_path) as url:
        said = reader.type(command, {"triton.example.org:8443": url}, 2)
        assert "does not serve" in said
