"""Studies that a PACS finds by a query, fetched one by one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import Archive, xrays

pytest.importorskip("dicomweb_client")

from gateways import ct
from pacs import PASSWORD, USER, Orthanc


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    running = Orthanc(folder).start()
    yield running
    running.stop(signal.SIGKILL)


def test_series_and_images_of_a_pacs_are_computed(
    archive: Archive, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.store(ct(tmp_path / "ct"))
    orthanc.store(xrays(tmp_path / "in", 1))
    service = f"http://127.0.0.1:{orthanc.port}/dicom-web"
    monkeypatch.setenv("HILUM_DICOMWEB_USER", USER)
    monkeypatch.setenv("HILUM_DICOMWEB_PASSWORD", PASSWORD)
    assert "1 studies are new" in archive.plan(f"{service}?Modality=CT", system="lungmask")
    archive.run()
    (row,) = archive.rows()
    assert row["state"] == "done"
    assert "1 studies, 1 done, 1 results, 1 read, 0 problems" in archive.verified()


def test_a_pacs_that_denies_entry_is_said(archive: Archive, orthanc: Orthanc) -> None:
    service = f"http://127.0.0.1:{orthanc.port}/dicom-web?Modality=CT"
    done = archive.call("plan", service, "--system", "lungmask")
    assert done.exit_code == 2
    assert "answers 401" in done.output


def test_a_token_that_the_pacs_does_not_take_is_a_reason_and_the_rest_is_done(
    archive: Archive, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.archive.driver._WAIT_S", 0.1)
    monkeypatch.setenv("HILUM_DICOMWEB_USER", USER)
    monkeypatch.setenv("HILUM_DICOMWEB_PASSWORD", PASSWORD)
    orthanc.store(ct(tmp_path / "ct"))
    service = f"http://127.0.0.1:{orthanc.port}/dicom-web"
    archive.plan(f"{service}?Modality=CT", tmp_path / "ct", system="lungmask")
    monkeypatch.setenv("HILUM_DICOMWEB_TOKEN", "another")
    archive.run(code=1)
    local, denied = archive.rows()
    assert (local["state"], denied["state"], denied["error_kind"]) == ("done", "failed", "source")
    assert "answers 401" in denied["error"]
