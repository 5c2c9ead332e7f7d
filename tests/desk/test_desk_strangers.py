"""What the desk refuses, and that a refusal leaves nothing."""

from __future__ import annotations

import io
import json
import socket
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from desks import TOKEN, Caller, served

from hilum.desk.guard import POLICY
from hilum.desk.limits import Limits

DICOM = bytes(128) + b"DICM" + bytes(1000)


def left(caller: Caller) -> list[str]:
    assert caller.desk is not None
    return sorted(p.name for p in caller.desk.uploads.folder.rglob("*") if p.is_file())


def test_nothing_is_answered_without_the_token(small: Caller) -> None:
    described = small("GET", "/api").json
    asked = 0
    for path, operations in described["paths"].items():
        place = path.replace("{", "").replace("}", "")
        for method in operations:
            for token in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
                answer = small(method.upper(), place, token=token)
                assert answer.status == 401, (method, path)
                assert b"token" in answer.body
                asked += 1
    assert asked >= 4 * 12
    assert small("GET", "/api/studies", token="", authorization=f"Basic {TOKEN}").status == 401
    assert small("GET", f"/api/studies?token={TOKEN}", token="").status == 401
    assert small("GET", "/api/anything", token="").status == 401
    assert left(small) == []


def test_a_foreign_host_is_refused(small: Caller) -> None:
    for host in ("evil.example", "evil.example:80", f"127.0.0.1.evil.example:{small.port}", ""):
        assert small("GET", "/api/studies", host=host).status == 400
        assert small("GET", "/", host=host).status == 400
    assert small("GET", "/api/studies", host=f"127.0.0.1:{small.port}").status == 200


def test_every_answer_carries_the_content_policy(small: Caller) -> None:
    for path in ("/", "/page/main.js", "/page/style.css", "/api/studies", "/api/none", "/none"):
        headers = small("GET", path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in POLICY
    assert small("GET", "/api/studies").headers["cache-control"] == "no-store"


def test_no_path_leads_out_of_the_folder(small: Caller, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    job, place = finished(small)
    (place / "link.txt").symlink_to(secret)
    (place / "folder").symlink_to(tmp_path)
    (tmp_path / "result.json").write_text('{"secret": 1}')
    (place.parent / "0003").symlink_to(tmp_path)  # the folder of a study
    (place.parent / "0004").mkdir()
    (place.parent / "0004" / "result.json").symlink_to(tmp_path / "result.json")
    view = place.parents[1] / "view"
    view.mkdir()
    (view / "0001").symlink_to(tmp_path)
    base = f"/api/jobs/{job}/studies/0001"
    assert small("GET", f"{base}/files/result.json").status == 200
    ways = (
        "../../../../../secret.txt", "..%2f..%2f..%2f..%2f..%2fsecret.txt", str(secret),
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret.txt", "%2fetc%2fpasswd", "....//secret.txt",
        "..\\..\\secret.txt", "result.json%00.txt", "./result.json", "../0001/result.json",
        "link.txt", "folder/secret.txt", "secret.txt",
    )  # fmt: skip
    for way in ways:
        for where in (f"{base}/files/", f"{base}/view/", "/page/", "/vendor/"):
            answer = small("GET", where + way)
            assert answer.status in (400, 404), (where, way)
            assert b"secret" not in answer.body.replace(b"secret.txt", b"")
    assert [s["name"] for s in small("GET", f"/api/jobs/{job}/result").json["studies"]] == ["0001"]
    for other in ("..", "0002", "0003", "0004", "%2e%2e", "*"):
        assert small("GET", f"/api/jobs/{job}/studies/{other}/files/result.json").status == 404
    for other in ("..", "%2e%2e%2f", "*", "' OR 1=1 --"):
        assert small("GET", f"/api/jobs/{other.replace(' ', '%20')}/result").status == 404


def finished(caller: Caller) -> tuple[str, Path]:
    """A job whose result is there, as a worker would have left it; gives its study's folder."""
    assert caller.desk is not None
    study = caller.study(DICOM)
    job = caller.desk.submit(study, "lungmask", {})
    place = caller.desk.spool.result(job) / "0001"
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps({"hilum_version": "0", "system": "lungmask"}))
    caller.desk.ledger.move(job, "done")
    return job, place


@pytest.mark.parametrize("study", ["../x", "%2e%2e%2fx", "0" * 32, "x" * 32, "..%2f..%2f"])
def test_an_upload_to_no_study_is_refused(small: Caller, study: str) -> None:
    assert small("PUT", f"/api/studies/{study}/files/1", DICOM).status in (400, 404)
    assert left(small) == []


@pytest.mark.parametrize("number", ["0", "21", "-1", "1.dcm", "99999999999", "%2e%2e", "%D9%A1"])
def test_a_file_is_a_number(small: Caller, number: str) -> None:
    study = small("POST", "/api/studies").json["id"]
    assert small("PUT", f"/api/studies/{study}/files/{number}", DICOM).status in (404, 413)
    assert left(small) == []


def test_a_file_that_is_too_long_is_refused_declared_or_chunked(small: Caller) -> None:
    study = small("POST", "/api/studies").json["id"]
    path = f"/api/studies/{study}/files/1"
    assert small("PUT", path, bytes(200_001)).status == 413
    assert left(small) == []
    assert small("PUT", path, iter([DICOM, *[bytes(50_000)] * 5])).status == 413
    assert left(small) == []
    assert small("PUT", path, b"x", content_length="999999999999").status == 413
    assert small("PUT", path, iter([DICOM, bytes(50_000)])).status == 200
    assert left(small) == ["00001.dcm"]


def test_a_study_that_is_too_large_is_refused(small: Caller) -> None:
    study = small.study(bytes(150_000), bytes(100_000))
    path = f"/api/studies/{study}/files"
    assert small("PUT", f"{path}/3", bytes(60_000)).status == 413
    assert small("PUT", f"{path}/3", iter([bytes(30_000)] * 2)).status == 413
    assert small("PUT", f"{path}/2", bytes(140_000)).status == 200  # in place of the earlier one
    assert len(left(small)) == 2
    (found,) = small("GET", "/api/studies").json["studies"]
    assert (found["files"], found["bytes"]) == (2, 290_000)


def test_json_is_bounded_and_must_be_an_object(small: Caller) -> None:
    path = f"/api/studies/{small.study(DICOM)}/run"
    assert small("POST", path, b'{"system": "' + bytes(70_000) + b'"}').status == 413
    for body in (b"", b"[]", b"no", b"[" * 60_000, b'{"system": 1}', b'{"system": "none"}',
                 b'{"system": "lungmask", "options": {"mode": "no"}}',
                 b'{"system": "lungmask", "options": {"clean": 1}}',
                 b'{"system": "lungmask", "options": {"device": "cuda:0"}}',
                 b'{"system": "lungmask", "options": {"series": "\\ud800"}}',
                 b'{"system": "lungmask", "options": {"series": "' + b"x" * 2000 + b'"}}',
                 ):  # fmt: skip
        assert small("POST", path, body).status == 422, body[:40]


def test_a_number_of_files_is_a_number(small: Caller) -> None:
    for files in (0, -1, 1.5, "3", True):
        assert small("POST", "/api/studies", {"files": files}).status == 422
    assert small("POST", "/api/studies", {"files": 21}).status == 413
    assert small("GET", "/api/studies").json["studies"] == []
    study = small("POST", "/api/studies", {"files": 2}).json["id"]
    assert small("PUT", f"/api/studies/{study}/files/1", DICOM).status == 200
    answer = small("POST", f"/api/studies/{study}/run", {"system": "lungmask"})
    assert answer.status == 409
    assert "1 of 2 files" in answer.json["error"]
    assert small("PUT", f"/api/studies/{study}/files/2", DICOM).status == 200
    assert small("POST", f"/api/studies/{study}/run", {"system": "lungmask"}).status == 202


def test_a_chunked_body_without_an_end_is_given_up(small: Caller) -> None:
    """It comes in time and never ends: its size ends it, or that the token is missing."""
    study = small("POST", "/api/studies").json["id"]
    for path in (f"PUT /api/studies/{study}/files/1", "POST /api/studies"):
        for token, status in ((TOKEN, 413), ("wrong", 401)):
            head = (
                f"{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
                "transfer-encoding: chunked\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", small.port), timeout=20) as endless:
                endless.sendall(head.encode())
                with suppress(OSError):
                    for _ in range(50):
                        endless.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
                with suppress(ConnectionResetError):
                    assert endless.recv(100).startswith(f"HTTP/1.1 {status}".encode())
            assert left(small) == []


def test_a_body_that_stops_coming_is_given_up(small: Caller) -> None:
    path = "/api/studies"  # JSON
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {TOKEN}\r\ncontent-length: 20\r\n\r\n{{"
    )
    with socket.create_connection(("127.0.0.1", small.port)) as slow:
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    study = small("POST", "/api/studies").json["id"]
    head = (
        f"PUT /api/studies/{study}/files/1 HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {TOKEN}\r\ncontent-length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", small.port)) as slow:
        slow.sendall(head.encode() + bytes(10))
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", small.port)) as broken:
        broken.sendall(head.encode() + bytes(10))
        time.sleep(0.2)
    deadline = time.monotonic() + 5
    while left(small):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_connection_without_a_request_is_ended(small: Caller) -> None:
    for begun in (b"", b"GET /api HTTP/1.1\r\nhost: 127"):
        with socket.create_connection(("127.0.0.1", small.port), timeout=10) as idle:
            idle.sendall(begun)
            assert idle.recv(100) == b""
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as second:
        second.sendall(b"GET /api HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert second.recv(10_000).startswith(b"HTTP/1.1 401")


def test_archives_and_empty_files_are_refused(small: Caller) -> None:
    study = small("POST", "/api/studies").json["id"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.dcm", DICOM)
    assert small("PUT", f"/api/studies/{study}/files/1", packed.getvalue()).status == 415
    assert small("PUT", f"/api/studies/{study}/files/1", b"").status == 400
    assert left(small) == []


def test_there_are_so_many_studies_and_jobs_at_once(small: Caller) -> None:
    names = [small.study(DICOM) for _ in range(3)]
    assert small("POST", "/api/studies").status == 429
    runs = [small("POST", f"/api/studies/{n}/run", {"system": "lungmask"}).status for n in names]
    assert runs == [202, 202, 429]
    assert small("DELETE", f"/api/studies/{names[2]}").status == 200
    assert small("POST", "/api/studies").status == 201


def test_a_full_disk_takes_no_study(tmp_path: Path) -> None:
    with served(tmp_path / "desk", Limits(watermark=0.0)) as caller:
        assert caller("POST", "/api/studies").status == 507


def test_partial_files_of_an_earlier_desk_are_removed(tmp_path: Path) -> None:
    with served(tmp_path / "desk") as caller:
        study = caller.study(DICOM)
    (tmp_path / f"desk/uploads/{study}/in/00002.abc.part").write_bytes(b"x")
    with served(tmp_path / "desk") as caller:
        (found,) = caller("GET", "/api/studies").json["studies"]
        assert found["files"] == 1
        assert left(caller) == ["00001.dcm"]
