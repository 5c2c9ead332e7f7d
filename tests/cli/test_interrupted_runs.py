"""Runs that end in the middle, whatever ends them, and what `--resume` makes of the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chest_repository import CHEST_MODELS as MODELS
from commands import HILUM, report_of
from interrupted import Room, Work, draw_ct, draw_xrays, small_file_systems, wait_for

from hilum.server.launcher import TritonServer, free_ports
from hilum.server.machine import SHM


@pytest.fixture(scope="module", params=["xrays", pytest.param("ct", marks=pytest.mark.load)])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Twelve X-rays, or three chest CTs."""
    folder = tmp_path_factory.mktemp("work") / "inputs"
    draw = {"xrays": lambda: draw_xrays(folder, 12), "ct": lambda: draw_ct(folder, 3)}
    return draw[request.param]()


ONLY_XRAYS = pytest.mark.parametrize("work", ["xrays"], indirect=True, scope="module")
"""For what does not depend on the system, and takes long."""


@pytest.fixture(scope="module")
def undisturbed(
    work: Work, chest_server: TritonServer, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The results of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = run_to_end(work, out, "--url", chest_server.grpc_url)
    assert done.returncode == 0, done.stderr
    report_of(out)
    return work.outcome(out)


def run_to_end(
    work: Work, out: Path, *more: object, before: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    words = [*(before or ()), *work.words(out, *more)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def finished(out: Path) -> int:
    return len(list(out.glob("[0-9]*/result.json")))


@contextmanager
def running(
    work: Work, out: Path, *more: object, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A run that has finished a sixth of its studies at least, and is in the middle."""
    with subprocess.Popen(
        work.words(out, "--in-flight", 1, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    ) as run:
        try:
            enough = -(-work.count // 6)
            wait_for(lambda: finished(out) >= enough or run.poll() is not None)
            yield run
        finally:
            run.kill()


def regions_of(pid: int) -> list[str]:
    return [p.name for p in SHM.glob(f"hilum_client-*{pid}-*")]


def resumed(work: Work, out: Path, server: TritonServer, undisturbed: list[dict[str, Any]]) -> None:
    """Resume, and check that each study is there once, as if nothing had happened."""
    before = {p: p.stat().st_mtime_ns for p in out.glob("[0-9]*/result.json")}
    done = run_to_end(work, out, "--resume", "--url", server.grpc_url)
    assert done.returncode == 0, done.stderr
    assert work.problem(out, undisturbed) is None
    report_of(out)
    whole = [p for p in before if p.stat().st_mtime_ns == before[p]]
    assert len(whole) == len(before)  # what was done is not done again
    assert done.stderr.count("(kept)") == len(before)


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGINT,
        *(pytest.param(n, marks=pytest.mark.load) for n in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_a_signal_ends_a_run_with_a_whole_report(
    signum: int,
    work: Work,
    chest_server: TritonServer,
    tmp_path: Path,
    undisturbed: list[dict[str, Any]],
) -> None:
    out = tmp_path / "out"
    with running(work, out, "--url", chest_server.grpc_url) as run:
        run.send_signal(signum)
        sent = time.monotonic()
        text, _ = run.communicate(timeout=60)
        assert time.monotonic() - sent < 6
    assert run.returncode == 128 + signum, text
    assert "stopping: waiting for " in text
    report = report_of(out)
    published = {p.parent.name for p in out.glob("[0-9]*/result.json")}
    assert {r["name"] for r in report["results"]} == published
    assert report["summary"]["missing"] == work.count - len(published) > 0
    assert not list(out.glob(".*"))
    assert not regions_of(run.pid)
    resumed(work, out, chest_server, undisturbed)


@ONLY_XRAYS
def test_a_second_signal_ends_a_run_at_once(
    work: Work, chest_server: TritonServer, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    with running(work, out, "--url", chest_server.grpc_url) as run:
        os.kill(chest_server.pid or 0, signal.SIGSTOP)
        try:
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            time.sleep(0.3)
            assert run.poll() is None
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=2)
        finally:
            os.kill(chest_server.pid or 0, signal.SIGCONT)
    assert run.returncode == 130
    assert not list(out.glob(".*"))
    assert not regions_of(run.pid)
    resumed(work, out, chest_server, undisturbed)


@ONLY_XRAYS
@pytest.mark.load
def test_a_server_that_hangs_does_not_keep_an_interrupted_run(
    work: Work, chest_repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # With its grace: stubs of a stopped Triton end by themselves, and so would the server at once.
    with TritonServer(chest_repository, models=MODELS) as server:
        assert server.pid is not None
        with running(work, out, "--url", server.grpc_url) as run:
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(0.3)
            run.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            text, _ = run.communicate(timeout=60)
            assert time.monotonic() - sent < 10
        os.kill(server.pid, signal.SIGCONT)
    assert run.returncode == 128 + signal.SIGTERM, text
    assert report_of(out)["summary"]["missing"]
    assert not regions_of(run.pid)


def test_a_run_that_is_killed_goes_on_where_it_was(
    work: Work, chest_server: TritonServer, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    with running(work, out, "--url", chest_server.grpc_url) as run:
        run.kill()
        run.communicate()
    (out / ".0012.partial-0123abcd").mkdir()  # as a run leaves it that is killed while it writes
    resumed(work, out, chest_server, undisturbed)
    assert not regions_of(run.pid)


@ONLY_XRAYS
def test_a_run_with_a_server_of_its_own_leaves_nothing(
    work: Work,
    chest_repository: Path,
    chest_server: TritonServer,
    tmp_path: Path,
    undisturbed: list[dict[str, Any]],
) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    environment = os.environ | {"XDG_STATE_HOME": str(state)}
    words = work.words(out, "--in-flight", 1, "--repository", chest_repository)
    with subprocess.Popen(words, env=environment) as run:
        wait_for(lambda: len(list(out.glob("[0-9]*/result.json"))) >= 2)
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
    root = state / "hilum" / "run"
    wait_for(lambda: not list(root.iterdir()), 10)
    assert not regions_of(run.pid)
    resumed(work, out, chest_server, undisturbed)


@ONLY_XRAYS
def test_the_server_of_a_run_is_started_again_and_no_study_fails(
    work: Work, chest_repository: Path, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    environment = os.environ | {"XDG_STATE_HOME": str(state)}
    own = ["--repository", chest_repository]

    def servers() -> set[int]:
        records = (state / "hilum" / "run").glob("*/server.json")
        return {json.loads(record.read_text())["pid"] for record in records}

    with running(work, out, *own, env=environment) as run:
        (first,) = servers()
        os.kill(stub_of(first), signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{first}").exists())
        wait_for(lambda: bool(servers() - {first}))
        (second,) = servers() - {first}
        os.kill(second, signal.SIGKILL)
        text, _ = run.communicate(timeout=120)
    assert run.returncode == 0, text
    assert "died; Triton" not in text  # said in the log, not to the user
    assert text.count("starting it again") == text.count("ready again") == 2
    assert work.outcome(out) == undisturbed
    assert not list((state / "hilum" / "run").iterdir())


@pytest.mark.parametrize("victim", ["server", pytest.param("stub", marks=pytest.mark.load)])
def test_a_run_outlives_the_death_of_a_server(
    victim: str,
    work: Work,
    chest_repository: Path,
    chest_server: TritonServer,
    tmp_path: Path,
    undisturbed: list[dict[str, Any]],
) -> None:
    out = tmp_path / "out"
    with TritonServer(chest_repository, models=MODELS, grace=0) as server:
        assert server.pid is not None
        with running(work, out, "--url", server.grpc_url, "--retry-window", 1,
                     "--deadline", 5) as run:  # fmt: skip
            os.kill(server.pid if victim == "server" else stub_of(server.pid), signal.SIGKILL)
            text, _ = run.communicate(timeout=120)
    assert run.returncode in (0, 1), text
    report = report_of(out)
    assert len(report["results"]) == work.count
    for entry in report["results"]:
        assert (out / entry["name"]).is_dir() == (entry["status"] != "failed")
    resumed(work, out, chest_server, undisturbed)


def stub_of(server: int) -> int:
    """A Python stub of a server: one of its children."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    for thread in Path(f"/proc/{server}/task").iterdir():
        children += (thread / "children").read_text().split()
    return int(children[0])


def test_a_run_outlives_one_of_two_servers(
    work: Work,
    chest_repository: Path,
    chest_server: TritonServer,
    tmp_path: Path,
    undisturbed: list[dict[str, Any]],
) -> None:
    out = tmp_path / "out"
    with TritonServer(chest_repository, models=MODELS, grace=0) as server:
        assert server.pid is not None
        urls = f"{server.grpc_url},{chest_server.grpc_url}"
        with running(work, out, "--url", urls) as run:
            os.kill(server.pid, signal.SIGKILL)
            text, _ = run.communicate(timeout=120)
    assert run.returncode == 0, text
    assert work.outcome(out) == undisturbed


@contextmanager
def room_of(**sizes: tuple[Path, str]) -> Iterator[Room]:
    """A room with small file systems; the test is left out where they cannot be mounted."""
    with small_file_systems(dict(sizes.values())) as room:
        if room is None:
            pytest.skip("only root can mount a small file system in a namespace of its own")
        yield room


def test_a_full_disk_loses_nothing_that_can_be_kept(
    work: Work, chest_server: TritonServer, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with room_of(disk=(disk, "64m")) as room:
        sizes = [size for entry in undisturbed for size, _ in entry["bytes"].values()]
        ballast = room.fill(disk, left=sum(-(-size // 4096) * 4096 for size in sizes) // 2)
        own = ("--in-flight", 1, "--url", chest_server.grpc_url)
        done = run_to_end(work, disk / "out", *own, before=room.enter)
        assert done.returncode == 1, done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        out = room.path(disk / "out")
        whole = [p for p in out.glob("*/result.json") if "unwritten" not in p.read_text()]
        assert 0 < len(whole) < work.count
        assert not list(out.glob(".*"))
        ballast.unlink()
        again = run_to_end(work, disk / "out", "--resume", *own, before=room.enter)
        assert again.returncode == 0, again.stderr
        assert again.stderr.count("(kept)") == len(whole)
        assert work.problem(out, undisturbed) is None


@pytest.mark.load
def test_a_full_shared_memory_costs_speed_and_no_result(
    work: Work, chest_repository: Path, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    with room_of(shm=(SHM, "256m")) as room:
        grpc, metrics = free_ports(2)
        words = ["serve", "--repository", chest_repository, "--grpc-port", grpc,
                 "--metrics-port", metrics, *(f"--model={model}" for model in MODELS)]  # fmt: skip
        with subprocess.Popen(
            [*room.enter, *HILUM, *map(str, words)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"XDG_STATE_HOME": str(state)},
        ) as server:  # fmt: skip
            assert server.stdout is not None
            assert "ready" in server.stdout.readline()
            ballast = room.fill(SHM)
            done = run_to_end(work, out, "--url", f"127.0.0.1:{grpc}", before=room.enter)
            assert done.returncode == 0, done.stderr
            assert {r["transport"] for r in report_of(out)["results"]} == {"grpc"}
            assert work.problem(out, undisturbed) is None
            ballast.unlink()
            server.terminate()
        assert not list(room.path(SHM).iterdir())
