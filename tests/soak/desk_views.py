"""A CT of 512 × 512 × 300 through the desk: first picture, delivery, memory over many views.

    python tests/soak/desk_views.py [--slices 300] [--size 512] [--views 50] [--full]

Prints what docs/background/benchmarks.md quotes. A generated chest, its true masks as the result;
the server is a process of its own, the browser is Chromium with software WebGL.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browsers import browser
from desks import TOKEN, Caller, served

from hilum.desk.limits import Limits
from hilum.desk.scene import write_scene
from hilum.desk.store import Desk
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.results.nifti import nifti_image, save_nifti
from hilum.systems.lungmask.options import Options

FIRST_PICTURE_S, DELIVERED_S, GROWTH_MB = 12.0, 3.0, 20.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make(folder: Path, slices: int, size: int) -> str:
    """A desk's folder with one result; gives its job."""
    phantom = chest_ct(3, slices=slices, size=size)
    desk = Desk(folder / "desk", Limits())
    study = desk.uploads.begin()
    write_dicom_series(phantom.volume, desk.uploads.inputs(study))
    for number, path in enumerate(sorted(desk.uploads.inputs(study).iterdir()), 1):
        path.rename(path.with_name(f"{number:05d}.dcm"))
    job = desk.submit(study, "lungmask", {})
    place = desk.spool.result(job) / "0001"
    place.mkdir(parents=True)
    masks = {"lung": phantom.lung, "airway": phantom.airway, "vessel": phantom.vessel,
             "visible": phantom.lesion}  # fmt: skip
    for name, mask in masks.items():
        image = nifti_image((mask > 0).astype(np.uint8), phantom.volume.geometry)
        save_nifti(image, place / f"{name}.nii.gz")
    entry = {"hilum_version": "0", "system": "lungmask", "mode": "parity", "status": "ok"}
    (place / "result.json").write_text(json.dumps(entry))
    began = time.monotonic()
    write_scene(Options(), desk.uploads.inputs(study), None, place, desk.view(job, "0001"))
    say(f"what the viewer shows was written in {time.monotonic() - began:.1f} s")
    desk.ledger.move(job, "done")
    desk.close()
    return job


def serve(folder: Path) -> None:
    with served(folder / "desk") as caller:
        say(str(caller.port))
        sys.stdin.read()


def resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def processor_s(pid: int) -> float:
    """Processor time of a process and all below it: what a busy machine's clock hides."""
    parents, spent = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        number = int(place.parent.name)
        parents[number], spent[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    below = {pid}
    while more := {n for n, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(spent.get(number, 0) for number in below) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--views", type=int, default=50)
    parser.add_argument("--full", action="store_true", help="also at full resolution: 3 GB")
    parser.add_argument("--serve", type=Path)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        job = make(folder, given.slices, given.size)
        server = subprocess.Popen([sys.executable, __file__, "--serve", kept], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert server.stdout is not None
        try:
            caller = Caller(int(server.stdout.readline()))
            return measure(caller, server.pid, job, given, folder)
        finally:
            server.communicate()


def measure(caller: Caller, pid: int, job: str, given: argparse.Namespace, folder: Path) -> int:
    faults = 0
    base = f"/api/jobs/{job}/studies/0001"
    (found,) = caller("GET", f"/api/jobs/{job}/result").json["studies"]
    wanted = [v["full"] for v in found["scene"]["volumes"].values()]
    seconds, before = [], 0.0
    for view in range(1, given.views + 1):
        began = time.monotonic()
        size = sum(len(caller("GET", f"{base}/view/{name}").body) for name in wanted)
        seconds.append(time.monotonic() - began)
        caller("GET", f"/api/jobs/{job}/result")
        if view == 5:
            before = resident(pid)
        if view % 10 == 0:
            say(f"view {view}: the server has {resident(pid):.0f} MB")
    grown = resident(pid) - before
    say(f"whole volumes, {size / 1e6:.0f} MB packed: {np.median(seconds):.2f} s, at most "
          f"{max(seconds):.2f} s; memory grew by {grown:.1f} MB")  # fmt: skip
    faults += float(np.median(seconds)) > DELIVERED_S
    faults += grown > GROWTH_MB
    with browser(folder) as page:
        page.go(f"http://127.0.0.1:{caller.port}/#token={TOKEN}")
        shown = "return document.documentElement.dataset.quality"
        for quality, act in (
            ("half", lambda: page.js("location.hash = `#/job/${arguments[0]}`", job)),
            ("full", lambda: page.press("#full")),
        )[: 1 + given.full]:
            began, before = time.monotonic(), processor_s(page.driver.service.process.pid)
            act()
            page.until(lambda wanted=quality: page.js(shown) == wanted, 300)
            taken = time.monotonic() - began
            worked = processor_s(page.driver.service.process.pid) - before
            say(f"{quality} resolution shown: {taken:.1f} s, {worked:.1f} s of processors")
            faults += quality == "half" and taken > FIRST_PICTURE_S
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
