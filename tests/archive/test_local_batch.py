"""Batches with the local engine: once each, right, and every error with its reason."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import HILUM, Archive, ran, settled, xrays
from interrupted import small_file_systems, wait_for

from hilum.archive.ledger import Ledger
from hilum.archive.store import FolderStore


def test_a_batch_writes_what_a_run_writes(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 3)
    assert "3 studies are new" in archive.plan(tmp_path / "in")
    archive.run()
    assert "3 studies, 3 done, 3 results, 3 read, 0 problems" in archive.verified()
    ran("cxr-severity", tmp_path / "in", archive.url, tmp_path / "run")
    assert settled(archive.results) == settled(tmp_path / "run")
    assert "0 studies are new, 3 were there" in archive.plan(tmp_path / "in")


def test_bad_studies_have_reasons_and_the_rest_is_done(archive: Archive, tmp_path: Path) -> None:
    good, broken = xrays(tmp_path / "in", 2)
    broken.write_bytes(broken.read_bytes()[:3000])
    lines = [good, good, broken, tmp_path / "in/none.dcm"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, lines)))
    assert "3 studies are new, 1 were there" in archive.plan(tmp_path / "list.txt")
    said = archive.run(code=1)
    done, failed, missing = archive.rows()
    assert (done["state"], failed["state"], missing["state"]) == ("done", "failed", "failed")
    assert failed["error_kind"] == missing["error_kind"] == "input"
    assert failed["tries"] == 1
    assert "no such file" in missing["error"]
    assert str(tmp_path / "in") not in said.stderr
    archive.verified()
    assert archive.call("retry", "--kind", "server").stdout.startswith("0 studies")
    assert archive.call("retry").stdout.startswith("2 studies")


def test_a_killed_driver_goes_on_where_it_was(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 6)
    archive.plan(tmp_path / "in")
    first = archive.start()
    deadline = time.monotonic() + 60
    while sum(1 for _ in FolderStore(archive.results).names()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = archive.call(*archive.run_words())
    assert second.exit_code == 2
    assert "another driver" in second.stderr
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    said = archive.run()
    assert "found done" in said.stderr
    assert "6 studies, 6 done, 6 results, 6 read, 0 problems" in archive.verified()
    tries = [study.tries for study in Ledger(archive.ledger).studies()]
    assert tries == [1] * 6


def test_a_result_that_was_changed_or_removed_is_found(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 3)
    archive.plan(tmp_path / "in")
    archive.run()
    one, other, _ = FolderStore(archive.results).names()
    place = archive.results / one[:2] / one
    (place / "result.json").write_text((place / "result.json").read_text() + " ")
    shutil.rmtree(archive.results / other[:2] / other)
    found = archive.call("verify")
    assert found.exit_code == 1
    assert f"{one}: result.json has another content" in found.stdout
    assert f"{other}: done, and there is no result" in found.stdout
    archive.run()
    assert (archive.results / other[:2] / other).is_dir()


def test_results_that_are_not_mounted_are_not_computed_again(
    archive: Archive, tmp_path: Path
) -> None:
    xrays(tmp_path / "in", 1)
    archive.plan(tmp_path / "in")
    archive.run()
    archive.results.rename(tmp_path / "away")
    assert "is --out the same" in archive.run(code=2).stderr


def test_a_study_that_changed_after_the_plan_is_refused(archive: Archive, tmp_path: Path) -> None:
    (study,) = xrays(tmp_path / "in", 1)
    archive.plan(tmp_path / "in")
    os.utime(study, (1, 1))
    archive.run(code=1)
    assert "changed after it was planned" in archive.rows()[0]["error"]


def test_a_result_that_cannot_be_written_is_a_reason(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.archive.driver._WAIT_S", 0.0)
    xrays(tmp_path / "in", 2)
    archive.plan(tmp_path / "in")
    first, second = Ledger(archive.ledger).studies()
    archive.results.mkdir()
    (archive.results / first.name[:2]).write_text("in the way")
    archive.run(code=1)
    states = {s.name: (s.state, s.kind) for s in Ledger(archive.ledger).studies()}
    assert states == {first.name: ("failed", "output"), second.name: ("done", "")}


@pytest.mark.load
def test_a_full_disk_is_a_reason_and_the_rest_is_done(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 4)
    archive.plan(tmp_path / "in")
    archive.results.mkdir()
    with small_file_systems({archive.results: "8m"}) as room:
        if room is None:
            pytest.skip("no mount is allowed here")
        ballast = room.fill(archive.results, left=1_300_000)
        assert archive.start(within=room.enter).wait(120) == 1, archive.log()
        studies = list(Ledger(archive.ledger).studies())
        assert {(s.state, s.kind) for s in studies} == {("done", ""), ("failed", "output")}
        assert all("No space left" in s.reason for s in studies if s.kind)
        ballast.unlink()
        archive.call("retry", "--kind", "output")
        assert archive.start(within=room.enter).wait(120) == 0, archive.log()
    assert Ledger(archive.ledger).counts()["done"] == 4


def test_status_and_metrics_show_how_far_it_is(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 6)
    archive.plan(tmp_path / "in")
    run = archive.start("--metrics-port", 0)
    wait_for(lambda: "metrics: " in archive.log())
    (url,) = re.findall(r"metrics: (http://127.0.0.1:\S+)", archive.log())
    wait_for(lambda: Ledger(archive.ledger).counts()["done"] > 1)
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        shown = dict(re.findall(r"^(hilum_batch_\S+) (\S+)$", answer.read().decode(), re.MULTILINE))
    assert shown["hilum_batch_in_flight"] == "1.0"
    assert float(shown['hilum_batch_studies{state="pending"}']) > 0
    assert float(shown["hilum_batch_study_seconds_count"]) >= 1
    watch = subprocess.run(
        [*HILUM, "batch", "status", "--watch", "--ledger", archive.ledger],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    first, *_, last = watch.stdout.splitlines()
    assert re.search(r"[1-9]\d* studies/h, .+ left$", first)
    assert last.startswith("0 pending, 0 running, 6 done, 0 failed")
    assert run.wait(60) == 0


def test_without_a_server_nothing_is_blamed(make_archive: Callable[..., Archive],
                                            tmp_path: Path) -> None:  # fmt: skip
    archive = make_archive(url="127.0.0.1:9")
    xrays(tmp_path / "in", 1)
    archive.plan(tmp_path / "in")
    archive.run("--patience", 1, code=3)
    (study,) = Ledger(archive.ledger).studies()
    assert (study.state, study.tries) == ("pending", 0)


def test_a_plan_takes_no_other_options(archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 1)
    archive.plan(tmp_path / "in")
    done = archive.call("plan", tmp_path / "in", "--system", "cxr-severity")
    assert done.exit_code == 2
    assert "another plan" in done.stderr


def test_the_table_opens_with_pyarrow(archive: Archive, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    xrays(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    archive.plan(tmp_path / "in")
    archive.run(code=1)
    done = archive.call("export", "--out", tmp_path / "table.parquet")
    assert done.exit_code == 0, done.output
    rows = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert sorted(row["state"] for row in rows) == ["done", "done", "failed"]
    scores = [row["score"] for row in rows if row["state"] == "done"]
    assert all(isinstance(score, (int, float)) for score in scores)
