"""Gateway, Triton and PACS are killed or away: each result is there once, nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chest_repository import CHEST_MODELS
from gateway_parts import Server, Site
from gateway_parts import studies as kill_studies
from gateways import Running, ct, done, study_of, web, xray
from pacs import Orthanc

from hilum.gateway.ledger import Ledger
from hilum.server.arguments import Ports
from hilum.server.launcher import TritonServer, free_ports

Make = Callable[..., Running]


def studies(folder: Path, count: int) -> list[list[Path]]:
    scans = [ct(folder / f"ct-{n}", seed=20 + n, slices=6) for n in range(count // 2)]
    return scans + [xray(folder / f"x-{n}.dcm", seed=40 + n) for n in range(count - count // 2)]


def results(orthanc: Orthanc, made: list[list[Path]]) -> dict[str, dict[str, int]]:
    """Series of each study with the number of their instances."""
    return {
        study: {uid: len(set(found)) for uid, found in orthanc.series(study).items()}
        for study in map(study_of, made)
    }


@pytest.mark.parametrize(
    "state",
    [
        "sending",
        *(
            pytest.param(s, marks=pytest.mark.load)
            for s in ("stable", "fetching", "running", "verifying")
        ),
    ],
)
def test_a_gateway_killed_in_any_state_goes_on_where_it_was(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, state: str
) -> None:
    made = studies(tmp_path, 4)
    orthanc.store([path for files in made for path in files])
    running = gateway(web(orthanc), "[limits]\nfirst_retry_s = 0.5").start()
    killed = _kill_in(running, tmp_path, state)
    running.start().until(done(4))
    first = results(orthanc, made)
    assert all(len(series) >= 3 for series in first.values())
    assert running.end() == 0
    ledger = Ledger(tmp_path / "state" / "ledger.sqlite")
    sent = {uid for job in ledger.jobs() for uid in ledger.outputs(job.id)}
    sources = {job.series for job in ledger.jobs()}
    assert {uid for series in first.values() for uid in series} == sent | sources
    assert killed or state in ("fetching", "verifying")  # too short to be met each time


def _kill_in(running: Running, tmp_path: Path, state: str) -> bool:
    """Kill the gateway when a job is in a state; whether one was."""
    deadline = time.monotonic() + 240
    path = tmp_path / "state" / "ledger.sqlite"
    while not path.exists():
        time.sleep(0.02)
    ledger = Ledger(path)
    while time.monotonic() < deadline:
        jobs = ledger.jobs()
        if any(job.state == state for job in jobs):
            running.end(signal.SIGKILL)
            return True
        if jobs and all(job.state == "done" for job in jobs) and len(jobs) == 4:
            break
    running.end(signal.SIGKILL)
    return False


def test_results_wait_for_a_pacs_that_is_away(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    made = studies(tmp_path, 4)
    orthanc.store([path for files in made for path in files])
    more = "[limits]\nfirst_retry_s = 0.5\nlongest_retry_s = 2"
    running = gateway(web(orthanc), more).start()
    running.until(lambda status: status["counts"]["running"] > 0 or status["counts"]["done"] > 0)
    orthanc.stop(signal.SIGKILL)
    running.until(
        lambda status: (
            any(job["kind"] == "pacs" for job in status["jobs"]) or status["counts"]["done"] == 4
        )
    )
    time.sleep(2)
    orthanc.start()
    running.until(done(4))
    assert all(len(series) >= 3 for series in results(orthanc, made).values())
    assert running.end() == 0


@pytest.fixture
def own_server(chest_repository: Path) -> Iterator[Callable[[], TritonServer]]:
    """Start a server, always on the same port."""
    started: list[TritonServer] = []
    ports = Ports(*free_ports(2))

    def start() -> TritonServer:
        started.append(TritonServer(chest_repository, models=["lungmask_r231"], ports=ports))
        return started[-1].start()

    yield start
    for server in started:
        server.stop(grace=0)


def test_jobs_wait_for_a_triton_that_is_away(
    orthanc: Orthanc, gateway: Make, own_server: Callable[[], TritonServer], tmp_path: Path
) -> None:
    server = own_server()
    scan = ct(tmp_path / "ct")
    more = "[limits]\nfirst_retry_s = 0.5\nlongest_retry_s = 1"
    running = gateway(web(orthanc), more, url=server.grpc_url).start()
    running.until(lambda status: True)
    server.stop(grace=0)
    orthanc.store(scan)
    running.until(lambda status: any(job["kind"] == "server" for job in status["jobs"]))
    own_server()
    running.until(done(1))
    assert running.end() == 0


@pytest.mark.load
def test_a_study_that_kills_the_gateway_three_times_is_set_aside(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    scan = ct(tmp_path / "ct")
    orthanc.store(scan)
    running = gateway(web(orthanc))
    for _ in range(3):
        running.start()
        path = tmp_path / "state" / "ledger.sqlite"
        while not path.exists():
            time.sleep(0.02)
        ledger = Ledger(path)
        before = max((job.crashes for job in ledger.jobs()), default=0)
        while max((job.crashes for job in ledger.jobs()), default=0) == before:
            time.sleep(0.002)
        running.end(signal.SIGKILL)
        ledger.close()
        if all(job["state"] != "running" for job in running.status()["jobs"]):
            pytest.skip("the job was over before it could be killed")
    running.start()
    status = running.until(lambda status: status["counts"]["failed"] == 1, fails=True)
    assert status["jobs"][0]["kind"] == "crash"
    assert running.call("retry", "--all").returncode == 0
    running.until(done(1))


@pytest.mark.load
def test_nothing_is_fetched_while_the_disk_is_full(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    orthanc.store(ct(tmp_path / "ct"))
    running = gateway(web(orthanc), "[limits]\nwatermark = 1e-9").start()
    running.until(lambda status: status["counts"]["stable"] == 1)
    time.sleep(2)
    assert running.status()["counts"]["stable"] == 1
    assert "fuller" in running.call("check").stdout
    assert running.end() == 0
    text = running.config.read_text().replace("watermark = 1e-9", "watermark = 1.0")
    running.config.write_text(text)
    running.start().until(done(1))


def test_drain_finishes_what_runs_and_ends(orthanc: Orthanc, gateway: Make, tmp_path: Path) -> None:
    orthanc.store(ct(tmp_path / "ct"))
    running = gateway(web(orthanc)).start()
    running.until(lambda status: bool(status["jobs"]))
    assert running.call("drain").returncode == 0
    assert running.process is not None
    assert running.process.wait(60) == 0
    counts = running.status()["counts"]
    assert counts["fetching"] == 0
    running.start().until(done(1))


def test_a_second_gateway_is_refused(orthanc: Orthanc, gateway: Make) -> None:
    first = gateway(web(orthanc)).start()
    first.until(lambda status: True)
    time.sleep(1)
    second = gateway(web(orthanc)).start()
    assert second.process is not None
    assert second.process.wait(60) != 0
    assert "another gateway works" in second.log.read_text()


@pytest.mark.load
def test_whatever_is_killed_each_result_is_there_once_with_the_same_bytes(
    chest_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = kill_studies(tmp_path / "made", 4)
    server = Server(chest_repository, tmp_path, tmp_path / "serve.log", CHEST_MODELS)
    sites = [Site(tmp_path / name, server) for name in ("quiet", "loud")]
    try:
        for site in sites:
            site.start(made)
            if site is sites[1]:
                site.disturb(
                    [("triton", "running"), ("orthanc", "sending"), ("gateway", "running")], [], str
                )
            site.wait(len(made), 120)
        quiet, loud = (site.stored(made) for site in sites)
    finally:
        for site in sites:
            site.stop()
        server.stop()
    assert quiet == loud
    assert all(len(study) >= 3 for study in loud)
