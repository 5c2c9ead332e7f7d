"""Pages of the How-to part, followed on a server of small stand-ins: commands and programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chest_repository import export_chest
from manual import ROOT, Typist, inline, shown

from hilum.archive.ledger import Ledger
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer, free_ports


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_chest(tmp_path_factory.mktemp("how-to"), "pspnet")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, grace=0) as server:
        yield server


def test_an_archive_of_twelve_xrays(server: TritonServer, tmp_path: Path) -> None:
    pytest.importorskip("msgspec", reason="the extra cluster is not installed")
    (block,) = shown("docs/how-to/archive.md", "Try it on twelve X-rays", "sh")
    here, reader = {"localhost:8101": server.grpc_url}, Typist(tmp_path)
    reader.type(block, here)
    table = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(table) == 12
    assert {json.loads(row)["state"] for row in table} == {"done"}
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("archive/*/*/result.json"))
    assert len(before) == 12
    reader.type(block.splitlines()[2], here)  # again: nothing is computed
    after = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("archive/*/*/result.json"))
    assert after == before


@pytest.mark.load
def test_an_archive_of_a_folder_a_list_and_a_bucket(server: TritonServer, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    pytest.importorskip("moto.server", reason="moto is not installed")
    import buckets

    volume = chest_ct(1, slices=5, size=96, lesions=0).volume
    for name in ("archive/2024/a", "archive/2024/b", "more/c", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_dicom_series(volume, tmp_path / name)
    (tmp_path / "more.txt").write_text(f"{tmp_path}/more/c\n")
    (block,) = shown("docs/how-to/archive.md", "Process an archive", "sh")
    _, plan, run, status, verify, export = block.splitlines()  # tests/installs has the first
    ledger = {"/var/lib/hilum/ct.db": "ct.db"}
    with buckets.served():
        import s3fs

        bucket = s3fs.S3FileSystem(use_listings_cache=False)
        buckets.made("bucket")
        for file in (tmp_path / "d").iterdir():
            bucket.put_file(str(file), f"bucket/ct/d/{file.name}")
        reader = Typist(tmp_path)
        assert "4 studies" in reader.type(plan, {"/archive": "archive", **ledger})
        one = {"--url gpu-1:8001 --url gpu-2:8001": f"--url {server.grpc_url}"}
        reader.type(run, {"/results": "results", **one, **ledger})
        watched = reader.type(f"timeout --signal=INT 5 {status}", ledger, 124, 130, 0)
        assert "4 done" in watched
        assert "0 problems" in reader.type(verify, ledger)
        reader.type(export, ledger)
        assert (tmp_path / "results.parquet").is_file()
        retry = inline("docs/how-to/archive.md", "hilum batch retry --ledger ct.db --kind crash")
        reader.type(retry)
        counted = inline("docs/reference/metrics.md", "hilum batch run --metrics-port 9465")
        given = f"{counted} --ledger ct.db --out results --url {server.grpc_url}"
        reader.type(given, {"9465": str(free_ports(1)[0])})
    (copy,) = shown("docs/how-to/upgrade-and-backup.md", "Back up a ledger", "sh")
    (tmp_path / "backup").mkdir()
    used = Ledger(tmp_path / "ct.db")  # so that there are both files
    try:
        reader.type(copy, {"/backup/": "backup/"})
    finally:
        used.close()
    restored = Typist(tmp_path / "backup").type("hilum batch status --ledger ct.db --json")
    assert "4" in restored


def test_a_gateway_between_folders(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("dicomweb_client", reason="the extra gateway is not installed")
    reader = Typist(tmp_path)
    (setting_up,) = shown("docs/how-to/pacs.md", "Run the gateway", "sh")
    _, init, check, _ = setting_up.splitlines()  # `run` is that of the try below
    reader.type(init)
    assert "[source]" in (tmp_path / "gateway.toml").read_text()
    reader.type(check, None, 1, 2)  # no such PACS
    settings, first, second = shown(
        "docs/how-to/pacs.md", "Try it with folders", "toml", "sh", "sh"
    )
    for name in ("try.toml", "gateway.toml"):
        (tmp_path / name).write_text(settings.replace("8050", str(free_ports(1)[0])))
    (tmp_path / "models").symlink_to(repository)
    *prepare, run = first.splitlines()
    for line in prepare:
        if not line.startswith("hilum export"):  # the stand-ins are there
            reader.type(line)
    with reader.going(run) as going:
        report = "outgoing/*/0001/dicom/report.dcm"
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(report)) and time.monotonic() < deadline:
            assert going.poll() is None
            time.sleep(0.2)
        assert list(tmp_path.glob(report))
        status, drain = second.splitlines()
        while "1 done" not in reader.type(status):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        viewer = ROOT / "desk/vendor/niivue.umd.js"
        (steering,) = shown("docs/how-to/pacs.md", "Watch and steer it", "sh")
        watch, retry, _, page = steering.splitlines()
        assert "1 done" in reader.type(watch)
        reader.type(retry)
        reader.type(inline("docs/how-to/pacs.md", "hilum gateway retry --all"))
        gateway = inline("docs/how-to/page.md", "hilum desk --gateway gateway.toml")
        for line in (page, gateway) if viewer.is_file() else ():
            with reader.going(line) as desk:
                assert desk.stdout is not None
                assert desk.stdout.readline().startswith("http://127.0.0.1:")
        reader.type(drain)
        assert going.wait(60) == 0


@pytest.mark.load
def test_a_finished_run_is_resumed_and_begun_again(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(repository)
    reader = Typist(tmp_path)
    reader.type("hilum phantom cxr --count 2 --out xrays")
    (block,) = shown("docs/how-to/failures.md", "Go on where it was", "sh")
    resume, overwrite = block.splitlines()
    reader.type(resume, {" --resume": ""})
    assert "--resume" in reader.type(resume, {" --resume": ""}, 2)
    result = tmp_path / "results/0001/result.json"
    first = result.stat().st_mtime_ns
    reader.type(resume)
    assert result.stat().st_mtime_ns == first
    reader.type(overwrite)
    assert result.stat().st_mtime_ns > first


def test_a_program_writes_dicom_objects(server: TritonServer, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    write_dicom_series(chest_ct(1, slices=5, size=96, lesions=0).volume, tmp_path / "series")
    (program,) = shown("docs/how-to/pacs.md", "Write DICOM objects", "python")
    Typist(tmp_path).program(program, {"localhost:8001": server.grpc_url})
    assert (tmp_path / "results/0001/dicom/report.dcm").is_file()


def test_a_program_records_a_trace(server: TritonServer, tmp_path: Path) -> None:
    write_dicom_series(chest_ct(1, slices=5, size=96, lesions=0).volume, tmp_path / "scans")
    (program,) = shown("docs/how-to/slow.md", "1. Look at one run", "python")
    Typist(tmp_path).program(program, {"localhost:8001": server.grpc_url})
    assert (tmp_path / "trace.json").is_file()
