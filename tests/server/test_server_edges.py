"""What is wrong with an order to serve is said in one line, before a server is started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hilum.client import Client
from hilum.server.launcher import TritonServer, free_ports

HILUM = Path(sys.executable).with_name("hilum")


def hilum(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HILUM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--grpc-port=80000"], 2, "port 80000 does not exist"),
        (["--metrics-port=0"], 2, "port 0 does not exist"),
        (["--grpc-port=28803", "--metrics-port=28803"], 2, "port 28803 is given twice"),
        (["--http-port=8001"], 2, "port 8001 is given twice"),
        (["--host=192.0.2.1"], 3, "'192.0.2.1' is not an address of this machine"),
        (["--host=nothing.invalid"], 3, "'nothing.invalid' is not an address of this machine"),
        (["--model=nosuch", "--grpc-port=FREE", "--metrics-port=FREE"], 2, "no model 'nosuch'"),
        (["--grpc-port=TAKEN", "--metrics-port=FREE"], 3, "is in use by another process"),
    ],
)
def test_a_wrong_order_is_refused_in_one_line(repository, options, code, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = iter(map(str, free_ports(2)))
        given = [
            o.replace("FREE", next(ports)) if "FREE" in o else o.replace("TAKEN", port)
            for o in options
        ]
        done = hilum("serve", f"--repository={repository}", *given)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost"])
def test_every_spelling_of_the_loopback_is_served(repository, host):
    try:
        grpc, metrics, http = free_ports(3, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with subprocess.Popen(
        [HILUM, "serve", f"--repository={repository}", f"--host={host}", f"--grpc-port={grpc}",
         f"--metrics-port={metrics}", f"--http-port={http}", "--model=double", "--grace=1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        shown = "localhost" if host == "localhost" else "[::1]"
        try:
            assert server.stdout.readline() == (
                f"ready: gRPC {shown}:{grpc}, HTTP {shown}:{http}, "
                f"metrics http://{shown}:{metrics}/metrics\n"
            )
            with Client(f"{'127.0.0.1' if host == 'localhost' else shown}:{grpc}") as client:
                assert "double" in client.models()
        finally:
            server.send_signal(signal.SIGTERM)
            out, err = server.communicate(timeout=20)
    assert (server.returncode, out, err) == (0, "", "")


def test_verbose_shows_the_servers_log(repository):
    grpc, metrics = free_ports(2)
    with subprocess.Popen(
        [HILUM, "serve", f"--repository={repository}", f"--grpc-port={grpc}", "--verbose",
         f"--metrics-port={metrics}", "--model=double", "--grace=1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        server.stdout.readline()
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=20)
    assert "successfully loaded 'double'" in err


def test_status_shows_servers_models_and_requests(repository, tmp_path):
    assert hilum("status", XDG_STATE_HOME=str(tmp_path)).returncode == 3
    with TritonServer(repository, models=["double"], grace=0) as server:
        with Client(server.grpc_url) as client:
            for _ in range(3):
                client.infer("double", {"x": np.ones((1, 3), np.float32)}, ["y"])
        done = hilum("status", "--json")
        assert done.returncode == 0, done.stderr
        (mine,) = [s for s in json.loads(done.stdout)["servers"] if s["url"] == server.grpc_url]
        assert mine["ready"]
        assert mine["pid"] == server.pid
        models = {model["name"]: model for model in mine["models"]}
        assert models["double"]["requests"] == 3
        assert models["double"]["failed"] == 0
        assert models["hilum_about"]["state"] == "READY"
        shown = hilum("status", "--url", server.grpc_url)
        assert shown.returncode == 0
        assert f"{server.grpc_url}: ready, Triton 2." in shown.stdout
        assert "double       ready, 3 requests, 0 failed, " in shown.stdout
        (free,) = free_ports(1)
        both = hilum("status", "--url", f"{server.grpc_url},127.0.0.1:{free}")
        assert both.returncode == 3
        assert "nothing listens" in both.stdout


@pytest.mark.serial
def test_nothing_stays_in_temporary_folders(repository):
    def environments() -> set[Path]:
        return set(Path("/tmp").glob("python_env_*"))  # noqa: S108 - where Triton puts them

    before = environments()
    with TritonServer(repository, models=["double", "probe"], grace=0) as server:
        assert environments() <= before
        environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        (temporary,) = [w for w in environment if w.startswith(b"TMPDIR=")]
        assert server._tag.encode() in temporary
        os.kill(server.pid, signal.SIGKILL)
        while server.alive:
            time.sleep(0.05)
    assert environments() <= before


def test_a_state_folder_with_a_long_name_serves(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("long-" * 20)))
    with (
        TritonServer(repository, models=["double"], grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        assert client.ready()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_a_user_without_a_home_has_a_folder_all_the_same(tmp_path):
    script = (
        "import os, tempfile; from hilum.server.folders import runtime_root; "
        f"tempfile.tempdir = {str(tmp_path)!r}; "
        "os.setgroups([]); os.setgid(54321); os.setuid(54321); "
        "[os.environ.pop(n, None) for n in ('HOME', 'XDG_STATE_HOME')]; print(runtime_root())"
    )
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "hilum-54321" / "run")
