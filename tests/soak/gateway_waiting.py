"""Memory of the gateway with few and with many studies that wait.

``python tests/soak/gateway_waiting.py --studies 500``: a tenth of the studies, and then all of
them, wait in a PACS; a gateway takes jobs for all and processes them with stand-ins until twenty,
or all, are done. Prints the most memory (resident set) of both; exit code 1 when it grew by over a
tenth.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway_throughput import export, settings
from gateways import Running, xray
from pacs import Orthanc
from pydicom import dcmread
from pydicom.uid import generate_uid

from hilum.catalog import cxr_severity as cxr
from hilum.gateway.ledger import Ledger
from hilum.server.launcher import TritonServer

GROWTH = 0.1
"""Most that memory may grow."""

DONE = 20


def peak(folder: Path, count: int, url: str, network: str) -> int:
    """Most memory in bytes until twenty jobs, or all, are done and the others wait."""
    (folder / "orthanc").mkdir(parents=True)
    pacs = Orthanc(folder / "orthanc").start()
    (first,) = xray(folder / "xray.dcm")
    found = dcmread(first)
    for _ in range(count):
        found.StudyInstanceUID, found.SeriesInstanceUID = generate_uid(), generate_uid()
        found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        found.save_as(folder / "other.dcm")
        pacs.store([folder / "other.dcm"])
    gateway = Running(settings(folder, pacs, url, network), folder / "gateway.log").start()
    assert gateway.process is not None
    ledger = Ledger(folder / "state" / "ledger.sqlite")
    while len(ledger.jobs()) < count or ledger.count("done") < min(DONE, count):
        if gateway.process.poll() is not None:
            raise SystemExit(gateway.log.read_text())
        time.sleep(0.2)
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    waiting = ledger.count("stable")
    gateway.process.kill()
    gateway.process.wait()
    pacs.stop()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    sys.stdout.write(f"{count} studies, {waiting} wait: {int(kilobytes) / 1024:.0f} MiB\n")
    return int(kilobytes) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        network = export(folder, "standins")
        with TritonServer(folder / "models", models=[cxr.ENSEMBLES[network].model]) as server:
            few, many = (
                peak(folder / f"{count}", count, server.grpc_url, network)
                for count in (max(DONE, given.studies // 10), given.studies)
            )
    sys.stdout.write(f"{many / few - 1:+.1%}\n")
    sys.exit(many > few * (1 + GROWTH))


if __name__ == "__main__":
    main()
