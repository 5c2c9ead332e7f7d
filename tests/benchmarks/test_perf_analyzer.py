"""perf_analyzer: what it is given, what it writes, and both clients on the identity model."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hilum.benchmarks.instrument.deployment import Choice
from hilum.benchmarks.instrument.record import read
from hilum.benchmarks.perf_analyzer import BARE, OURS, TOOL, Plan, measure
from hilum.benchmarks.perf_subject import IDENTITY, write_identity
from hilum.benchmarks.perf_tool import (
    Request,
    check_size,
    find_tool,
    read_requests,
    read_told,
    words,
    write_inputs,
)
from hilum.benchmarks.scale_tables import write
from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.server.launcher import TritonServer

GIVEN = os.environ.get("HILUM_PERF_ANALYZER") or shutil.which("perf_analyzer")

DATA = {"data": [0] * 16}

REQUESTS = {  # as perf_analyzer 2.60.0 writes them, but for the third, which has no answer
    "experiments": [
        {
            "experiment": {"mode": "concurrency", "value": 2},
            "requests": [
                {
                    "timestamp": 1795264136906773777, "request_inputs": DATA,
                    "response_timestamps": [1795264136911067082], "response_outputs": [DATA],
                },
                {
                    "timestamp": 1795264136776339341, "request_inputs": DATA,
                    "response_timestamps": [1795264136906751596], "response_outputs": [DATA],
                },
                {
                    "timestamp": 1795264136911081449, "request_inputs": DATA,
                    "response_timestamps": [], "response_outputs": [],
                },
            ],
            "window_boundaries": [1795264136776036206, 1795264137378928966],
        }
    ],
    "version": "0.0.0", "service_kind": "triton", "endpoint": "",
}  # fmt: skip


def test_its_requests_become_a_round() -> None:
    found = read_requests(json.dumps(REQUESTS))
    assert found.started == found.intended == (0.0, 0.130434436, 0.134742108)
    assert found.finished == (0.130412255, 0.134727741, 0.134742108)
    assert found.failures == {2: "no answer"}
    assert found.seconds == 0.134742108
    for wrong in ("no JSON", "{}", '{"experiments": []}', '{"experiments": [{"requests": [{}]}]}'):
        with pytest.raises(InputError, match="no file of perf_analyzer's requests"):
            read_requests(wrong)
    with pytest.raises(InputError, match="sent nothing"):
        read_requests('{"experiments": [{"requests": []}]}')


def test_its_own_figures_are_read() -> None:
    text = (
        "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
        "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
        "p50 latency,p90 latency,p95 latency,p99 latency\n"
        "2,1396.04,2,848,223,15,189,142,1,852,2082,4584,9662\n\n"
    )
    found = read_told(text)
    assert (found.concurrency, found.per_second) == (2, 1396.04)
    assert found.latency_s == pytest.approx(
        {"50": 852e-6, "90": 2082e-6, "95": 4584e-6, "99": 9662e-6}
    )
    assert found.parts_s["Server Queue"] == pytest.approx(223e-6)
    assert found.parts_s["Network+Server Send/Recv"] == pytest.approx(848e-6)
    for wrong in ("", "a,b\n1,2\n", "Concurrency,Inferences/Second\nx,y\n"):
        with pytest.raises(InputError, match="no CSV file of perf_analyzer"):
            read_told(wrong)


def test_inputs_and_shapes(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    batch = Request("m", {"image": images}, ("out",), batched=True)
    (entry,) = json.loads(write_inputs(batch, tmp_path).read_text())["data"]
    assert entry["image"]["shape"] == [3, 4]
    content = base64.b64decode(entry["image"]["content"]["b64"])
    assert (np.frombuffer(content, np.uint16).reshape(3, 4) == images[0]).all()
    options = {"concurrency": 4, "seconds": 6.0, "folder": tmp_path}
    found = " ".join(words(Path("tool"), batch, "h:1", **options))
    assert "-b 2 --shape image:3,4" in found
    assert "--concurrency-range 4:4" in found
    assert "--measurement-interval 2000" in found
    assert "--shared-memory" not in found
    plain = Request("m", {"image": images}, ("out",), batched=False)
    (entry,) = json.loads(write_inputs(plain, tmp_path).read_text())["data"]
    assert entry["image"]["shape"] == [2, 3, 4]
    found = " ".join(words(Path("tool"), plain, "h:1", **options, output_bytes=96))
    assert "-b" not in found.split()
    assert "--shape image:2,3,4 --shared-memory system --output-shared-memory-size 96" in found


def test_a_tool_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="not in PATH"):
        find_tool()
    broken = tmp_path / "perf_analyzer"
    broken.write_text("#!/bin/sh\necho 'version GLIBC_2.38 not found' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(InputError, match=r"GLIBC_2.38 not found; benchmarks/README.md"):
        find_tool()
    with pytest.raises(InputError, match="does not start"):
        find_tool(tmp_path / "nothing")


def test_what_is_sent_comes_back(tmp_path: Path) -> None:
    repository = write_identity(tmp_path)
    data = np.random.default_rng(0).integers(256, size=100_000, dtype=np.uint8)
    with (
        TritonServer(repository, models=[IDENTITY], grace=0) as server,
        Client(server.grpc_url, transport="grpc") as client,
    ):
        for sent in (data, data[:1], data[:5000]):
            back = client.infer(IDENTITY, {"data": sent}, ["data"]).outputs["data"]
            assert back.dtype == np.uint8
            assert (back == sent).all()


def test_tensors_that_its_files_cannot_bear_are_refused() -> None:
    check_size(1 << 19, 1 << 19)
    with pytest.raises(InputError, match="writes every tensor"):
        check_size(1 << 20, 1)


def test_plans() -> None:
    with pytest.raises(InputError, match="both must send the same way"):
        Plan(system=IDENTITY, choice=Choice(transport="auto"))
    with pytest.raises(InputError, match="above 0"):
        Plan(system=IDENTITY, size=0, choice=Choice(transport="grpc"))
    assert "--size 1024 --concurrency 1" in Plan(system=IDENTITY, concurrencies=(1,)).command


@pytest.mark.skipif(GIVEN is None, reason="perf_analyzer is not installed")
def test_both_on_the_identity_model(tmp_path: Path) -> None:
    plan = Plan(system=IDENTITY, concurrencies=(2,), seconds=1.0, rounds=3, tool=Path(str(GIVEN)))
    record = measure(plan, lambda _: None)
    assert [lane.name.split(",")[0] for lane in record.lanes] == [TOOL, OURS, BARE]
    for lane in record.lanes:
        assert not lane.summary.failures
        assert lane.summary.samples > 50
        assert lane.counters[IDENTITY].requests >= lane.summary.samples
    row = record.tables["difference"][0]
    assert row["sender"] == OURS
    assert 0.05 < row["ratio"] < 3
    (own,) = record.tables["perf_analyzer_itself"]
    # Its figures and those from its requests are of the same run.
    assert own["per_second"] == pytest.approx(own["per_second_from_its_requests"], rel=0.25)
    assert any("of what perf_analyzer does" in note for note in record.notes)
    text = write(record, tmp_path)
    assert "perf_analyzer" in text
    assert read(tmp_path / "bench.json") == record
