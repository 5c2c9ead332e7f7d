"""X-rays through the gateway against `hilum run --dicom` over the same server, in one run.

python tests/soak/gateway_throughput.py --count 200 --rounds 3

Starts Triton with a published network and random weights (`--network standins` takes networks that
cost nearly nothing, so that all else shows), and Orthanc. Both ways begin with the files at their
source (Orthanc, a folder) and end when the last result is where it belongs. They alternate, and so
does which of the two is first. Printed are rates, the median of the rounds' ratios with the least
and the most, and the same for the time of all processors, the servers' included: what it comes to
where processors are the limit, whoever else uses them.

With `--apart` Orthanc has one core for itself, as a PACS that is another machine; Triton and both
ways have the other cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import standins
from pacs import PASSWORD, USER, Orthanc, free_port
from pydicom import dcmread
from pydicom.uid import generate_uid

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.export.repository import export_system
from hilum.gateway.ledger import Ledger
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

HILUM = [sys.executable, "-c", "from hilum.cli import main; main()"]


def settings(folder: Path, pacs: Orthanc, url: str, network: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(f"""
[source]
dicomweb = "{pacs.dicomweb}"
orthanc = "{pacs.rest}"
user = "{USER}"
password = "env:PACS"
[servers]
urls = ["{url}"]
[trigger]
idle_s = 0.5
poll_s = 0.5
[operation]
folder = "{folder}/state"
port = {free_port()}
[[rule]]
name = "X-ray"
modality = ["CR", "DX"]
systems = ["cxr-severity"]
options.cxr-severity.network = "{network}"
""")
    return path


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way took: seconds, and those of all processors in all processes."""

    seconds: float
    processor: float


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """What is started inside runs on these cores alone; with none, where this process does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def measured() -> Iterator[list[Cost]]:
    """What is done inside, with the servers' part of it."""
    found: list[Cost] = []
    began, worked = time.monotonic(), work()
    yield found
    found.append(Cost(time.monotonic() - began, work() - worked))


def work() -> float:
    """Seconds that this process's children, and theirs, have computed."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(place.name)] = int(fields[1])
        ticks[int(place.name)] = sum(map(int, fields[11:15]))
    total = 0
    for process in parents:
        above = parents[process]
        while above > 1 and above != os.getpid():
            above = parents.get(above, 0)
        total += ticks[process] * (above == os.getpid())
    return ended.ru_utime + ended.ru_stime + total / os.sysconf("SC_CLK_TCK")


def through_gateway(
    folder: Path, files: list[Path], url: str, network: str, cores: set[int]
) -> Cost:
    """From the gateway's start to the last result in the PACS, which runs on `cores`."""
    (folder / "orthanc").mkdir(parents=True)
    with on(cores):
        pacs = Orthanc(folder / "orthanc").start()
    for start in range(0, len(files), 50):
        pacs.store(files[start : start + 50])
    time.sleep(2)  # Orthanc calls the studies stable
    with measured() as cost:
        process = subprocess.Popen(
            [*HILUM, "gateway", "run", "--config", str(settings(folder, pacs, url, network))],
            env={**os.environ, "PACS": PASSWORD}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ledger = Ledger(folder / "state" / "ledger.sqlite")
        while ledger.count("done") < len(files):
            if process.poll() is not None or ledger.count("failed"):
                raise SystemExit(f"the gateway failed: {ledger.counts()}")
            time.sleep(0.1)
    process.terminate()
    process.wait()
    pacs.stop()
    return cost[0]


def through_run(folder: Path, files: list[Path], url: str, network: str) -> Cost:
    """The whole command."""
    words = ["run", "cxr-severity", str(files[0].parent), "--network", network, "--url", url,
             "--out", str(folder), "--dicom"]  # fmt: skip
    with measured() as cost:
        subprocess.run([*HILUM, *words], check=True, capture_output=True)
    return cost[0]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def export(folder: Path, network: str) -> str:
    """Export networks to measure with into `folder`; their name in the options."""
    system, models = SYSTEMS["cxr-severity"], folder / "models"
    if network != "standins":
        export_system(system, repository=models, networks=["lung", network], weights="random")
        return network
    onnx = {"lung": standins.write_lung(folder / "lung.onnx"),
            "manet": standins.write_disease(folder / "manet.onnx", 544, 0.9)}  # fmt: skip
    export_system(system, repository=models, onnx=onnx)
    return "manet"


def generate(folder: Path, count: int) -> list[Path]:
    """X-rays of 20 patients, again and again as other studies."""
    folder.mkdir()
    for number in range(min(count, 20)):
        write_dicom(chest_xray(number, height=1024, width=1024), folder / f"{number:04d}.dcm")
    for number in range(20, count):
        found = dcmread(folder / f"{number % 20:04d}.dcm")
        found.StudyInstanceUID, found.SeriesInstanceUID = generate_uid(), generate_uid()
        found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        found.save_as(folder / f"{number:04d}.dcm")
    return sorted(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="pspnet", help="of cxr-severity, or standins")
    parser.add_argument("--apart", action="store_true", help="one core for Orthanc alone")
    given: Any = parser.parse_args()
    cores = set(sorted(os.sched_getaffinity(0))[-1:]) if given.apart else set[int]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = export(folder, given.network)
        files = generate(folder / "xrays", given.count)
        with (
            on(os.sched_getaffinity(0) - cores),
            TritonServer(folder / "models", models=[cxr.ENSEMBLES[network].model]) as server,
        ):
            pairs: list[tuple[Cost, Cost]] = []
            for number in range(given.rounds):
                ways = [
                    (partial(through_gateway, cores=cores), folder / f"g{number}"),
                    (through_run, folder / f"r{number}"),
                ]
                done = {
                    way: way(place, files, server.grpc_url, network)
                    for way, place in (ways[::-1] if number % 2 else ways)
                }
                gateway, run = (done[way] for way, _ in ways)
                pairs.append((gateway, run))
                say(
                    f"gateway {gateway.seconds:.1f} s ({gateway.processor:.1f} s of processors), "
                    f"run {run.seconds:.1f} s ({run.processor:.1f} s)"
                )
        rates = [
            given.count / statistics.median(pair[way].seconds for pair in pairs) for way in (0, 1)
        ]
        say(
            f"{given.count} X-rays: {rates[0]:.2f}/s through the gateway, {rates[1]:.2f}/s by "
            f"hilum run: {spread(r.seconds / g.seconds for g, r in pairs)}; by the processors' "
            f"time {spread(r.processor / g.processor for g, r in pairs)}"
        )


def spread(ratios: Iterable[float]) -> str:
    """The median with the least and the most."""
    found = sorted(ratios)
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


if __name__ == "__main__":
    main()
