"""What DICOM results take for 300 slices of 512² with four masks: time, memory, sizes.

    python tests/soak/dicom_costs.py                 # segmentations and report
    python tests/soak/dicom_costs.py --everything    # with window, enhanced series and a picture

The memory that counts is the process's peak; what it had before, with the masks, is told apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hilum.benchmarks.memory import peak_bytes
from hilum.catalog.terms import Window
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.results.dicom import codes
from hilum.results.dicom.codes import Code
from hilum.results.dicom.content import Content, Enhanced, Finding, Provenance, Quantity, Segment
from hilum.results.dicom.writer import Choice, write_objects


def content(slices: int, side: int) -> Content:
    """Two lungs, airways, and lesions in them: ellipsoids."""
    z, y, x = np.ogrid[: 1 : slices * 1j, : 1 : side * 1j, : 1 : side * 1j]

    def segment(name: str, kind: Code, middle: float, radius: float) -> Segment:
        mask = np.zeros((slices, side, side), np.uint8)
        for plane, height in zip(mask, z.ravel(), strict=True):  # slice by slice, for little memory
            across = ((y[0] - 0.5) / radius) ** 2 + ((x[0] - middle) / 0.2) ** 2
            plane[:] = across + ((height - 0.5) / radius) ** 2 < 1
        return Segment(
            name=name, mask=mask, category=codes.ANATOMY, type=kind, colour=(26, 144, 153)
        )

    anatomy = [
        segment("right lung", codes.LUNG, 0.3, 0.4),
        segment("left lung", codes.LUNG, 0.7, 0.4),
        segment("airways", codes.AIRWAYS, 0.5, 0.2),
    ]
    lesions = [segment("lesions", codes.LESION, 0.3, 0.1)]
    findings = [
        Finding(name=s.name, type=s.type, segment=s.name,
                quantities=[Quantity(codes.VOLUME, float(np.count_nonzero(s.mask)), codes.ML)])
        for s in (*anatomy, *lesions)
    ]  # fmt: skip
    return Content(
        system="dlpe", procedure=codes.CT_CHEST, anatomy=anatomy, lesions=lesions,
        findings=findings,
    )  # fmt: skip


def measure(slices: int, side: int, *, everything: bool) -> dict[str, Any]:
    """Write the objects once into a temporary folder."""
    given = content(slices, side)
    if everything:
        noise = np.random.default_rng(0).standard_normal((slices, side, side), np.float32)
        given = dataclasses.replace(
            given,
            window=Window(600, -700),
            enhanced=Enhanced(noise, Window(4, 0), "enhanced"),
            pictures={"overview": np.zeros((1000, 1400, 3), np.uint8)},
        )
    with tempfile.TemporaryDirectory() as place:
        files = _source(slices, side, Path(place) / "source")
        before = peak_bytes()
        wall, work = time.perf_counter(), time.process_time()
        provenance = Provenance(key="0" * 64, mode="corrected", version="0")
        names = write_objects(given, files, provenance, Path(place), Choice())
        took = time.perf_counter() - wall, time.process_time() - work
        sizes = {name: (Path(place) / name).stat().st_size for name in names}
    enhanced = sum(size for name, size in sizes.items() if "enhanced/" in name)
    return {
        "slices": slices,
        "side": side,
        "seconds": round(took[0], 2),
        "processor_seconds": round(took[1], 2),
        "peak_gb": round(peak_bytes() / 1e9, 2),
        "peak_gb_before": round(before / 1e9, 2),
        "load": [round(load, 1) for load in os.getloadavg()],
        "megabytes": {
            **{n: round(b / 1e6, 2) for n, b in sizes.items() if "enhanced/" not in n},
            **({"enhanced": round(enhanced / 1e6, 2)} if enhanced else {}),
        },
    }


def _source(slices: int, side: int, folder: Path) -> list[Path]:
    steps = np.array([[0, 0, 1.0], [0, 0.7, 0], [0.7, 0, 0]])
    geometry = Geometry.from_steps((slices, side, side), np.zeros(3), steps)
    return write_dicom_series(
        Volume(np.zeros((slices, side, side), np.int16), geometry, ()), folder
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--everything", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.slices, chosen.side, everything=chosen.everything)
    print(json.dumps(found, indent=1))  # noqa: T201
