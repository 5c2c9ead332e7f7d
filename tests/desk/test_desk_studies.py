"""Studies, jobs and events of a desk, and what it makes of real results."""

from __future__ import annotations

import http.client
import json
import re
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from desks import TOKEN, Caller, operations, served
from PIL import Image
from starlette.routing import Mount, Route

from hilum.client.client import Client
from hilum.desk.scene import write_scene
from hilum.desk.web import PAGE, Web
from hilum.desk.work import Work
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer
from hilum.systems.lungmask.options import Options as LungmaskOptions

DICOM = bytes(128) + b"DICM" + bytes(1000)


def events(caller: Caller, count: int, last: str = "") -> list[tuple[str, str, object]]:
    """The next events: id, kind and data."""
    connection = http.client.HTTPConnection("127.0.0.1", caller.port, timeout=20)
    headers = {"authorization": f"Bearer {TOKEN}"} | ({"last-event-id": last} if last else {})
    connection.request("GET", "/api/events", headers=headers)
    answer, found, lines = connection.getresponse(), [], {}
    assert answer.headers["content-type"].startswith("text/event-stream")
    while len(found) < count:
        line = answer.fp.readline().decode().strip() if answer.fp else ""
        if ": " in line:
            name, _, value = line.partition(": ")
            lines[name] = value
        elif lines:
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
            lines = {}
    connection.close()
    return found


def test_events_resume_where_a_page_left_off(small: Caller) -> None:
    ((first, kind, _),) = events(small, 1)
    assert kind == "reset"
    study = small.study(DICOM)
    small("POST", f"/api/studies/{study}/run", {"system": "lungmask"})
    missed = events(small, 2, first)
    assert [kind for _, kind, _ in missed] == ["study", "study"]
    assert [len(data["jobs"]) for _, _, data in missed] == [0, 1]  # type: ignore[index]
    assert events(small, 1, missed[0][0]) == missed[1:]
    assert events(small, 1, "other-boot.1")[0][1] == "reset"
    small("DELETE", f"/api/studies/{study}")
    assert events(small, 1, missed[1][0])[0][1:] == ("gone", {"id": study})


def test_names_of_files_are_never_kept(small: Caller) -> None:
    kinds = {b"\x89PNG" + bytes(9): ".png", b"\x1f\x8b" + bytes(9): ".nii.gz", DICOM: ".dcm",
             bytes(344) + b"n+1\0": ".nii", b"\xff\xd8\xff" + bytes(9): ".jpg",
             b"other": ""}  # fmt: skip
    study = small.study(*kinds)
    assert small.desk is not None
    names = sorted(path.name for path in small.desk.uploads.inputs(study).iterdir())
    assert names == [f"{n:05d}{end}" for n, end in enumerate(kinds.values(), 1)]


def test_a_job_is_cancelled_tried_again_and_removed(small: Caller) -> None:
    study = small.study(DICOM)
    job = small("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).json["job"]
    assert small("POST", f"/api/jobs/{job}/retry").status == 409
    assert small("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).status == 409
    assert small("POST", f"/api/jobs/{job}/cancel").status == 200
    assert small.until(job, "cancelled")["kind"] == "cancelled"
    assert small("POST", f"/api/jobs/{job}/cancel").status == 409
    again = small("POST", f"/api/jobs/{job}/retry").json["job"]
    assert small.until(again, "waiting")["system"] == "lungmask"
    assert small("DELETE", f"/api/studies/{study}").status == 200
    assert small("GET", "/api/studies").json["studies"] == []
    assert small.desk is not None
    assert list(small.desk.spool.folder.iterdir()) == []


def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    with served(tmp_path / "desk") as caller:
        job = caller("POST", f"/api/studies/{caller.study(DICOM)}/run", {"system": "lungmask"})
        assert job.status == 202
        assert caller.desk is not None
        with caller.desk.ledger.change() as database:
            database.execute("ALTER TABLE job DROP COLUMN code")
    with served(tmp_path / "desk") as caller:
        (study,) = caller("GET", "/api/studies").json["studies"]
        assert [one["code"] for one in study["jobs"]] == [""]


def test_files_that_are_gone_say_so(small: Caller) -> None:
    study = small.study(DICOM)
    job = small("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).json["job"]
    assert small.desk is not None
    small.desk.ledger.move(job, "failed", kind="input", reason="no")
    small.desk.uploads.drop(study)
    answer = small("POST", f"/api/jobs/{job}/retry")
    assert (answer.status, answer.json["code"]) == (410, "gone")
    assert "send it again" in answer.json["error"]


def test_the_interface_describes_itself(small: Caller) -> None:
    found = small("GET", "/api").json
    assert found["openapi"].startswith("3.1")
    names = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) >= 12
    for path, methods in found["paths"].items():
        for one in methods.values():
            assert {p["name"] for p in one["parameters"]} == set(_names(path))
            assert {"401", "404", "413"} < set(one["responses"])


def test_what_is_routed_is_what_is_described(small: Caller) -> None:
    assert small.desk is not None
    app = Web(small.desk, None).app(TOKEN, ["127.0.0.1"])
    routed = {
        (method, route.path.replace(":path", ""))
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith("/api")
        for method in (route.methods or ()) - {"HEAD"}
    }
    assert routed == operations(small)
    others = {route.path for route in app.routes if isinstance(route, (Route, Mount))}
    assert {path for path in others if not path.startswith("/api")} == {"/", "/page", "/vendor"}


def test_every_text_of_the_page_is_there_in_both_languages() -> None:
    texts = (PAGE / "text.js").read_text()
    table = texts[: texts.index("const LANGUAGES")]
    pairs = re.findall(r'"?([\w-]+)"?: \[\s*("[^"]*"),\s*("[^"]*")\]', table)
    known = {key for key, _, _ in pairs}
    assert len(known) == len(pairs) > 100
    assert len(pairs) == len(re.findall(r"[\w\"]: \[", table))  # none has one text alone
    for key, english, german in pairs:
        assert re.findall(r"{\d}", english) == re.findall(r"{\d}", german), key
    code = "".join(p.read_text() for p in PAGE.glob("*.js") if p.name != "text.js")
    assert set(re.findall(r'\bt\("([\w-]+)"', code)) - known == set()


def _names(path: str) -> list[str]:
    return [part.partition("}")[0] for part in path.split("{")[1:]]


def test_the_folder_of_a_gateway_is_shown_and_not_changed(tmp_path: Path) -> None:
    with served(tmp_path / "state") as caller:
        assert caller.desk is not None
        ledger = caller.desk.ledger
        ledger.see("1.2.3.4", "1.2.3", 5)
        series = ledger.series("1.2.3.4")
        assert series is not None
        (job,) = ledger.take(series, "x", [("rule", "lungmask", {})])
    with served(tmp_path / "state", works=False) as caller:
        answer = caller("GET", "/api/studies")
        assert b"1.2.3" not in answer.body
        (study,) = answer.json["studies"]
        assert [j["id"] for j in study["jobs"]] == [job]
        assert caller("POST", f"/api/jobs/{job}/cancel").status == 403
        assert caller("POST", "/api/studies").status == 403
        assert caller("DELETE", f"/api/studies/{study['id']}").status == 403


@pytest.fixture
def working(tmp_path: Path, desk_server: TritonServer):
    """A desk that runs what it is given."""
    with served(tmp_path / "desk") as caller, Client(desk_server.grpc_url) as client:
        assert caller.desk is not None
        work = Work(caller.desk, client, lambda _: None)
        work.start()
        yield caller
        work.stop()


def test_several_xrays_are_run_and_a_bad_one_says_why(working: Caller, tmp_path: Path) -> None:
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), tmp_path / "a.dcm")
    study = working.study((tmp_path / "a.dcm").read_bytes(), DICOM)
    asked = {"system": "cxr-severity", "options": {"network": "manet"}}
    job = working("POST", f"/api/studies/{study}/run", asked).json["job"]
    done = working.until(job, "done", "failed")
    assert done["state"] == "done", done
    first, second = done["summary"]["studies"]
    assert "/" in first["row"]["score"]
    assert (second["error"], second["code"]) != ("", "input")
    assert str(tmp_path) not in json.dumps(done)
    (found,) = working("GET", f"/api/jobs/{job}/result").json["studies"]
    assert found["scene"]["kind"] == "xray"
    base = f"/api/jobs/{job}/studies/0001"
    for name in ("plain.png", "marked.png"):
        assert working("GET", f"{base}/view/{name}").body.startswith(b"\x89PNG")
    assert working("GET", f"{base}/report.pdf").body.startswith(b"%PDF")
    header, row = working("GET", f"{base}/report.csv").body.decode().splitlines()
    assert len(header.split(",")) == len(row.split(","))
    assert any(f["name"].endswith(".dcm") for f in found["files"])


def test_a_study_that_cannot_be_read_fails_with_its_reason(working: Caller) -> None:
    study = working.study(DICOM)
    job = working("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).json["job"]
    failed = working.until(job, "done", "failed")
    assert (failed["state"], failed["kind"], failed["code"]) == ("failed", "input", "format")
    assert failed["reason"]
    assert "uploads" not in failed["reason"]


def test_what_ran_when_a_desk_died_is_run_again_but_not_for_ever(
    tmp_path: Path, desk_server: TritonServer
) -> None:
    write_dicom_series(chest_ct(5, slices=12, size=96, lesions=0).volume, tmp_path / "ct")
    with served(tmp_path / "desk") as caller:
        assert caller.desk is not None
        study = caller.study(*(p.read_bytes() for p in sorted((tmp_path / "ct").iterdir())))
        job = caller("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).json["job"]
        bad = caller.desk.submit(study, "ct-classifier", {})
        caller.desk.ledger.move(job, "running", crashes=1)
        caller.desk.ledger.move(bad, "running", crashes=3)
    with served(tmp_path / "desk") as caller, Client(desk_server.grpc_url) as client:
        assert caller.desk is not None
        work = Work(caller.desk, client, lambda _: None)
        work.start()
        assert caller.until(job, "done", "failed")["state"] == "done"
        assert caller.until(bad, "failed")["kind"] == "crash"
        work.stop()


def test_a_cancelled_job_ends_and_leaves_nothing(working: Caller, tmp_path: Path) -> None:
    write_dicom_series(chest_ct(5, slices=60, size=128, lesions=0).volume, tmp_path / "ct")
    study = working.study(*(p.read_bytes() for p in sorted((tmp_path / "ct").iterdir())))
    job = working("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).json["job"]
    working.until(job, "running")
    working("POST", f"/api/jobs/{job}/cancel")
    assert working.until(job, "cancelled")
    assert working.desk is not None
    while job in working.desk.stops:
        threading.Event().wait(0.05)
    assert not working.desk.spool.result(job).exists()


class _Result:
    """A result of which the viewer needs nothing more."""


def test_masks_and_half_the_resolution_lie_where_the_ct_lies(tmp_path: Path) -> None:
    phantom = chest_ct(3, slices=130, size=128, lesions=4)
    write_dicom_series(phantom.volume, tmp_path / "ct")
    geometry = phantom.volume.geometry
    place = tmp_path / "result"
    place.mkdir()
    for name, mask in (("lung", phantom.lung), ("visible", phantom.lesion)):
        voxels = (mask > 0).astype(np.uint8).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(voxels, geometry.nifti_affine), place / f"{name}.nii.gz")
    (place / "result.json").write_text(json.dumps({"window_level": None}))
    Image.new("L", (4, 4)).save(place / "slice.png")
    write_scene(LungmaskOptions(), tmp_path / "ct", _Result(), place, tmp_path / "view")
    scene = json.loads((tmp_path / "view/scene.json").read_text())
    assert scene["pictures"] == ["slice.png"]
    assert [layer["name"] for layer in scene["layers"]] == ["lung", "visible"]
    masks = scene["volumes"]["masks"]
    truth = (phantom.lung > 0) * 1 + (phantom.lesion > 0) * 2
    codes = np.array(masks["codes"])
    whole = nibabel.load(tmp_path / "view" / masks["full"])
    np.testing.assert_array_equal(codes[np.asarray(whole.dataobj)].transpose(2, 1, 0), truth)
    half = nibabel.load(tmp_path / "view" / masks["half"])
    small = codes[np.asarray(half.dataobj)]
    assert small.shape == (64, 64, 65)
    for bit in (1, 2):  # the same place in the patient, to a voxel
        centres = [
            nibabel.affines.apply_affine(image.affine, np.argwhere(values & bit).mean(axis=0))
            for image, values in ((whole, truth.transpose(2, 1, 0)), (half, small))
        ]
        np.testing.assert_allclose(centres[0], centres[1], atol=max(geometry.spacing))
    ct = nibabel.load(tmp_path / "view" / scene["volumes"]["ct"]["half"])
    blocks = phantom.volume.voxels.reshape(65, 2, 64, 2, 64, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(np.asarray(ct.dataobj).transpose(2, 1, 0), blocks, atol=1)
