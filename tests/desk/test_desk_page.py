"""The page in a real Chromium, over a real desk and a real Triton."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsers import AXE, Browser
from desks import EVIL, USED, Caller, described_as, operations, send, started

from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

pytestmark = pytest.mark.usefixtures("well_behaved")


@pytest.fixture(scope="module")
def started_desk(
    tmp_path_factory: pytest.TempPathFactory, desk_server: TritonServer
) -> Iterator[tuple[Caller, str]]:
    with started(tmp_path_factory.mktemp("desk") / "state", desk_server.grpc_url) as found:
        yield found


@pytest.fixture(scope="module")
def page(started_desk: tuple[Caller, str], chromium: Browser) -> Browser:
    return chromium.begin(started_desk[1])


def away(page: Browser) -> str:
    return page.said("#at")


def red(picture: np.ndarray) -> int:
    """How many pixels are red, as boxes are and nothing else."""
    return int((picture[:, :, 0] - picture[:, :, 1:].max(axis=2) > 50).sum())


def test_a_ct_is_sent_watched_and_seen(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path]
) -> None:
    caller = started_desk[0]
    job = send(page, caller, ct, "ct-angel")
    seen: set[str] = set()

    def moved() -> bool:
        seen.update(p.get_attribute("value") for p in page.all(f"#progress-{job} progress"))
        return bool(page.all(f"#job-{job}.done"))

    page.until(moved, 120)
    assert len(seen - {None}) > 2  # progress was seen to move
    page.press(f"#job-{job} a.primary")
    page.until(lambda: page.js("return document.documentElement.dataset.shown") == "ct")
    assert "Not a medical device" in page.said("header")
    assert "USER'S OWN NETWORK" in page.said("header")

    with_masks = page.picture()
    assert with_masks.std() > 20
    page.press("#masks")
    without = page.picture()
    assert red(with_masks) > 20
    assert red(without) == 0
    page.press("#view-mediastinum")
    page.until(lambda: page.attribute("#window-level", "value") == "40")
    assert np.abs(page.picture() - without).mean() > 5
    page.set("#window-width", 2000)
    assert np.abs(page.picture() - without).mean() > 1
    assert page.attribute("#view-mediastinum", "aria-pressed") == "false"

    places = set()
    for number in (0, 3):
        page.press(f"[data-lesion='{number}']")
        places.add(away(page))
        wanted = json.loads(page.js("return JSON.stringify(hilumView.scene.lesions)"))
        ras = wanted["rows"][number]["ras"]
        at = page.js("return hilumView.place()")
        np.testing.assert_allclose(at, ras, atol=5)
    assert len(places) == 2

    for name in ("axial", "render", "multi"):
        page.press(f"#view-{name}")
        assert page.picture().std() > 5
    before = away(page)
    page.js("document.activeElement.blur(); document.body.dispatchEvent("
            "new KeyboardEvent('keydown', {key: 'ArrowUp', bubbles: true}))")  # fmt: skip
    assert away(page) != before
    page.set("#slice", 3)
    assert page.js("return hilumView.place()")[2] < 50


def test_what_is_taken_away_opens(page: Browser, started_desk: tuple[Caller, str]) -> None:
    job = started_desk[0].finished("ct-angel")
    page.see(job, "ct")
    for chip in page.all("#takeaway .chip"):
        page.js("arguments[0].click()", chip)
    assert json.loads(page.downloaded("result.json"))["system"] == "ct-angel"
    assert page.downloaded("0001.csv").startswith(b"name,")
    report = page.downloaded("0001.pdf")
    assert report.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", report)) == 1
    page.js("document.querySelector('#takeaway details').open = true")
    wanted = next(b for b in page.all("#takeaway .files button") if b.text.endswith(".dcm"))
    page.js("arguments[0].click()", wanted)
    assert page.downloaded(wanted.text.rpartition("/")[2])[128:132] == b"DICM"
    base = f"/api/jobs/{job}/studies/0001/view/ct.nii.gz"
    packed = started_desk[0]("GET", base)
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body)[344:348] == b"n+1\0"


def test_an_xray_is_seen_with_its_zones_and_score(
    page: Browser, started_desk: tuple[Caller, str], tmp_path: Path
) -> None:
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), tmp_path / "x.dcm")
    job = send(page, started_desk[0], [tmp_path / "x.dcm"], "cxr-severity")
    page.until(lambda: page.all(f"#job-{job}.done"), 120)
    page.see(job, "xray")
    assert page.said("#score").startswith("Severity")
    zones = [row.text for row in page.all("aside table:not(.values) tbody tr td:first-child")]
    assert zones[:3] == ["right lower", "right middle", "right upper"]  # of the patient
    assert zones[3:] == ["left lower", "left middle", "left upper"]
    marked = page.picture(".layers")
    page.set("#opacity", 0)
    plain = page.picture(".layers")
    assert np.ptp(plain, axis=2).mean() < 1 < np.ptp(marked, axis=2).mean()


def test_a_failed_study_says_why_and_a_reload_loses_nothing(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path], tmp_path: Path
) -> None:
    evil = tmp_path / "<img src=x onerror=document.title='evil'>.dcm"
    evil.write_bytes(bytes(128) + b"DICM" + bytes(1000))
    caller, link = started_desk
    bad = send(page, caller, [evil], "lungmask")
    long = send(page, caller, ct, "ct-classifier")
    page.driver.refresh()
    said = page.until(lambda: page.said(f"#job-{bad}.failed .failure"))
    assert said.startswith("The format is not one that this system reads")
    page.until(lambda: page.all(f"#job-{long}.done"), 120)
    assert "evil" not in page.driver.title
    assert page.js("return sessionStorage.getItem('token')") == link.partition("token=")[2]
    assert "token" not in page.driver.current_url
    page.see(long, "ct")


def test_empty_and_hidden_files_of_a_folder_are_left_out(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path], tmp_path: Path
) -> None:
    for name in ("empty.dcm", ".hidden"):
        (tmp_path / name).write_bytes(b"x" if name == ".hidden" else b"")
    others = [tmp_path / "empty.dcm", tmp_path / ".hidden"]
    page.js("location.hash = '#/'")
    page.until(lambda: page.all("#files"))
    page.find("#files").send_keys("\n".join(map(str, others)))
    page.until(lambda: page.said("#said").startswith("There is nothing in what was sent"))
    known = {s["id"] for s in started_desk[0]("GET", "/api/studies").json["studies"]}
    page.find("#files").send_keys("\n".join(map(str, [others[0], *ct[:3], others[1]])))

    def sent() -> list[dict[str, object]]:
        studies = started_desk[0]("GET", "/api/studies").json["studies"]
        return [s for s in studies if s["id"] not in known and s["files"] == s["expected"]]

    (study,) = page.until(sent)
    assert study["files"] == 3
    assert started_desk[0]("DELETE", f"/api/studies/{study['id']}").status == 200


def test_heat_maps_lie_over_their_slices_and_the_curve_leads_to_them(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path]
) -> None:
    page.see(started_desk[0].finished("ct-classifier"), "ct")
    assert page.attribute("#curve polyline", "points").count(",") == len(ct)
    values = page.js("return hilumView.scene.curve.values")
    best = values.index(max(values))
    page.press("#view-axial")
    page.set("#slice", best)
    said = page.attribute("#slice", "aria-valuetext")
    assert said.startswith(f"Slice {len(ct) - best} of {len(ct)} from the head: probability")
    wanted = page.js(f"return hilumView.scene.curve.ras[{best}][2]")
    assert abs(page.js("return hilumView.place()")[2] - wanted) < 0.1
    with_heat = page.picture()
    page.set("#heat", 0)
    without = page.picture()
    assert np.ptp(without, axis=2).mean() < np.ptp(with_heat, axis=2).mean() - 1
    plot = page.find("#curve")
    page.js("arguments[0].scrollIntoView({block: 'center'})", plot)
    plot.click()  # the middle
    assert page.attribute("#slice", "value") in {"11", "12"}


def test_jobs_are_filtered_cancelled_and_tried_again(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path]
) -> None:
    caller = started_desk[0]
    first = send(page, caller, ct, "ct-classifier", threshold=0.4)
    second = send(page, caller, ct, "ct-classifier", threshold=0.6)
    cancel = f"//div[@id='job-{second}']//button[text()='Cancel']"
    page.until(lambda: page.driver.find_element("xpath", cancel).click() or True)
    page.until(lambda: page.all(f"#job-{second}.cancelled"))
    page.until(lambda: page.all(f"#job-{first}.done"), 120)

    def shown(name: str) -> set[str]:
        page.press(f".chip[data-name={name}]")
        return set(page.js("return [...document.querySelectorAll('.job')].map(e => e.id)"))

    everything = shown("all")
    assert f"job-{second}" in everything
    assert f"job-{second}" not in shown("done")
    assert f"job-{first}" in shown("done")
    failed = shown("failed")
    assert failed
    assert failed < everything
    assert page.all(".job.failed")
    assert f"job-{first}" not in failed
    shown("all")
    before = {job["id"] for s in caller("GET", "/api/studies").json["studies"] for job in s["jobs"]}
    retry = cancel.replace("Cancel", "Try again")
    page.until(lambda: page.driver.find_element("xpath", retry).click() or True)
    page.until(lambda: not page.all(f"#job-{second}.cancelled"))
    jobs = [job for s in caller("GET", "/api/studies").json["studies"] for job in s["jobs"]]
    (again,) = (j for j in jobs if j["options"].get("threshold") == 0.6)
    assert again["id"] in before | {again["id"]}
    page.until(lambda: page.all(f"#job-{again['id']}.done"), 120)


def test_a_study_that_came_in_part_is_sent_again_and_not_run_before(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path]
) -> None:
    """A reload while files are sent keeps what came, and says that some are missing."""
    caller = started_desk[0]
    page.js("location.hash = '#/'")
    page.until(lambda: page.all("#files"))
    known = {s["id"] for s in caller("GET", "/api/studies").json["studies"]}
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 60_000}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    page.find("#files").send_keys("\n".join(map(str, ct)))

    def partial() -> str | None:
        studies = caller("GET", "/api/studies").json["studies"]
        return next((s["id"] for s in studies if s["id"] not in known and s["files"] > 1), None)

    study = page.until(partial)
    seen = {float(page.attribute(f"#sending-{study} progress", "value"))}
    page.until(lambda: float(page.attribute(f"#sending-{study} progress", "value"))
               not in seen)  # fmt: skip
    page.driver.refresh()
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    said = page.until(lambda: page.said(f"#study-{study} .partial"))
    assert re.match(rf"\d+ of {len(ct)} files arrived", said)
    assert not page.all(f"form[data-study='{study}']")
    answer = caller("POST", f"/api/studies/{study}/run", {"system": "lungmask"})
    assert answer.status == 409
    again = f"#study-{study} .partial input[type=file]"

    def chosen(files: list[Path]) -> bool:
        """The page may draw its list again meanwhile."""
        page.find(again).send_keys("\n".join(map(str, files)))
        return True

    page.until(lambda: chosen([ct[0]]))
    page.until(lambda: page.said("#said").startswith("These are other files"))
    page.until(lambda: chosen(ct))
    page.until(lambda: page.all(f"form[data-study='{study}']"))
    (found,) = (s for s in caller("GET", "/api/studies").json["studies"] if s["id"] == study)
    assert (found["files"], found["bytes"]) == (len(ct), sum(p.stat().st_size for p in ct))
    assert caller("DELETE", f"/api/studies/{study}").status == 200


def test_two_results_of_a_patient_stand_side_by_side(
    page: Browser, started_desk: tuple[Caller, str]
) -> None:
    jobs = [started_desk[0].finished(name) for name in ("ct-angel", "ct-classifier")]
    page.js("location.hash = '#/'")
    for job in jobs:
        page.until(lambda job=job: page.all(f"#job-{job} .mark input"))
        page.press(f"#job-{job} .mark input")
    page.press("#compare")
    page.until(lambda: page.js("return document.documentElement.dataset.shown") == "compare", 120)
    assert jobs[0] in page.driver.current_url
    assert page.compare(*jobs) == "same"  # sent twice, with one number of the patient
    assert len(page.all(".pane canvas")) == 2
    assert len(page.all("#differences tbody tr")) > 5
    xray = started_desk[0].finished("cxr-severity")
    assert page.compare(jobs[0], xray) == "other"
    assert "two different patients" in page.said("#kinship")


def test_disclaimer_and_weights_stay_in_view(
    page: Browser, started_desk: tuple[Caller, str]
) -> None:
    page.see(started_desk[0].finished("ct-angel"), "ct")
    code = """window.scrollTo(0, document.documentElement.scrollHeight);
        return ["disclaimer", "weights"].map((id) => {
          const { top, bottom, left, right } = document.getElementById(id).getBoundingClientRect();
          return top >= 0 && bottom <= innerHeight && left >= 0 && right <= innerWidth;
        })"""
    for width, height in ((1400, 900), (820, 1100), (390, 844)):
        page.size(width, height)
        assert page.js(code) == [True, True], width
        assert page.js("return scrollY") > 0 or width == 1400
        assert page.js("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_view_that_is_left_while_it_loads_does_not_come_back(
    page: Browser, started_desk: tuple[Caller, str]
) -> None:
    job = started_desk[0].finished("ct-angel")
    code = """const [job, later, done] = arguments;
        location.hash = `#/job/${job}`;
        setTimeout(() => { location.hash = "#/"; setTimeout(done, 1500); }, later);"""
    for later in (0, 60, 200):
        page.driver.execute_async_script(code, job, later)
        assert page.all(".studies")
        assert not page.all("canvas")
    page.see(job, "ct")


def test_no_name_or_attribute_becomes_markup(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path], evil: list[Path]
) -> None:
    caller = started_desk[0]
    job = send(page, caller, evil, "lungmask")
    other = send(page, caller, ct, "lungmask", series=EVIL)
    page.until(lambda: page.all(f"#job-{job}.done"), 120)
    page.until(lambda: page.all(f"#job-{other}.failed"), 120)
    assert EVIL in page.texts(f"#job-{other}")[0]  # the option, as it was given

    def markup() -> int:
        return page.js("return document.querySelectorAll('[onerror], [src=x], main script').length")

    assert markup() == 0
    page.see(job, "ct")
    assert markup() == 0
    assert page.compare(job, caller.finished("ct-angel")) == "other"
    assert markup() == 0
    assert page.driver.title == "Hilum"
    assert EVIL.encode() not in caller("GET", f"/api/jobs/{job}/result").body
    assert EVIL.encode() not in caller("GET", f"/api/jobs/{job}/studies/0001/report.csv").body


@pytest.mark.parametrize("view", ["work", "ct", "curve", "xray", "compare"])
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: constraints/viewer.py --tests")
def test_axe_finds_nothing_serious(
    page: Browser, started_desk: tuple[Caller, str], view: str
) -> None:
    caller = started_desk[0]
    shown = {"ct": "ct-angel", "curve": "ct-classifier", "xray": "cxr-severity"}
    if view == "work":
        page.js("location.hash = '#/'")
        page.until(lambda: page.all(".studies .study"))
        page.js("for (const one of document.querySelectorAll('details')) one.open = true")
    elif view == "compare":
        page.compare(caller.finished("ct-angel"), caller.finished("cxr-severity"))
    else:
        page.see(caller.finished(shown[view]), "xray" if view == "xray" else "ct")
    assert page.serious() == []


def test_a_proxy_may_send_the_token(page: Browser, started_desk: tuple[Caller, str]) -> None:
    """It adds a header, as the browser does here; the page itself then has no token."""
    link, _, token = started_desk[1].partition("#token=")
    page.js("sessionStorage.clear()")
    page.driver.refresh()
    page.until(lambda: "holds the token" in page.text())
    page.driver.get_log("browser")  # 401, as it must be
    sent = {"headers": {"Authorization": f"Bearer {token}"}}
    page.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", sent)
    page.go(link)
    assert page.js("return sessionStorage.getItem('token')") is None
    assert page.all(".studies .study")
    page.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    page.driver.get("about:blank")
    page.go(started_desk[1])


def test_the_whole_interface_is_what_the_page_uses(
    page: Browser, started_desk: tuple[Caller, str], ct: list[Path]
) -> None:
    """Every described operation was asked for by the page, and no other one (`well_behaved`)."""
    page.js("window.confirm = () => true; location.hash = '#/'")
    page.until(lambda: page.all(".study"))
    study = page.identity(".study", "study-")
    page.press(f"#study-{study} > .row button.quiet")  # delete
    page.until(lambda: not page.all(f"#study-{study}"))
    origin = f"http://127.0.0.1:{started_desk[0].port}"
    described = operations(started_desk[0])
    asked = {described_as(how, url.removeprefix(origin), described) for how, url in page.requests()}
    assert described - USED - asked == {("GET", "/api")}
