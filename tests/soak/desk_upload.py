"""A CT of 600 MB through the page, file by file: time, progress, memory of the desk.

    python tests/soak/desk_upload.py [--slices 1144] [--size 512]

Prints what the page's document quotes; ends with 1 when the memory of the desk grows by more than
it may. The desk is a process of its own, the browser is Chromium; nothing is run on the study.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pydicom
from browsers import browser
from desk_views import resident, say
from desks import TOKEN, Caller, served

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series

GROWTH_MB = 30.0
MADE = 8
"""Slices that are drawn; the others repeat them at their own place."""


def make(folder: Path, slices: int, size: int) -> int:
    """Write a series; gives its bytes."""
    write_dicom_series(chest_ct(3, slices=MADE, size=size).volume, folder / "drawn")
    drawn = [pydicom.dcmread(path) for path in sorted((folder / "drawn").iterdir())]
    (folder / "ct").mkdir()
    for number in range(slices):
        one = drawn[number % MADE]
        one.InstanceNumber = number + 1
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        x, y, _ = one.ImagePositionPatient
        one.ImagePositionPatient = [x, y, f"{0.25 * number:.2f}"]
        one.save_as(folder / "ct" / f"{number:05d}.dcm")
    return sum(path.stat().st_size for path in (folder / "ct").iterdir())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=1144)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--serve", type=Path)
    given = parser.parse_args()
    if given.serve:
        with served(given.serve) as caller:
            say(str(caller.port))
            sys.stdin.read()
        return 0
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        size = make(folder, given.slices, given.size)
        command = [sys.executable, __file__, "--serve", str(folder / "desk")]
        server = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdout is not None
        try:
            caller = Caller(int(server.stdout.readline()))
            return send(caller, server.pid, folder, given.slices, size)
        finally:
            server.communicate()


def send(caller: Caller, pid: int, folder: Path, slices: int, size: int) -> int:
    with browser(folder / "downloads") as page:
        page.go(f"http://127.0.0.1:{caller.port}/#token={TOKEN}")
        first, most, seen = resident(pid), 0.0, set()
        began = time.monotonic()
        page.find("#folder").send_keys(str(folder / "ct"))

        def arrived() -> bool:
            nonlocal most
            most = max(most, resident(pid))
            seen.update(bar.get_attribute("value") for bar in page.all(".study progress"))
            return bool(seen) and not page.all(".study progress")

        page.until(arrived, 420)
        seconds = time.monotonic() - began
        (found,) = caller("GET", "/api/studies").json["studies"]
    say(f"{found['files']} files, {found['bytes'] / 1e6:.0f} MB in {seconds:.1f} s; progress was "
        f"seen at {len(seen)} places")  # fmt: skip
    say(f"the desk had {first:.0f} MB, then {most:.0f} MB at most")
    whole = (found["files"], found["bytes"]) == (slices, size)
    return int(not whole or len(seen) < 5 or most - first > GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
