"""The page over a gateway's ledger: what it did is seen, and nothing is changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import AXE, Browser
from desks import Caller, printed, served

from hilum.client.client import Client
from hilum.desk.work import Work
from hilum.gateway.config import TEMPLATE
from hilum.gateway.ledger import Ledger
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

pytest.importorskip("msgspec")
pytestmark = pytest.mark.usefixtures("well_behaved")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, desk_server: TritonServer) -> Path:
    """The folder of a real result."""
    folder = tmp_path_factory.mktemp("worked")
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), folder / "x.dcm")
    with served(folder / "desk") as caller, Client(desk_server.grpc_url) as client:
        assert caller.desk is not None
        work = Work(caller.desk, client, lambda _: None)
        work.start()
        study = caller.study((folder / "x.dcm").read_bytes())
        body = {"system": "cxr-severity", "options": {"network": "manet"}}
        job = caller("POST", f"/api/studies/{study}/run", body).json["job"]
        assert caller.until(job, "done", "failed")["state"] == "done"
        work.stop()
        return caller.desk.spool.result(job)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, result: Path) -> Path:
    """The settings of a gateway that has done one job, and failed at another."""
    folder = tmp_path_factory.mktemp("gateway")
    config = folder / "gateway.toml"
    config.write_text(f'{TEMPLATE}folder = "{folder}/state"\n')
    ledger = Ledger(folder / "state" / "ledger.sqlite")
    for uid in ("1.2.840.1", "1.2.840.2"):
        ledger.see(uid, "1.2.840", 1)
        series = ledger.series(uid)
        assert series is not None
        (job,) = ledger.take(series, uid, [("chest X-ray", "cxr-severity", {})])
        if uid.endswith("1"):
            shutil.copytree(result, folder / "state" / "spool" / job / "result")
            ledger.move(job, "done")
        else:
            ledger.move(job, "failed", kind="input", code="lungs", reason="no lung field")
    ledger.close()
    return config


@pytest.fixture(scope="module")
def started_desk(gateway: Path) -> Iterator[tuple[Caller, str]]:
    with printed(gateway.parent / "page", "gateway", "desk", "--config", str(gateway)) as found:
        yield found


@pytest.fixture
def page(started_desk: tuple[Caller, str], chromium: Browser) -> Browser:
    return chromium.begin(started_desk[1])


def test_the_page_of_a_gateway_shows_results_and_reasons_and_changes_nothing(
    page: Browser, started_desk: tuple[Caller, str], gateway: Path
) -> None:
    before = {path for path in gateway.parent.rglob("*") if path.suffix not in (".wal", ".shm")}
    page.until(lambda: len(page.all(".study")) == 2)
    (reason,) = page.texts(".job.failed .failure")
    assert reason.startswith("No lungs were found")
    page.press(".job.failed summary")
    assert "no lung field" in page.texts(".job.failed .failure")[0]
    assert not page.all("#files")  # nothing is taken
    words = set(page.texts(".study button"))
    assert not words & {"Delete", "Try again", "Cancel", "Run"}
    assert "1.2.840" not in json.dumps(started_desk[0]("GET", "/api/studies").json)
    job = page.identity(".job.done", "job-")
    if AXE.is_file():
        assert page.serious() == []
    page.see(job, "pictures")
    pictures = page.all(".gallery img")
    assert pictures
    assert all(p.get_property("naturalWidth") > 100 for p in pictures)
    assert "score" in page.said(".values")
    page.press("#takeaway .chip")
    assert json.loads(page.downloaded("result.json"))["system"] == "cxr-severity"
    if AXE.is_file():
        assert page.serious() == []
    left = {path for path in gateway.parent.rglob("*") if path.suffix not in (".wal", ".shm")}
    assert {path.name for path in left - before} <= {"ledger.sqlite-wal", "ledger.sqlite-shm"}
