"""What one study or series has of its own stops no other, and `status` says what it is."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

from gateways import Running, both, ct, done, study_of, web, xray
from pacs import Orthanc
from pacs_between import RETRY, between
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from hilum.gateway.sources import ODD

Make = Callable[..., Running]


def raw(files: list[Path], **values: str) -> list[Path]:
    """Give attributes values that no writer of DICOM would give them."""
    for path in files:
        dataset = dcmread(path)
        for name, text in values.items():
            tag = Tag(name)
            kind = {"SliceThickness": "DS", "PatientWeight": "DS"}.get(name, "UI")
            data = text.encode() + b" " * (len(text) % 2)
            dataset[tag] = RawDataElement(tag, kind, len(data), data, 0, False, True)
        dataset.save_as(path)
    return files


@both
def test_a_study_with_an_identifier_of_other_text_is_set_aside(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    odd = raw(ct(tmp_path / "odd", seed=31, slices=6), StudyInstanceUID="../../ANNA")
    orthanc.store(odd + ct(tmp_path / "good", seed=32, slices=6))
    running = gateway(web(orthanc, changes=changes), RETRY).start()
    running.until(lambda s: s["counts"]["done"] == 1 and s["counts"].get("series_ignored", 0) == 1)
    assert {"state": "ignored", "reason": ODD, "series": 1} in running.status()["series"]
    shown = running.log.read_text() + running.call("status").stdout
    assert " ".join(ODD.split()) in " ".join(shown.split())
    assert "ANNA" not in shown
    assert running.end() == 0


@both
def test_values_that_are_no_numbers_stop_nothing(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    odd = ct(tmp_path / "odd", seed=33, slices=6)
    orthanc.store(raw(odd, SliceThickness="thin", PatientWeight="heavy"))
    orthanc.store(ct(tmp_path / "good", seed=34, slices=6))
    running = gateway(web(orthanc, changes=changes), RETRY).start()
    status = running.until(lambda s: s["counts"]["done"] + s["counts"]["failed"] == 2, fails=True)
    assert status["counts"]["done"] >= 1
    assert all(job["reason"] for job in status["jobs"] if job["state"] == "failed")
    assert running.end() == 0


@both
def test_a_series_of_which_the_pacs_fails_to_tell_waits_with_its_reason(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    bad, good = ct(tmp_path / "bad", seed=35, slices=6), ct(tmp_path / "good", seed=36, slices=6)
    orthanc.store(bad + good)
    instance = min(str(dcmread(path).SOPInstanceUID) for path in bad)
    (place,) = orthanc.lookup(instance)
    broken = [f"/instances/{place}/tags", f"/instances/{instance}/metadata"]

    def fault(method: str, path: str) -> int:
        return 500 if broken and path.partition("?")[0].endswith(tuple(broken)) else 0

    with between(orthanc, fault) as port:
        running = gateway(web(orthanc, port=port, changes=changes), RETRY).start()
        running.until(done(1))
        deadline = time.monotonic() + 60
        while not (series := running.status()["series"]):
            assert time.monotonic() < deadline
        assert series[0]["state"] == "seen"
        assert "answers 500" in series[0]["reason"]
        broken.clear()
        running.until(done(2))
        assert running.status()["series"] == []
        assert running.end() == 0


def test_a_study_that_the_pacs_fails_to_list_is_asked_for_again(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    bad, good = ct(tmp_path / "bad", seed=37, slices=6), ct(tmp_path / "good", seed=38, slices=6)
    orthanc.store(bad + good)
    broken = [study_of(bad)]

    def fault(method: str, path: str) -> int:
        return 500 if any(f"/studies/{one}/series" in path for one in broken) else 0

    with between(orthanc, fault) as port:
        running = gateway(web(orthanc, port=port, changes=False), RETRY).start()
        running.until(done(1))
        assert "answers 500" in running.log.read_text()
        broken.clear()
        running.until(done(2))
        assert "the source answers again" in running.log.read_text()
        assert running.end() == 0


def test_a_pacs_that_does_not_count_instances_is_asked_for_them(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    orthanc.store(ct(tmp_path / "ct", seed=39, slices=6))
    with between(orthanc, lambda *_: 0, without="00201209") as port:
        running = gateway(web(orthanc, port=port, changes=False), RETRY).start()
        running.until(done(1))
        assert running.end() == 0


def refusal(reason: int) -> tuple[int, str, bytes]:
    """What a PACS says when it takes no instance."""
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    said = {"00081198": {"vr": "SQ", "Value": [item] * 3}}
    return 409, "application/dicom+json", json.dumps(said).encode()


def test_instances_that_a_pacs_has_already_are_there(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    orthanc.store(ct(tmp_path / "ct", seed=43, slices=6))
    with between(orthanc, lambda *_: 0, instead=lambda: refusal(0x0111)) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        running.until(done(1))
        assert running.end() == 0
    assert "waits" not in running.log.read_text()


def test_a_pacs_without_room_is_waited_for(orthanc: Orthanc, gateway: Make, tmp_path: Path) -> None:
    orthanc.store(ct(tmp_path / "ct", seed=44, slices=6))
    said = [refusal(0xA700)]
    with between(orthanc, lambda *_: 0, instead=lambda: said.pop() if said else None) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        running.until(done(1))
        assert running.end() == 0
    assert "refuses 3 of 3 instances (reason A700)" in running.log.read_text()


@both
def test_nothing_is_lost_and_nothing_spins_while_the_ledger_cannot_be_written(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    orthanc.store(ct(tmp_path / "ct", seed=40, slices=6))
    running = gateway(web(orthanc, changes=changes), RETRY).start()
    running.until(done(1))
    assert running.process is not None
    free = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (20_000, free[1]))
    orthanc.store(xray(tmp_path / "x.dcm", seed=41) + ct(tmp_path / "more", seed=42, slices=6))
    deadline = time.monotonic() + 120
    while "the ledger" not in running.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = len(running.log.read_text().splitlines())
    time.sleep(3)
    assert len(running.log.read_text().splitlines()) - before < 40
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, free)
    running.until(done(3))
    assert running.end() == 0
