"""`--trace`: spans that nest, cover their study, and overlap where work does."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import hilum

from hilum.client.async_client import AsyncClient
from hilum.client.overlap import Overlap
from hilum.client.trace import Trace, span, study
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer

SLICES = 6

Event = dict[str, Any]


def spans(file: Path) -> list[Event]:
    """The spans of a trace, each with its end."""
    events = json.loads(file.read_text())["traceEvents"]
    return [e | {"end": e["ts"] + e["dur"]} for e in events if e["ph"] == "X"]


def within(inner: Event, outer: Event) -> bool:
    """Whether a span lies in another; the file's numbers are whole nanoseconds."""
    return outer["ts"] <= inner["ts"] + 0.002 and inner["end"] <= outer["end"] + 0.002


def check_nesting(events: list[Event]) -> None:
    """Two spans of a row lie within each other or apart."""
    rows: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        rows[event["tid"]].append(event)
    for row in rows.values():
        for i, a in enumerate(row):
            for b in row[i + 1 :]:
                apart = a["end"] <= b["ts"] + 0.002 or b["end"] <= a["ts"] + 0.002
                assert apart or within(a, b) or within(b, a), (a, b)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(f"patient-name-{seed}") for seed in range(2)]
    for seed, folder in enumerate(folders):
        write_dicom_series(chest_ct(seed, slices=SLICES, size=64, lesions=0).volume, folder)
    return folders


@pytest.fixture(scope="module")
def traced(
    ct_server: TritonServer, series: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The trace of a run over two series, two at once."""
    out = tmp_path_factory.mktemp("traced")
    done = hilum(
        "run", "lungmask", *series, "--out", out, "--url", ct_server.grpc_url, "--in-flight", 2,
        "--trace", out / "folder" / "trace.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "folder" / "trace.json"


def test_every_step_has_its_span(traced: Path) -> None:
    events = spans(traced)
    counts = Counter(e["name"] for e in events)
    requests = 2 * SLICES
    assert counts == {
        "study": 2, "write": 2, "read": 2 + requests, "preprocess": requests, "request": requests,
        "encode": requests, "wait": requests, "decode": requests, "postprocess": 4,
    }  # fmt: skip
    assert {e["args"]["study"] for e in events} == {1, 2}
    assert {e["args"]["model"] for e in events if e["name"] == "request"} == {"lungmask_r231"}
    assert {e["args"]["transport"] for e in events if e["name"] == "wait"} == {"shm"}


def test_spans_nest_and_cover_their_study(traced: Path) -> None:
    events = spans(traced)
    check_nesting(events)
    for number in (1, 2):
        own = [e for e in events if e["args"]["study"] == number]
        (whole,) = (e for e in own if e["name"] == "study")
        assert all(within(e, whole) for e in own)
        steps = sorted((e["ts"], e["end"]) for e in own if e is not whole)
        reached, idle = whole["ts"], 0.0
        for start, end in steps:
            idle += max(0.0, start - reached)
            reached = max(reached, end)
        idle += whole["end"] - reached
        assert idle < 0.5 * whole["dur"]  # what no step accounts for
    for request in (e for e in events if e["name"] == "request"):
        inner = [e for e in events if e["tid"] == request["tid"] and within(e, request)]
        inner = [e for e in sorted(inner, key=lambda e: e["ts"]) if e is not request]
        assert [e["name"] for e in inner] == ["encode", "wait", "decode"]
        assert all(a["end"] <= b["ts"] + 0.002 for a, b in pairwise(inner))


def test_requests_overlap(traced: Path) -> None:
    requests = sorted((e for e in spans(traced) if e["name"] == "wait"), key=lambda e: e["ts"])
    assert any(b["ts"] < a["end"] and a["tid"] != b["tid"] for a, b in pairwise(requests))


def test_overlap_of_spans() -> None:
    """Two requests at once for a second of four, work before, during and after."""
    studies = [(0.0, 3.0), (1.0, 4.0)]
    waits = [(1.0, 2.0), (1.0, 3.0)]
    work = [(0.0, 1.0), (0.5, 1.5), (2.5, 3.25), (2.75, 3.0)]
    found = Overlap.of(studies, waits, work)
    assert found == Overlap(4.0, waiting=0.5, requests=0.75, working=2.25 / 4, hidden=1 / 2.25,
                            idle=0.75 / 4)  # fmt: skip
    assert str(found) == (
        "4.0 s; requests under way 50% of it, 0.8 at once on average; the client at work 56%, 44% "
        "of that while requests were under way; neither 19%"
    )
    assert Overlap.of([], [], []) == Overlap(0, 0, 0, 0, 0, 0)


def test_overlap_is_that_of_the_recorded_spans() -> None:
    trace = Trace()
    with trace.recorded(), study(1):
        with span("request", whole=True, model="a"):
            with span("encode"):
                time.sleep(0.02)
            with span("wait"):
                time.sleep(0.06)
        time.sleep(0.02)
    found = trace.overlap()
    waiting, working, idle = (
        share * found.seconds for share in (found.waiting, found.working, found.idle)
    )
    assert waiting >= 0.06 and working >= 0.02 and idle >= 0.02
    assert waiting + working + idle == pytest.approx(found.seconds)
    assert found.hidden == 0


def test_the_command_reports_the_overlap(
    ct_server: TritonServer, series: list[Path], tmp_path: Path
) -> None:
    done = hilum(
        "run", "lungmask", series[0], "--out", tmp_path, "--url", ct_server.grpc_url,
        "--trace", tmp_path / "trace.json",
    )  # fmt: skip
    assert re.search(r"Trace: .*trace.json; \d+\.\d s; requests under way \d+% of it", done.stderr)
    kinds = {(e["name"], e["cat"]) for e in spans(tmp_path / "trace.json")}
    assert kinds == {
        ("study", "whole"), ("request", "whole"), ("wait", "wait"), ("read", "work"),
        ("preprocess", "work"), ("encode", "work"), ("decode", "work"), ("postprocess", "work"),
        ("write", "work"),
    }  # fmt: skip


def test_nothing_reveals_the_patient(traced: Path) -> None:
    text = traced.read_text()
    assert "patient" not in text.lower()
    assert "PHANTOM" not in text
    assert ".dcm" not in text


def test_asyncio_tasks_have_rows_of_their_own(
    ct_server: TritonServer, series: list[Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with AsyncClient(ct_server.grpc_url) as client:
            async for outcome in client.run_many("lungmask", series, in_flight=2):
                assert outcome.error is None

    trace = Trace()
    with trace.recorded():
        asyncio.run(run())
    trace.save(tmp_path / "trace.json")
    events = spans(tmp_path / "trace.json")
    check_nesting(events)
    assert Counter(e["name"] for e in events)["wait"] == 2 * SLICES
    assert {e["args"]["study"] for e in events} == {1, 2}


def test_a_failed_step_ends_its_span(tmp_path: Path) -> None:
    trace = Trace()
    with trace.recorded(), study(7):
        with pytest.raises(ValueError, match="no"), span("fails", why="a test"):
            raise ValueError("no")
        with span("goes on"):
            pass
    with span("not recorded"), study(8):
        pass
    trace.save(tmp_path / "trace.json")
    found = {e["name"]: e for e in spans(tmp_path / "trace.json")}
    assert found.keys() == {"study", "fails", "goes on"}
    assert found["fails"]["args"] == {"study": 7, "why": "a test"}
    assert found["fails"]["end"] <= found["goes on"]["ts"]
    assert {e["tid"] for e in found.values()} == {1}
