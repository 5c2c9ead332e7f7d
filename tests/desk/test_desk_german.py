"""The page in German: what failed, and every value of real results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Browser
from desks import Caller, started

from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.results.provenance import REFERENCE, weights_note
from hilum.server.launcher import TritonServer

pytestmark = pytest.mark.usefixtures("well_behaved")

SYSTEMS = {"cxr-severity": {"network": "manet"}, "ct-angel": {}, "lungmask": {},
           "ct-classifier": {"verdict_run": 2}}  # fmt: skip

BAD = bytes(128) + b"DICM" + bytes(1000)

NAMES = {"manet", "raw hu", "doc", "DICOM", "p"}
"""What is called the same in both languages."""

CELLS = "h1 + span, #lesions :is(td, th), .values :is(td, th), #notes li, #slice + output"


@pytest.fixture(scope="module")
def started_desk(
    tmp_path_factory: pytest.TempPathFactory, desk_server: TritonServer
) -> Iterator[tuple[Caller, str]]:
    with started(tmp_path_factory.mktemp("german") / "state", desk_server.grpc_url) as found:
        yield found


@pytest.fixture(scope="module")
def jobs(
    started_desk: tuple[Caller, str], ct: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """A result of each system; and a job that failed, as ``failed``."""
    caller, kept = started_desk[0], tmp_path_factory.mktemp("studies")
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), kept / "x.dcm")
    (kept / "bad.dcm").write_bytes(BAD)
    sent = {"xray": [kept / "x.dcm", kept / "bad.dcm"], "ct": ct}
    found = {}
    for system, options in SYSTEMS.items():
        files = sent["xray" if system == "cxr-severity" else "ct"]
        study = caller.study(*(path.read_bytes() for path in files))
        asked = {"system": system, "options": options}
        found[system] = caller("POST", f"/api/studies/{study}/run", asked).json["job"]
    study = caller.study(BAD)
    asked = {"system": "lungmask"}
    found["failed"] = caller("POST", f"/api/studies/{study}/run", asked).json["job"]
    for job in found.values():
        caller.until(job, "done", "failed", seconds=300)
    return found


@pytest.fixture
def page(started_desk: tuple[Caller, str], chromium: Browser) -> Iterator[Browser]:
    yield chromium.begin(started_desk[1])
    chromium.js("localStorage.clear()")


def german(page: Browser) -> None:
    page.press("#language")
    page.until(lambda: page.js("return document.documentElement.dataset.ready") == "de")


def work(page: Browser) -> None:
    page.js("location.hash = '#/'")
    page.until(lambda: page.all(".studies .study"))


def told(page: Browser, jobs: dict[str, str]) -> dict[str, set[str]]:
    """What the list and each result say of values, in the language of the page."""
    work(page)
    found = {"list": {text.strip() for text in page.texts(".summary > span > span")} - {""}}
    for system in SYSTEMS:
        page.see(jobs[system], "xray" if system == "cxr-severity" else "ct")
        found[system] = {text for text in page.texts(CELLS) if re.search("[a-z]{2}", text)}
    return found


@pytest.mark.load
def test_every_value_of_results_is_german(page: Browser, jobs: dict[str, str]) -> None:
    english = told(page, jobs)
    german(page)
    translated = told(page, jobs)
    for part, texts in english.items():
        assert len(texts) > 3, part
        assert texts & translated[part] - NAMES == set()
    page.see(jobs["cxr-severity"], "xray")
    assert "Schweregrad" in page.said("#score")
    assert page.said("#takeaway h2") == "Mitnehmen"


def test_what_failed_says_what_to_do_and_keeps_the_words_of_the_program(
    page: Browser, jobs: dict[str, str]
) -> None:
    german(page)
    failed = f"#job-{jobs['failed']} .failure"
    assert page.said(failed).startswith("Dieses Format liest das System nicht")
    detail = f"{failed} details span"
    assert page.attribute(detail, "lang") == "en"
    assert not page.visible(detail)
    page.press(f"{failed} summary")
    assert page.said(detail).startswith("no DICOM images among 1 file(s)")
    page.press(".chip[data-name=failed]")  # draws the list again
    assert page.visible(detail)
    page.press(".chip[data-name=all]")
    first, *_ = page.texts(f"#job-{jobs['cxr-severity']} .summary")  # of two X-rays
    assert re.match("Studie 2 von 2\\s+Dieses Format liest das System nicht", first)


def test_what_is_refused_is_said_in_german(
    page: Browser, started_desk: tuple[Caller, str], jobs: dict[str, str]
) -> None:
    """Where the server refuses, and where it is not reached."""
    german(page)
    (study,) = (s["id"] for s in started_desk[0]("GET", "/api/studies").json["studies"]
                if s["jobs"] and s["jobs"][0]["id"] == jobs["lungmask"])  # fmt: skip
    form = f"form[data-study='{study}']"
    page.set(f"{form} [name=system]", "lungmask")
    page.set(f"{form} [name=slices_in_flight]", 10_000)
    page.press(f"{form} button.primary")
    page.until(lambda: page.said("#said").startswith("Eine Option kann so nicht sein"))
    page.press("#said summary")
    assert "slices in flight" in page.said("#said")
    lost = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", lost)
    try:
        page.press(f"{form} button.primary")
        page.until(lambda: page.said("#said").startswith("Über das Netz kam keine Antwort"))
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", lost | {"offline": False})
    page.driver.get_log("browser")  # failed requests, as they must be


def test_the_head_the_form_and_the_catalog_are_german(
    page: Browser, started_desk: tuple[Caller, str], jobs: dict[str, str]
) -> None:
    german(page)
    assert "Kein Medizinprodukt" in page.said("header")
    assert "EIGENES NETZ" in page.said("header")
    assert page.attribute("html", "lang") == "de"
    code = "const done = arguments[0]; import('/page/german.js').then((m) => done(m.GERMAN));"
    texts = page.driver.execute_async_script(code)
    systems = started_desk[0]("GET", "/api/about").json["systems"]
    wanted = {text for one in systems for text in (one["title"], one["summary"], one["study"])}
    wanted |= {option["help"] for one in systems for option in one["options"]}
    assert wanted - set(texts) == set()
    assert {
        REFERENCE,
        *(weights_note([{"kind": k}]) for k in ("random", "user file", "unknown")),
    } <= set(texts)
    helps = {p.get_attribute("textContent") for p in page.all(".fields p")}
    assert helps & set(texts.values())
    assert not helps & {o["help"] for one in systems for o in one["options"]}
