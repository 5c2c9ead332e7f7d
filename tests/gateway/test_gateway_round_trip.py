"""Studies come from a real PACS, and results go back, exactly once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from gateways import Running, ct, done, study_of, web, xray
from pacs import Orthanc
from pydicom import dcmread
from pydicom.uid import generate_uid

from hilum.gateway.ledger import Ledger
from hilum.server.launcher import TritonServer

Make = Callable[..., Running]


def modalities(pacs: Orthanc, study: str) -> list[str]:
    rows = pacs.client().search_for_series(study)
    return sorted(row["00080060"]["Value"][0] for row in rows)


@pytest.mark.parametrize("changes", [True, False], ids=["changes", "queries"])
def test_results_of_a_ct_and_an_xray_come_back_once(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    scan, picture = ct(tmp_path / "ct"), xray(tmp_path / "xray.dcm")
    orthanc.store(scan + picture)
    running = gateway(web(orthanc, changes=changes)).start()
    running.until(done(2))
    studies = study_of(scan), study_of(picture)
    assert modalities(orthanc, studies[0]) == ["CT", "OT", "SEG", "SR"]
    assert "SEG" in modalities(orthanc, studies[1])
    before = [orthanc.series(study) for study in studies]
    time.sleep(3)  # Orthanc calls the study stable again, now with the results
    orthanc.store(scan)  # the same again
    time.sleep(2)
    assert [orthanc.series(study) for study in studies] == before
    status = running.status()
    assert status["counts"]["done"] == len(status["jobs"]) == 2
    assert running.end() == 0


def test_presentation_state_and_enhanced_series_come_back_too(
    orthanc: Orthanc, gateway: Make, dlpe_server: TritonServer, tmp_path: Path
) -> None:
    scan = ct(tmp_path / "ct", slices=24)
    orthanc.store(scan)
    rules = (
        "[[rule]]\nname = 'CT'\nsystems = ['dlpe']\noptions.dlpe = {grid = 64, meshes = false}\n"
    )
    running = gateway(web(orthanc), rules=rules, url=dlpe_server.grpc_url).start()
    running.until(done(1), 300)
    found = modalities(orthanc, study_of(scan))
    assert found.count("CT") == 2  # the derived one
    assert {"PR", "SEG", "SR"} <= set(found)
    before = orthanc.series(study_of(scan))
    assert sorted(len(instances) for instances in before.values())[-2:] == [24, 24]
    time.sleep(3)  # the derived series is stable, too, and a CT
    assert orthanc.series(study_of(scan)) == before
    assert len(running.status()["jobs"]) == 1
    assert running.end() == 0


@pytest.mark.load
def test_a_series_that_never_rests_is_taken_after_a_limit(gateway: Make, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    slices = ct(incoming, slices=4)
    source = f"[source]\nfolder = '{incoming}'\n[target]\nfolder = '{tmp_path}/results'\n"
    running = gateway(source)
    text = running.config.read_text().replace("idle_s = 0.6", "idle_s = 4\nforce_s = 6")
    running.config.write_text(text)
    running.start()
    ledger = Ledger(tmp_path / "state" / "ledger.sqlite")
    deadline = time.monotonic() + 120
    for number in count():  # a slice at each look
        if ledger.jobs():
            break
        assert time.monotonic() < deadline
        dataset = dcmread(slices[0])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(tmp_path / "new.dcm")
        (tmp_path / "new.dcm").rename(incoming / f"{number}.dcm")
        time.sleep(0.3)
    assert running.end() == 0


def test_a_late_slice_makes_a_new_result_and_withdraws_the_old_one(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    scan = ct(tmp_path / "ct")
    orthanc.store(scan[:-1])
    running = gateway(web(orthanc)).start()
    running.until(done(1))
    study = study_of(scan)
    first = set(orthanc.series(study)) - {str(dcmread(scan[0]).SeriesInstanceUID)}
    orthanc.store(scan[-1:])
    running.until(done(2))
    rows = orthanc.client().search_for_series(study)
    notes = [row["0020000E"]["Value"][0] for row in rows if row["00080060"]["Value"] == ["KO"]]
    assert len(notes) == 1
    (note,) = orthanc.client().retrieve_series(study, notes[0])
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {item.SeriesInstanceUID for item in evidence} == first
    assert running.end() == 0


@pytest.mark.load
def test_a_late_slice_is_seen_though_orthanc_dies_before_it_says_so(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    scan = ct(tmp_path / "ct")
    orthanc.store(scan[:-1])
    running = gateway(web(orthanc), "[target]\nwithdraw = false").start()
    running.until(done(1))
    assert running.end() == 0
    orthanc.store(scan[-1:])
    orthanc.stop(signal.SIGKILL)
    orthanc.start()
    running.start().until(done(2))
    assert [job["instances"] for job in running.status()["jobs"]] == [11, 12]
    assert running.end() == 0


def test_explain_says_what_takes_a_series_and_why_another_is_refused(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    scan, few = ct(tmp_path / "ct"), ct(tmp_path / "few", seed=6, slices=3)
    orthanc.store(scan + few)
    running = gateway(web(orthanc))
    told = running.call("explain", study_of(scan)).stdout
    assert "chest CT: takes it: lungmask" in told
    assert "chest X-ray: refuses it: modality is not CR or DX" in told
    assert "3 instances, fewer than 4" in running.call("explain", study_of(few)).stdout
    assert running.call("explain", "1.2.3").returncode == 2


def test_check_tries_every_connection(orthanc: Orthanc, gateway: Make) -> None:
    good = gateway(web(orthanc)).call("check")
    assert good.returncode == 0, good.stdout
    assert good.stdout.split() == ["rules:", "ok", "source:", "ok", "target:", "ok",
                                   "servers:", "ok", "spool:", "ok"]  # fmt: skip
    orthanc.stop()
    bad = gateway(web(orthanc), url="127.0.0.1:1").call("check")
    assert bad.returncode == 1
    assert "source: query: http://127.0.0.1" in bad.stdout
    assert "cannot be reached" in bad.stdout
    assert "servers: at 127.0.0.1:1 nothing listens" in bad.stdout


def test_a_watched_folder_gives_the_same_result_as_a_pacs(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    incoming = tmp_path / "incoming"
    scan = ct(incoming / "anything")
    (incoming / "notes.txt").write_text("no image")
    source = f"[source]\nfolder = '{incoming}'\n[target]\nfolder = '{tmp_path}/results'\n"
    running = gateway(source).start()
    (job,) = running.until(done(1))["jobs"]
    assert running.end() == 0
    place = tmp_path / "results" / job["job"]
    assert (place / "0001" / "result.json").is_file()
    orthanc.store(scan)
    other = gateway(web(orthanc))
    (tmp_path / "state").rename(tmp_path / "state-of-the-folder")
    other.start().until(done(1))
    sent = {str(dcmread(p).SOPInstanceUID) for p in place.glob("*/dicom/*.dcm")}
    there = {uid for series in orthanc.series(study_of(scan)).values() for uid in series}
    assert sent <= there
