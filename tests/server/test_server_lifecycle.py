"""Starting, watching, stopping, and every way in which it can end badly."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import small_repository
import tritonclient.grpc as triton
from small_repository import tensors

from hilum.catalog.errors import RepositoryError, ServerError
from hilum.server import cleanup as leftovers
from hilum.server.arguments import Ports
from hilum.server.launcher import Progress, TritonServer, free_ports

SHM = Path("/dev/shm")  # noqa: S108


def traces(tag_or_pid: str) -> list[str]:
    """Regions and processes whose name or command line holds the tag of a server."""
    found = [file.name for file in SHM.iterdir() if tag_or_pid in file.name]
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if folder.name.isdigit() and tag_or_pid in line:
            found.append(line.replace("\0", " "))
    return found


def wait_for(condition, seconds: float = 10.0) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "in vain"
        time.sleep(0.02)
    return time.monotonic() - start


def runtime_folders(state: Path) -> set[str]:
    return {f.name for f in (state / "run").iterdir()}


@pytest.fixture
def one(repository, state):
    """A server of its own with one network and one Python step."""
    with TritonServer(repository, models=["double", "probe"], grace=2) as running:
        yield running


def test_two_servers_at_once_with_their_own_models(server, repository, state):
    seen: list[Progress] = []
    drained = []
    second = TritonServer(
        repository,
        models=["chain"],
        grace=1,
        progress=seen.append,
        drain=lambda: drained.append(second.alive),
    )
    with second:
        assert second.staged.models == ("chain", "hilum_about", "probe")
        assert second.grpc_url != server.grpc_url
        assert second.http_url is None
        assert seen[-1].total == 3
        assert set(seen[-1].loaded) == {"chain", "hilum_about", "probe"}
        with triton.InferenceServerClient(second.grpc_url) as client:
            assert not client.is_model_ready("double")
            sent = tensors(task=np.zeros((1, 1), np.int32), image=np.ones((1, 3, 4), np.uint8))
            assert client.infer("chain", sent).as_numpy("again") == [[12.0]]
        tag = second._tag
        assert len(traces(tag)) == 5  # the server, two stubs, two regions
    assert drained == [True]
    assert not second.alive
    assert traces(tag) == []
    assert tag not in runtime_folders(state)
    second.stop()
    assert server.alive


def test_killed_server_is_noticed_and_cleaned(one, state):
    tag = one._tag
    os.kill(one.pid, signal.SIGKILL)
    assert wait_for(lambda: one.poll() is not None) < 5
    assert one.poll() == 128 + signal.SIGKILL
    assert not one.alive
    assert traces(tag) == []
    assert tag not in runtime_folders(state)


def test_killed_supervisor_takes_the_server_along(one, state):
    tag, supervisor = one._tag, one._supervisor.pid
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: one.poll() is not None)
    one.stop()
    assert traces(tag) == []
    assert tag not in runtime_folders(state)


def test_stub_that_ignores_its_end_is_killed_with_the_server(one):
    stub = next(pid for pid, region in leftovers._stubs() if region.startswith(one._tag))
    os.kill(stub, signal.SIGSTOP)  # as deaf as can be
    os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: one.poll() is not None)
    assert traces(one._tag) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_parent(repository, state, how):
    script = """
        import sys, time
        from hilum.server.launcher import TritonServer
        server = TritonServer(sys.argv[1], models=["double", "probe"], grace=1).start()
        print(server._tag, flush=True)
        time.sleep(60)
    """
    with _python(script, str(repository)) as parent:
        tag = parent.stdout.readline().strip()
        assert len(traces(tag)) == 7  # the server, three stubs, three regions
        parent.send_signal(how)
    wait_for(lambda: not traces(tag) and tag not in runtime_folders(state))


def test_foreground_ends_cleanly_on_ctrl_c(repository, state):
    script = """
        import sys
        from hilum.server.foreground import serve_foreground
        from hilum.server.launcher import TritonServer
        code = serve_foreground(
            TritonServer(sys.argv[1], models=["double"], grace=1),
            lambda server: print("ready", server._tag, flush=True),
            lambda line: print("log", line, flush=True),
        )
        print("code", code)
    """
    with _python(script, str(repository)) as parent:
        lines = [parent.stdout.readline()]
        while not lines[-1].startswith("ready"):
            lines.append(parent.stdout.readline())
        tag = lines[-1].split()[1]
        parent.send_signal(signal.SIGINT)
        rest, _ = parent.communicate(timeout=15)
    assert "code 0" in rest
    assert "loading: double:1" in "".join(lines) + rest
    assert "Signal (15) received" in rest
    assert parent.returncode == 0
    assert traces(tag) == []


def test_an_interrupt_that_a_callback_loses_ends_the_server_too(repository):
    script = """
        import os, signal, sys
        from hilum.server.foreground import serve_foreground
        from hilum.server.launcher import TritonServer

        class Callback:
            def __del__(self):  # Python ignores what is raised here
                os.kill(os.getpid(), signal.SIGINT)
                print("heard", flush=True)

        server = TritonServer(sys.argv[1], models=["double"], grace=1)
        print("code", serve_foreground(server, lambda server: Callback() and None))
    """
    with _python(script, str(repository)) as parent:
        try:
            said, _ = parent.communicate(timeout=30)
        finally:
            parent.kill()
    assert "code 0" in said


def test_leftovers_of_dead_servers_go_and_strangers_stay(state):
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tag = leftovers.tag_of(ended.pid)
    region, mine = SHM / f"{tag}-x", leftovers.tag_of(os.getpid())
    others = [
        SHM / f"{mine}-x",
        SHM / "hilum-1-2-y",
    ]
    folder = state / "run" / tag
    environment = Path("/tmp", f"python_env_{secrets.token_hex(3)}")  # noqa: S108 - as Triton has it
    environment.mkdir()
    try:
        for path in (region, *others):
            path.touch()
        time.sleep(0.2)
        folder.mkdir(parents=True)  # younger than what Triton made
        assert leftovers.clean_dead(state / "run") == []
        ended.communicate(b"\n")
        assert leftovers.clean_dead(state / "run") == [tag]
        assert not region.exists()
        assert not folder.exists()
        assert not environment.exists()
        assert all(path.exists() for path in others)
    finally:
        for path in (region, *others):
            path.unlink(missing_ok=True)


def test_corrupt_network_shows_the_log_and_leaves_nothing(tmp_path, repository, state):
    shutil.copytree(repository, tmp_path / "bad")
    model = tmp_path / "bad" / "double" / "1" / "model.onnx"
    model.write_bytes(b"\x00 no network \x00" * 9)
    before = runtime_folders(state)
    server = TritonServer(tmp_path / "bad", models=["double"])
    with pytest.raises(ServerError) as failure:
        server.start()
    message = str(failure.value)
    assert "did not start" in message
    assert "failed to load 'double'" in message
    assert "Protobuf parsing failed" in message
    assert str(server.log) in message
    assert server.log.is_file()
    assert not server.alive
    assert runtime_folders(state) == before


def test_configuration_that_contradicts_the_network_is_reported(tmp_path):
    config = small_repository.DOUBLE.replace("dims: 3 }", "dims: 4 }", 1)
    small_repository.write_onnx(tmp_path, "double", config)
    (tmp_path / "double" / "labels.txt").touch()
    with pytest.raises(ServerError, match=r"'x' is \[4\] in config.pbtxt, \[3\] in the model"):
        TritonServer(tmp_path).start()


def test_taken_port_is_named_before_anything_starts(repository):
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        other = free_ports(1)[0]
        with pytest.raises(ServerError, match=f"port {port} .* is in use"):
            TritonServer(repository, ports=Ports(port, other)).start()


def test_free_port_that_is_taken_meanwhile_is_replaced(repository, monkeypatch):
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        taken = owner.getsockname()[1]
        chosen = [(taken, *free_ports(2)), free_ports(3)]
        answers = iter(chosen)
        monkeypatch.setattr("hilum.server.launcher.free_ports", lambda *_: next(answers))
        with TritonServer(repository, models=["double"], grace=0) as server:
            assert server.grpc_url == f"127.0.0.1:{chosen[1][0]}"


def test_missing_model_names_the_command(repository):
    with pytest.raises(RepositoryError, match=r"hilum export cxr-severity --network manet"):
        TritonServer(repository, models=["cxr_manet"]).start()


def _python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
