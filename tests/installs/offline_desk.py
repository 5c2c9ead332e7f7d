"""Runs in a network of its own that has the loopback alone: a server, a desk, one X-ray, a browser.

    unshare --map-root-user --net python offline_desk.py PYTHON REPOSITORY FOLDER

PYTHON is that of the environment whose desk is tried. Prints what was found as JSON.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from desks import Caller, printed

from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def raise_loopback() -> None:
    """What `ip link set lo up` does, which not every machine has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def is_connected() -> bool:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=2).close()
    except OSError as failure:
        return failure.errno not in (101, 113)  # no way there: not even tried
    return True


def scored(caller: Caller, folder: Path) -> tuple[str, str]:
    """Send an X-ray and run a system; gives the job and its state."""
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), folder / "x.dcm")
    study = caller.study((folder / "x.dcm").read_bytes())
    about = caller("GET", "/api/about").json["systems"]
    (options,) = (s["options"] for s in about if s["name"] == "cxr-severity")
    given = {o["name"]: o["default"] for o in options if o["sent"]}
    asked = {"system": "cxr-severity", "options": given}
    job = caller("POST", f"/api/studies/{study}/run", asked).json["job"]
    return job, caller.until(job, "done", "failed")["state"]


def seen(link: str, job: str, folder: Path) -> str:
    """The title of the page in a browser that shows the result."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "no Chromium"
    from browsers import browser

    with browser(folder) as page:
        page.go(link)
        page.see(job, "xray")
        return page.driver.title


def main() -> None:
    python, repository, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    raise_loopback()
    found: dict[str, object] = {"network": is_connected()}
    where = "import hilum, pathlib; print(pathlib.Path(hilum.__file__).resolve())"
    said = subprocess.run([python, "-I", "-c", where], check=True, capture_output=True, text=True)
    found["hilum"] = said.stdout.strip()
    command = (python, "-I", str(Path(python).with_name("hilum")))
    with (
        TritonServer(repository) as server,
        printed(folder / "state", "desk", "--results", str(folder / "state"), "--url",
                server.grpc_url, hilum=command) as (caller, link),
    ):  # fmt: skip
        found["viewer"] = len(caller("GET", "/vendor/niivue.umd.js").body)
        job, found["state"] = scored(caller, folder)
        found["pdf"] = caller("GET", f"/api/jobs/{job}/studies/0001/report.pdf").body[:4].decode()
        found["browser"] = seen(link, job, folder)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
