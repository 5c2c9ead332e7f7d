"""Peers on one small network, all of them real: same results, counted bytes, what is left out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hilum.benchmarks import peer_networks, peers
from hilum.benchmarks.accuracy import Found, compare
from hilum.benchmarks.instrument.record import Record, read
from hilum.benchmarks.pages.page import write
from hilum.benchmarks.peer_networks import Subject, chosen_networks, subject, used_outputs
from hilum.benchmarks.peer_runs import (
    COMPILED,
    EAGER,
    OPENVINO,
    OPENVINO_BF16,
    ORT,
    ORT_AS_SERVED,
    LeftOut,
    compiled,
    eager,
    find_compiler,
    onnx_runtime,
    reference_run,
    served_options,
    usual_options,
)
from hilum.benchmarks.peer_served import AS_SERVED, GRPC, HTTP, IN_FLIGHT, SHM
from hilum.benchmarks.runs import torch_core
from hilum.catalog import SYSTEMS
from hilum.catalog.errors import InferenceFailed, InputError, RepositoryError
from hilum.cli import app
from hilum.export.repository import export_system
from hilum.server.machine import cores

pytestmark = pytest.mark.load

NETWORK = "lung_z"
SLICES, SIDE, MARGIN = 2, 64, 5


@pytest.fixture(scope="module", autouse=True)
def small_slabs() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_networks, "QUICK_SLAB", (SLICES, SIDE))
        yield


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    export_system(SYSTEMS["dlpe"], repository=folder, networks=[NETWORK])
    return folder


@pytest.fixture(scope="module")
def record(repository: Path) -> Record:
    plan = peers.Plan(
        system="dlpe", networks=(NETWORK,), rounds=3, tasks=2, quick=True, repository=repository
    )
    return peers.measure(plan, lambda _text: None)


def _subject(repository: Path) -> Subject:
    system, (network,) = chosen_networks("dlpe", (NETWORK,))
    return subject(system, network, repository, quick=True)


def test_every_peer_gives_the_same_result(record: Record) -> None:
    lanes = {lane.name.partition(": ")[2]: lane for lane in record.lanes}
    served = {GRPC, SHM, HTTP, f"{AS_SERVED}, {IN_FLIGHT} in flight"}
    assert served | {EAGER, ORT, ORT_AS_SERVED, OPENVINO} <= set(lanes)
    for name in (COMPILED, OPENVINO_BF16):
        assert name in lanes or any(n.startswith(f"{name} is left out: ") for n in record.notes)
    assert (COMPILED in lanes) == (find_compiler() is not None)
    for name, lane in lanes.items():
        found = lane.deviation
        assert found is not None
        assert found.of == peer_networks.INPUTS * SLICES * SIDE * SIDE
        if name != OPENVINO_BF16:
            assert found.largest < 1e-3
            assert found.differing <= found.of * 1e-3
        assert len(lane.rounds) == 3
        assert not lane.summary.failures
    assert lanes[ORT].deviation.largest == lanes[GRPC].deviation.largest == 0
    assert not any("ANOTHER RESULT" in note for note in record.notes)


def test_bytes_and_counts_are_those_of_the_tensors(record: Record) -> None:
    slab, probability = (SLICES + 2 * MARGIN) * SIDE * SIDE * 4, SLICES * SIDE * SIDE * 4
    by_transport = {}
    for lane in record.lanes:
        if lane.transport == "in process":
            assert (lane.sent_bytes, lane.received_bytes, lane.counters) == (None, None, {})
            continue
        assert (lane.sent_bytes, lane.received_bytes) == (slab, probability)
        by_transport[lane.transport] = lane
        counted = lane.counters["dlpe_lung_z"]
        assert counted.requests == sum(len(r.started) for r in lane.rounds)
        assert counted.infer_s > 0
    assert set(by_transport) == {"grpc", "shm", "http"}
    rows = record.tables["overhead"]
    assert [row["transport"] for row in rows] == ["grpc", "shm", "http"]
    for row in rows:
        assert (row["sent_bytes"], row["received_bytes"]) == (slab, probability)
        assert row["server_ms"] > 0
        assert row["served_ms"] > 0


def test_the_report_can_be_read_again(record: Record, tmp_path: Path) -> None:
    text = write(record, tmp_path)
    again = read(tmp_path / "bench.json")
    assert again.lanes == record.lanes
    assert (tmp_path / "bench.html").stat().st_size > 10_000
    for row in record.tables["peers"]:
        assert f"| {row['lane']} |" in text
    ours = next(row for row in record.tables["peers"] if row["lane"] == ORT)
    assert ours["ratio"] == 1
    assert "RANDOM WEIGHTS" in text
    assert "hilum bench dlpe" in text


def test_other_weights_are_seen(repository: Path) -> None:
    chosen = _subject(repository)
    run = reference_run(str(chosen.file), ["probability"])
    wanted = [run(i) for i in chosen.inputs]
    core = torch_core(chosen.system, chosen.network, "random")
    peer = eager(chosen, lambda: core)

    def found() -> Found:
        given = [peer.run(i) for i in chosen.inputs]
        return compare(chosen.network, frozenset(), given, wanted, "the reference")

    same = found()
    assert not same.other_result
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in core.parameters():
            weight.mul_(1 + torch.randn(weight.shape, generator=generator) / 2)
    other = found()
    assert other.other_result
    assert other.deviation.largest > max(0.1, 1000 * same.deviation.largest)


def test_numbers_that_are_none_are_refused(repository: Path) -> None:
    network = _subject(repository).network
    good = {"probability": np.zeros((1, 2, 2), np.float32)}
    for bad in (np.full((1, 2, 2), np.nan, np.float32), np.zeros((2, 2, 2), np.float32)):
        with pytest.raises(InferenceFailed, match=r"not finite|the reference's"):
            compare(network, frozenset(), [{"probability": bad}], [good], "the reference")


def test_decisions_are_counted_by_their_kind() -> None:
    system = SYSTEMS["ct-classifier"]
    network = system.network("raw_hu")

    def answer(p: float, logit: float) -> dict[str, np.ndarray]:
        return {
            "probability": np.array([[p]], np.float32),
            "logit": np.array([[logit]], np.float32),
            "cam": np.full((1, 8, 8), logit, np.float32),
        }

    unbounded = frozenset({"logit", "cam"})
    found = compare(network, unbounded, [answer(0.51, 0.04)], [answer(0.49, -0.04)], "it")
    assert (found.deviation.differing, found.deviation.of) == (1, 1)
    assert found.deviation.largest == pytest.approx(0.08)
    found = compare(network, unbounded, [answer(0.51, 20.0)], [answer(0.51, 20.5)], "it")
    assert (found.deviation.differing, found.other_result) == (0, False)


def test_only_outputs_are_asked_for_that_a_pipeline_uses() -> None:
    system = SYSTEMS["cxr-severity"]
    assert used_outputs(system, system.network("lung")) == ("lung",)
    assert used_outputs(SYSTEMS["lungmask"], SYSTEMS["lungmask"].networks[0]) == ("label",)


def test_without_a_compiler_it_is_reported(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(LeftOut, match=r"needs a C\+\+ compiler"):
        compiled(_subject(repository), lambda: pytest.fail("nothing is built"))


def test_threads_rest_between_runs(repository: Path) -> None:
    chosen = _subject(repository)
    peer = onnx_runtime(chosen)
    peer.run(chosen.inputs[0])
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    own = usual_options()
    assert own.get_session_config_entry("session.force_spinning_stop") == "1"
    served = served_options(chosen.network.model)
    assert served.intra_op_num_threads == own.intra_op_num_threads == cores()
    assert served.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert own.enable_cpu_mem_arena
    assert served.enable_cpu_mem_arena


def test_wrong_use_is_reported(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no system 'x'; there are cxr-severity"):
        chosen_networks("x", ())
    with pytest.raises(InputError, match="no network 'lungs'"):
        chosen_networks("dlpe", ("lungs",))
    system, (network,) = chosen_networks("dlpe", ("airway1_z",))
    with pytest.raises(RepositoryError, match="--network airway1_z --repository"):
        subject(system, network, repository, quick=True)
    done = CliRunner().invoke(app, ["bench", "peers", "nobody", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "there is no system 'nobody'" in done.output
