"""What cannot be processed or sent is set aside with its reason, and the queue goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateways import Running, both, ct, done, study_of, web
from pacs import Orthanc
from pacs_between import RETRY, between
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import EncapsulatedPDFStorage, generate_uid

from hilum.catalog.errors import InputError
from hilum.gateway.config import TEMPLATE, read_settings

Make = Callable[..., Running]

XML = 200, "application/dicom+xml", b"<NativeDicomModel/>"


@pytest.mark.parametrize(
    "status", [401, *(pytest.param(n, marks=pytest.mark.load) for n in (429, 503))]
)
def test_answers_that_say_nothing_of_the_study_are_waited_out(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, status: int
) -> None:
    left = {"POST": 2, "GET": 3}

    def fault(method: str, path: str) -> int:
        if method == "POST" and "lookup" in path:
            return 0
        left[method] -= 1
        return status if left[method] >= 0 else 0

    scan = ct(tmp_path / "ct", slices=6)
    orthanc.store(scan)
    with between(orthanc, fault) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        running.until(done(1))
        assert running.end() == 0
    assert str(status) in running.log.read_text()


def test_a_pacs_that_answers_in_xml_has_what_it_lists(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    orthanc.store(ct(tmp_path / "ct", slices=6))
    with between(orthanc, lambda *_: 0, instead=lambda: XML) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        running.until(done(1))
        assert running.end() == 0
    assert "waits" not in running.log.read_text()


def test_a_pacs_that_takes_no_large_request_gets_one_instance_at_a_time(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    sent: list[str] = []

    def fault(method: str, path: str) -> int:
        if method == "POST" and path.endswith("/studies"):
            sent.append(path)
            return 413 if len(sent) == 1 else 0
        return 0

    orthanc.store(ct(tmp_path / "ct", slices=6))
    with between(orthanc, fault) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        running.until(done(1))
        assert running.end() == 0
    assert len(sent) == 1 + 3  # together, then SEG, SR and picture


def test_an_encrypted_pacs_is_trusted_by_its_authority_and_lets_in_by_token(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    for name in ("pacs", "stranger"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_text("".join((tmp_path / f"pacs.{end}").read_text() for end in ("key", "pem")))
    monkeypatch.setenv("TOKEN", "sesame")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "stranger.pem"))  # is not asked
    with between(orthanc, lambda method, path: 0, both, "sesame") as port:
        root = f"https://127.0.0.1:{port}"
        source = f"[source]\ndicomweb = '{root}/dicom-web'\northanc = '{root}'\n"
        trusted, token = f"tls_ca = '{tmp_path}/pacs.pem'\n", "token = 'env:TOKEN'\n"
        good = gateway(source + trusted + token).call("check")
        assert good.returncode == 0, good.stdout
        assert "answers 401" in gateway(source + trusted).call("check").stdout
        bad = gateway(source + f"tls_ca = '{tmp_path}/stranger.pem'\n" + token).call("check")
        assert bad.returncode == 1
        assert "no certificate of an authority that is trusted" in bad.stdout


def test_a_refused_request_is_set_aside_and_the_queue_goes_on(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    first, second = ct(tmp_path / "a", seed=7, slices=6), ct(tmp_path / "b", seed=8, slices=6)
    orthanc.store(first + second)
    study = study_of(first)

    def fault(method: str, path: str) -> int:
        bare = path.partition("?")[0]
        return 400 if bare.endswith("/series/" + series) and study in bare else 0

    series = str(dcmread(first[0]).SeriesInstanceUID)
    with between(orthanc, fault) as port:
        running = gateway(web(orthanc, port=port), RETRY).start()
        status = running.until(
            lambda s: s["counts"]["failed"] == 1 and s["counts"]["done"] == 1, fails=True
        )
        assert running.end() == 0
    (failed,) = (job for job in status["jobs"] if job["state"] == "failed")
    assert "answers 400" in failed["reason"]
    assert failed["job"] in running.call("status").stdout


def change(files: list[Path], **values: Any) -> list[Path]:
    for path in files:
        dataset = dcmread(path)
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    return files


def test_what_is_no_study_of_a_system_gets_its_reason(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    good = ct(tmp_path / "good", seed=9, slices=6)
    scout = change(
        ct(tmp_path / "scout", seed=10, slices=6), SeriesDescription="CHEST SCOUT \x1b[31m"
    )
    broken = ct(tmp_path / "broken", seed=11, slices=6)
    for path in broken:
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData[:100]
        dataset.save_as(path)
    ours = change(ct(tmp_path / "ours", seed=12, slices=6), Manufacturer="Hilum")
    orthanc.store(good + scout + broken + ours)
    running = gateway(web(orthanc), RETRY).start()
    status = running.until(
        lambda s: (
            s["counts"]["done"] == 1
            and s["counts"]["failed"] == 1
            and s["counts"].get("series_ignored", 0) >= 2
        ),
        fails=True,
    )
    (failed,) = (job for job in status["jobs"] if job["state"] == "failed")
    assert failed["kind"] == "input"
    assert "description holds scout" in running.call("explain", study_of(scout)).stdout
    assert "made by Hilum" in running.call("explain", study_of(ours)).stdout
    log = running.log.read_text() + running.call("status").stdout
    assert "\x1b" not in log
    for files in (good, scout, broken):
        assert study_of(files) not in log
    assert running.end() == 0


def test_two_patients_in_one_series_are_set_aside(gateway: Make, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    files = ct(incoming, seed=13, slices=6)
    change(files[:2], PatientID="ANOTHER")
    source = f"[source]\nfolder = '{incoming}'\n[target]\nfolder = '{tmp_path}/results'\n"
    running = gateway(source).start()
    status = running.until(lambda s: s["counts"]["failed"] == 1, fails=True)
    assert "another patient" in status["jobs"][0]["reason"]
    change(files[:2], PatientID=str(dcmread(files[2]).PatientID))
    assert running.call("retry", status["jobs"][0]["job"]).returncode == 0
    running.until(done(1))
    assert running.end() == 0


@both
def test_a_series_under_two_patients_of_one_study_is_set_aside(
    orthanc: Orthanc, gateway: Make, tmp_path: Path, changes: bool
) -> None:
    mixed, good = ct(tmp_path / "mixed", seed=15, slices=6), ct(tmp_path / "good", seed=16)
    orthanc.store(change(mixed[:2], PatientID="ANOTHER") + mixed[2:] + good)
    running = gateway(web(orthanc, changes=changes), RETRY).start()
    status = running.until(
        lambda s: s["counts"]["failed"] == 1 and s["counts"]["done"] == 1, fails=True
    )
    (failed,) = (job for job in status["jobs"] if job["state"] == "failed")
    assert "another patient" in failed["reason"]
    assert running.end() == 0


def test_another_series_of_another_patient_in_the_study_keeps_its_patient(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    first, second = ct(tmp_path / "a", seed=17, slices=6), ct(tmp_path / "b", seed=18, slices=6)
    study = study_of(first)
    orthanc.store(first + change(second, PatientID="ANOTHER", StudyInstanceUID=study))
    running = gateway(web(orthanc), RETRY).start()
    running.until(done(2))
    assert running.end() == 0
    rows = orthanc.client().search_for_series(study, fields=["PatientID"])
    made = [row["00100020"]["Value"][0] for row in rows if row["00080060"]["Value"] == ["SEG"]]
    assert sorted(made) == sorted([str(dcmread(first[0]).PatientID), "ANOTHER"])


def test_instances_that_are_no_images_are_set_aside(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    good, texts = ct(tmp_path / "good", seed=19), ct(tmp_path / "texts", seed=20, slices=6)
    for path in texts:
        dataset = dcmread(path)
        del dataset.PixelData
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
        dataset.save_as(path)
    orthanc.store(good + texts)
    running = gateway(web(orthanc), RETRY).start()
    status = running.until(
        lambda s: s["counts"]["failed"] == 1 and s["counts"]["done"] == 1, fails=True
    )
    (failed,) = (job for job in status["jobs"] if job["state"] == "failed")
    assert failed["kind"] == "input"
    assert failed["reason"] in " ".join(running.call("status").stdout.split())
    assert running.end() == 0


def test_names_with_escape_sequences_come_back_as_they_are_and_are_never_shown(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    name = "DOE\x1b[2J^\x1b]0;owned\x07"
    scan = change(ct(tmp_path / "ct", seed=21, slices=6), PatientID="A\x1b[31mB", StudyID="\x1b[H")
    for path in scan:
        dataset = dcmread(path)
        dataset.add(RawDataElement(Tag("PatientName"), "PN", len(name), name.encode(), 0, False,
                                   True))  # fmt: skip
        dataset.save_as(path)
    orthanc.store(scan)
    running = gateway(web(orthanc), RETRY).start()
    running.until(done(1))
    shown = running.log.read_text() + running.call("status").stdout
    shown += running.call("explain", study_of(scan)).stdout
    assert "\x1b" not in shown
    assert "DOE" not in shown
    assert running.end() == 0


@pytest.mark.load
def test_five_thousand_slices_are_left_alone_with_a_reason_and_the_queue_goes_on(
    orthanc: Orthanc, gateway: Make, tmp_path: Path
) -> None:
    (first, *_) = ct(tmp_path / "huge", seed=22, slices=4)
    slices = []
    for number in range(5000):
        dataset = dcmread(first)
        dataset.Rows = dataset.Columns = 8
        dataset.PixelData = bytes(128)
        dataset.InstanceNumber = number + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        slices.append(dataset)
    client = orthanc.client()
    for start in range(0, 5000, 1000):
        client.store_instances(slices[start : start + 1000])
    orthanc.store(ct(tmp_path / "good", seed=23))
    running = gateway(web(orthanc), RETRY).start()
    running.until(lambda s: s["counts"]["done"] == 1 and s["counts"].get("series_ignored", 0) == 1)
    told = running.call("explain", study_of([first])).stdout
    assert "5000 instances, more than 3000" in told
    assert running.end() == 0


def test_a_series_too_large_for_a_rule_is_left_alone(gateway: Make, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    (first,) = ct(incoming, seed=14, slices=4)[:1]
    dataset = dcmread(first)
    for number in range(40):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(incoming / f"more-{number}.dcm")
    source = f"[source]\nfolder = '{incoming}'\n[target]\nfolder = '{tmp_path}/results'\n"
    rules = "[[rule]]\nname = 'CT'\nsystems = ['lungmask']\nmax_slices = 30\n"
    running = gateway(source, rules=rules).start()
    running.until(lambda s: s["counts"].get("series_ignored", 0) == 1)
    assert "44 instances, more than 30" in running.call("explain", study_of([first])).stdout
    assert running.end() == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("poll", "poll", None),
        ("idle_s = 60", "idle_s = 0", "above 0"),
        ("idle_s = 60", "idel_s = 60", "idel_s"),
        ('systems = ["lungmask"]', 'systems = ["lungs"]', "no system 'lungs'"),
        ('"env:HILUM_PACS_PASSWORD"', '"swordfish"', "never the secret itself"),
        ('modality = ["CT"]', 'modality = "CT"', "array"),
        ("watermark = 0.9", "watermark = 90", "between 0 and 1"),
        ('# options.lungmask.mode = "corrected"', 'options.lungmask.mood = "x"', "mood"),
        ('urls = ["127.0.0.1:8001"]', "urls = []", "urls or repository"),
        ('name = "chest X-ray"', 'name = "chest CT"', "two rules"),
        ("[source]", "[source", "line 4"),
    ],
)
def test_a_mistake_in_the_settings_is_named(
    tmp_path: Path, old: str, new: str, words: str | None
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(TEMPLATE.replace(old, new))
    if words is None:
        assert read_settings(path).rule[0].systems == ["lungmask"]
        return
    with pytest.raises(InputError, match=words) as problem:
        read_settings(path)
    assert "swordfish" not in str(problem.value)
