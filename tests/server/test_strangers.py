"""What another user of the machine can do to a server and its clients: nothing.

The same attempts are made as the server's own user, who succeeds: else they would prove nothing.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.client.transport.system import PREFIX, Mark
from hilum.server import cleanup as leftovers
from hilum.server.door import Door, is_member, peer_uid
from hilum.server.launcher import TritonServer, free_ports

SHM = Path("/dev/shm")  # noqa: S108

ATTEMPTS = """
    import json, os, socket, sys, urllib.request
    import numpy as np
    import tritonclient.grpc as triton

    told = json.loads(sys.argv[1])
    outcome = {}

    def attempt(name, function):
        try:
            function()
            outcome[name] = "done"
        except Exception as error:
            outcome[name] = f"{type(error).__name__}: {error}"

    def http(path, body=None):
        urllib.request.urlopen(f"http://{told['http']}/v2/{path}", body, timeout=10).read()

    def steal():
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_shared_memory(told["region"], 12)
        client.infer("double", [tensor], client_timeout=10)

    def overwrite():
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.full((1, 3), 7, np.float32))
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory(told["region"], 12)
        client.infer("double", [tensor], outputs=[output], client_timeout=10)

    def infer():
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.full((1, 3), 7, np.float32))
        client.infer("double", [tensor], client_timeout=10)

    def unix():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(told["socket"])

    client = triton.InferenceServerClient(told["grpc"])
    attempt("warm-up", lambda: client.is_server_ready(client_timeout=10))  # imports all it needs
    attempt("warm-up", lambda: http("health/ready"))
    client.close()
    if told["uid"]:
        os.setgroups([])
        os.setresgid(told["gid"], told["gid"], told["gid"])
        os.setresuid(told["uid"], told["uid"], told["uid"])
    # A connection of its own: gRPC would go on with that of the user that this process was.
    own = [("grpc.use_local_subchannel_pool", 1)]
    client = triton.InferenceServerClient(told["grpc"], channel_args=own)
    timeout = {"client_timeout": 10}
    attempt("registration", lambda: client.register_system_shared_memory(
        "other", told["free"][0], 12, **timeout))
    attempt("inference", infer)
    attempt("reading through the server", steal)
    attempt("writing through the server", overwrite)
    attempt("list", lambda: client.get_system_shared_memory_status(**timeout))
    attempt("forgetting", lambda: client.unregister_system_shared_memory("other", **timeout))
    attempt("models", lambda: client.get_model_repository_index(**timeout))
    attempt("settings", lambda: client.get_model_config("double", **timeout))
    attempt("registration by HTTP", lambda: http(
        "systemsharedmemory/region/more/register",
        json.dumps({"key": told["free"][1], "byte_size": 12}).encode()))
    attempt("state by HTTP", lambda: http("health/ready"))
    attempt("socket", unix)
    for number, path in enumerate(told["files"]):
        attempt(f"reading file {number} of {len(told['files'])}", lambda: open(path, "rb").close())
        attempt(f"writing file {number} of {len(told['files'])}", lambda: open(path, "r+b").close())
    attempt("looking into the folder", lambda: os.listdir(told["folder"]))
    attempt("signals", lambda: [os.kill(pid, 0) for pid in told["pids"]])
    print(json.dumps(outcome))
"""


SHARED = {
    "registration",
    "reading through the server",
    "writing through the server",
    "list",
    "forgetting",
    "registration by HTTP",
}
"""Attempts at shared memory."""

INFERRING = {"models", "settings", "state by HTTP"}
"""What a client may do."""


@pytest.fixture(scope="module")
def private(repository: Path, state: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, models=["double", "probe"], http=True, grace=1) as running:
        yield running


def attempts(server: TritonServer, state: Path, uid: int, gid: int) -> dict[str, str]:
    """What comes of each attempt of a user, while a client shares memory with the server."""
    runtime = state / "run" / server._tag
    marks = [Mark("test"), Mark("test")]  # as a client makes them; the server opens a file once
    free = [f"/{mark.name}" for mark in marks]
    for mark in marks:
        os.truncate(mark.file, 4096)
    with (
        contextlib.ExitStack() as stack,
        Client(server.grpc_url) as client,
    ):
        for mark in marks:
            stack.callback(mark.remove)
        client.infer("double", {"x": np.ones((1, 3), np.float32)}, ["y"])
        region = marks[0].name
        if client.transport == "shm":
            with triton.InferenceServerClient(server.grpc_url) as raw:
                known = raw.get_system_shared_memory_status().regions
                (region,) = [name for name in known if name.startswith(PREFIX)]
        stubs = [SHM / name for name in leftovers._regions() if name.startswith(server._tag)]
        assert len(stubs) > 1
        told = {
            "uid": uid, "gid": gid, "grpc": server.grpc_url, "http": server.http_url,
            "region": region, "free": free, "socket": str(runtime / f"g:{server._ports.grpc}"),
            "files": [str(f) for f in (SHM / region, *stubs, server.log, runtime / "server.json")],
            "folder": str(runtime), "pids": [server.pid],
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(ATTEMPTS), json.dumps(told)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome.pop("warm-up") == "done"
    return outcome


def test_the_servers_own_user_may_do_all_this(private, state):
    outcome = attempts(private, state, 0, 0)
    assert len(outcome) > 15
    assert set(outcome.values()) == {"done"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_may_do_none_of_it(private, state):
    nobody = pwd.getpwnam("nobody")
    outcome = attempts(private, state, nobody.pw_uid, nobody.pw_gid)
    assert len(outcome) > 15
    assert "done" not in outcome.values(), outcome
    by_grpc = ("registration", "reading through the server", "settings", "models", "list")
    assert all("UNAVAILABLE" in outcome[name] for name in by_grpc), outcome
    files = [told for name, told in outcome.items() if " file " in name]
    assert all(told.startswith("PermissionError") for told in files), files
    assert outcome["socket"].startswith("PermissionError")
    assert f"the door refuses user {nobody.pw_uid}" in private.log.read_text()


@pytest.fixture(scope="module")
def grouped(repository: Path, state: Path) -> Iterator[TritonServer]:
    """A server that lets the group of `nobody` in."""
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    with TritonServer(
        repository, models=["double", "probe"], http=True, grace=1, group=group
    ) as running:
        yield running


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize(("name", "inside"), [("nobody", True), ("daemon", False)])
def test_members_of_a_group_infer_where_it_is_let_in_and_share_no_memory(
    name, inside, grouped, state
):
    user = pwd.getpwnam(name)
    member = is_member(user.pw_uid, pwd.getpwnam("nobody").pw_gid)
    assert member is inside
    outcome = attempts(grouped, state, user.pw_uid, user.pw_gid)
    done = {attempt for attempt, what in outcome.items() if what == "done"}
    assert done == ({*INFERRING, "inference"} if inside else set()), outcome
    if inside:
        stealing = {
            "reading through the server",
            "writing through the server",
        }  # of what is unknown
        closed = SHARED - stealing - {"registration by HTTP"}
        assert all("restricted" in outcome[attempt] for attempt in closed), outcome
        assert "403" in outcome["registration by HTTP"]
    else:
        assert f"refuses user {user.pw_uid}; it admits [0] and members" in grouped.log.read_text()


def test_where_a_group_is_let_in_nobody_shares_memory(grouped):
    with Client(grouped.grpc_url) as client:
        answer = client.infer("double", {"x": np.ones((1, 3), np.float32)}, ["y"])
        assert answer.outputs["y"].tolist() == [[2, 2, 2]]
        assert client.transport == "grpc"


@pytest.mark.parametrize(
    ("options", "why"),
    [({"group": "no-such-group"}, "has no group 'no-such-group'"),
     ({"group": "root", "host": "0.0.0.0"}, "only a server on the loopback")],  # noqa: S104
)  # fmt: skip
def test_a_group_that_cannot_be_let_in_is_refused(options, why, repository):
    with pytest.raises(InputError, match=why):
        TritonServer(repository, **options)


def test_settings_are_closed_to_everybody_and_no_command_line_holds_a_key(private):
    command = Path(f"/proc/{private.pid}/cmdline").read_bytes().decode().split("\0")
    closed = [word for word in command if "restricted" in word]
    assert len(closed) == 2
    assert {word.partition(":")[2] for word in closed} == {"HILUM:CLOSED=closed"}
    headers = {}
    with triton.InferenceServerClient(private.grpc_url) as raw:
        for name in ("hilum:closed", "triton-grpc-protocol-hilum:closed"):
            with pytest.raises(
                (InferenceServerException, ValueError), match=r"restricted|metadata"
            ):
                raw.update_log_settings({"log_verbose_level": 1}, headers={name: "closed"})
        with pytest.raises(InferenceServerException, match="restricted"):
            raw.get_trace_settings(headers=headers)
    host, _, port = private.http_url.rpartition(":")
    for name in ("HILUM:CLOSED", "HILUM", "HILUM%3ACLOSED", "HILUM\\:CLOSED"):
        request = f"GET /v2/logging HTTP/1.1\r\nHost: {host}\r\n{name}: closed\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request.encode())
            assert b"403" in connection.recv(4096).partition(b"\r\n")[0]


def test_what_a_server_makes_is_private_from_the_first_moment(private, state):
    made = [SHM / n for n in leftovers._regions() if n.startswith(private._tag)]
    made += [private.log, state / "run", state / "logs", state / "run" / private._tag]
    assert not [p for p in made if stat.S_IMODE(p.stat().st_mode) & 0o077]


def test_a_confined_process_cannot_open_its_files_to_others(tmp_path):
    """In a process without threads, as the supervisor is: a fork beside gRPC's may be aborted."""
    script = (
        "import os, sys; from hilum.server.confine import confinement; confinement()(); "
        "f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644); "
        "os.fchmod(f, 0o644); os.ftruncate(f, 9)"
    )
    file = tmp_path / "file"
    subprocess.run([sys.executable, "-c", script, file], check=True)
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_size) == (0o600, 9)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_kernel_names_the_owner_of_a_connection_and_nobody_once_it_is_closed(host):
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection((host, port))
        connection, _ = listener.accept()
        with connection:
            assert peer_uid(connection) == os.getuid()
            client.close()
            assert peer_uid(connection) is None


def test_a_door_passes_all_bytes_on_and_both_ends(tmp_path):
    (port,) = free_ports(1)
    blob = np.random.default_rng(0).bytes(5_000_000)
    with socket.socket(socket.AF_UNIX) as behind:
        behind.bind(str(tmp_path / "s"))
        door = Door("localhost", port, str(tmp_path / "s"))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        behind.listen()
        door.open()
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = behind.accept()
            with served:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                assert served.makefile("rb").read() == b"question"
                served.settimeout(20)
                client.settimeout(20)
                answer = bytearray()
                sent = 0
                while sent < len(blob):
                    sent += served.send(blob[sent : sent + 100_000])
                    answer += client.recv(1 << 20)
                served.shutdown(socket.SHUT_WR)
                answer += client.makefile("rb").read()
        assert bytes(answer) == blob
        door.close()
        time.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
