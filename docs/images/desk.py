"""Pictures of the desk at three widths, from generated studies.

    python docs/images/desk.py [--out out/desk]

It exports small networks of the tests and the reference weights of the X-ray system, starts a
server and a desk, runs the studies and takes the pictures. The CT with masks shows the generated
chest's own masks; the other results come from the networks. Those of docs/how-to/page.md are chosen
from what is written: ``ct-1400.png`` as desk-ct.png, ``xray-820.png`` as desk-xray.png,
``ct-390.png`` as desk-phone.png.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/soak"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import ct_standins
import desk_views
import dlpe_networks
import standins
from browsers import Browser, browser
from desks import Caller, started
from PIL import Image

from hilum.catalog import SYSTEMS
from hilum.export.repository import export_system
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

ROOT = Path(__file__).resolve().parents[2]

SIZES = {1400: 900, 820: 1100, 390: 844}
"""Widths and heights: a screen, a tablet, a phone."""

COLOURS = 200


def repository(folder: Path) -> Path:
    """Small networks of four systems, and the reference weights of two X-ray networks."""
    made = dlpe_networks.export_pipeline(folder, ROOT / "tests/golden")
    cores = {
        "r231": ct_standins.write_lung(folder / "r231.onnx"),
        "raw_hu": ct_standins.write_raw_hu(folder / "raw_hu.onnx"),
    }
    export_system(SYSTEMS["ct-classifier"], repository=made, onnx={"raw_hu": cores["raw_hu"]})
    export_system(SYSTEMS["lungmask"], repository=made, onnx={"r231": cores["r231"]})
    lesion = standins.write_ct_angel(folder / "lesion.onnx", 512)
    export_system(SYSTEMS["ct-angel"], repository=made, onnx={"lesion": lesion})
    networks = ["lung", "pspnet"]
    xray = SYSTEMS["cxr-severity"]
    export_system(xray, repository=made, networks=networks, weights="reference")
    return made


def run(caller: Caller, files: list[Path], system: str, **options: object) -> str:
    """Send files and run a system; gives the job once it is done."""
    study = caller.study(*(path.read_bytes() for path in files))
    body = {"system": system, "options": options}
    job = caller("POST", f"/api/studies/{study}/run", body).json["job"]
    found = caller.until(job, "done", "failed", seconds=600)
    if found["state"] == "failed":
        sys.exit(f"{system}: {found['reason']}")
    return job


def take(page: Browser, path: Path, width: int) -> None:
    """Write what is in view at a width."""
    page.size(width, SIZES[width])
    page.picture("main")
    shown = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def jobs_of(caller: Caller, kept: Path) -> dict[str, str]:
    """Run the studies; gives their jobs by the names of the pictures."""
    write_dicom_series(chest_ct(3, slices=128, size=192).volume, kept / "series")
    write_dicom(chest_xray(3, height=900, width=800, severity=0.8), kept / "x.dcm")
    ct = sorted((kept / "series").iterdir())
    found = {
        "xray": run(caller, [kept / "x.dcm"], "cxr-severity", network="pspnet"),
        "enhanced": run(caller, ct, "dlpe", grid=64, meshes=True),
        "curve": run(caller, ct, "ct-classifier"),
        "boxes": run(caller, ct, "ct-angel"),
    }
    caller("POST", f"/api/studies/{caller.study(bytes(200))}/run", {"system": "lungmask"})
    return found


def main() -> None:
    """Run the studies and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/desk"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        own = desk_views.make(kept, 128, 192)
        with (
            TritonServer(repository(kept / "networks")) as server,
            started(kept / "desk", server.grpc_url) as (caller, link),
        ):
            jobs = {"work": "", **jobs_of(caller, kept), "ct": own}
            with browser(kept) as page:
                page.go(link)
                pictures(page, jobs, given.out)


def pictures(page: Browser, jobs: dict[str, str], out: Path) -> None:
    """Take every view at every width, and some in the dark."""
    for name, job in jobs.items():
        if job:
            page.see(job, "xray" if name == "xray" else "ct")
        if name == "enhanced":
            page.press("#beside")
            page.until(lambda: page.js("return Boolean(hilumView.linked)"))
        for width in SIZES:
            take(page, out / f"{name}-{width}.png", width)
    page.js("document.documentElement.dataset.theme = 'dark'")
    take(page, out / "ct-dark-1400.png", 1400)
    page.js(f"location.hash = '#/compare/{jobs['ct']}/{jobs['boxes']}'")
    page.until(lambda: page.js("return document.documentElement.dataset.shown") == "compare", 120)
    for width in SIZES:
        take(page, out / f"compare-{width}.png", width)


if __name__ == "__main__":
    main()
