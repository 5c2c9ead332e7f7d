"""What DLPE's measurements take at 512³ on a generated chest: wall and processor time, memory.

    python tests/soak/dlpe_quantities_costs.py

Lungs, vessels and lesions are as large as a patient's: 17 million voxels of lung, 0.5 million of
vessels, 1.7 million of lesions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.postprocessing.dlpe import distances
from hilum.postprocessing.dlpe.branching import branching
from hilum.postprocessing.dlpe.chest import Chest, cut_chest
from hilum.postprocessing.dlpe.quantities import quantify
from hilum.results.meshes import surfaces
from hilum.systems.dlpe.meshes import structures

T = TypeVar("T")
Masks = dict[str, NDArray[np.uint8]]

FIELD_MM = (334.0, 334.0, 512.0)
BASELINE_HU = -850.0


def generated(side: int) -> tuple[NDArray[np.float32], Masks]:
    """A chest of two ellipsoids with tubes and balls in it, and its masks."""
    rng = np.random.default_rng(3)
    along = np.arange(side, dtype=np.float32) / side
    x, y, z = np.meshgrid(along, along, along, indexing="ij", sparse=True)
    lung = np.zeros((side,) * 3, np.uint8)
    for middle in (0.31, 0.69):
        lung |= ((x - 0.5) / 0.3) ** 2 + ((y - middle) / 0.184) ** 2 + ((z - 0.5) / 0.3) ** 2 < 1
    vessel, airway, lesion, visible = (np.zeros_like(lung) for _ in range(4))
    for _ in range(700):
        _ball(vessel, rng.uniform(0.2, 0.8, 3), rng.uniform(0.002, 0.016), rng.uniform(1, 8))
    for _ in range(12):
        _ball(airway, rng.uniform(0.4, 0.6, 3), 0.012, 6)
    for _ in range(90):
        _ball(lesion, rng.uniform(0.2, 0.8, 3), rng.uniform(0.01, 0.05), 1)
    for _ in range(10):
        _ball(visible, rng.uniform(0.2, 0.8, 3), rng.uniform(0.01, 0.03), 1)
    masks = {"lung": lung, "airway": airway, "vessel": vessel, "visible": visible}
    masks["follow_up"] = lesion
    ct = rng.standard_normal(lung.shape, np.float32)
    ct *= np.float32(20 / 1600)
    ct += np.float32((BASELINE_HU + 600) / 1600)
    ct += lesion * np.float32(25 / 1600)
    ct += visible * np.float32(250 / 1600)
    return ct, {name: mask & lung for name, mask in masks.items()}


def _ball(mask: NDArray[np.uint8], centre: NDArray[Any], radius: float, longer: float) -> None:
    """Draw an ellipsoid, stretched along the last axis; lengths as shares of the side."""
    side = mask.shape[0]
    half = np.array([radius, radius, radius * longer])
    low = np.maximum(np.floor((centre - half) * side), 0).astype(int)
    high = np.minimum(np.ceil((centre + half) * side) + 1, side).astype(int)
    axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = sum(((a / side - c) / h) ** 2 for a, c, h in zip(axes, centre, half, strict=True)) < 1
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside


def timed(rows: dict[str, dict[str, float]], name: str, function: Callable[[], T]) -> T:
    """Run a function and note what it takes."""
    wall, work = time.perf_counter(), time.process_time()
    found = function()
    rows[name] = {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - work, 2),
    }
    return found


def measure(side: int) -> Mapping[str, Any]:
    """All steps once."""
    ct, masks = generated(side)
    mm = tuple(field / side for field in FIELD_MM)
    rows: dict[str, dict[str, float]] = {}
    before = _peak_gb()
    chest: Chest | None = timed(rows, "cut", lambda: cut_chest(ct, masks, mm, BASELINE_HU))  # pyright: ignore[reportArgumentType]
    if chest is None:
        raise SystemExit("the generated chest has no lungs")
    for name in ("pleura_mm", "vessel_mm", "airway_mm"):
        timed(rows, name, lambda name=name: getattr(distances, name)(chest))
    without = timed(
        rows, "all but branching and surfaces",
        lambda: quantify(chest, masks, with_branching=False),
    )  # fmt: skip
    timed(rows, "branching", lambda: branching(chest, masks["vessel"]))
    timed(rows, "surfaces", lambda: surfaces(structures(masks, without), mm))
    return {
        "side": side,
        "voxels": {name: int(mask.sum()) for name, mask in masks.items()},
        "load": [round(load, 1) for load in os.getloadavg()],
        "cores": len(os.sched_getaffinity(0)),
        "steps": rows,
        "peak_gb": round(_peak_gb(), 2),
        "peak_gb_before": round(before, 2),
    }


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    print(json.dumps(measure(parser.parse_args().side), indent=1))  # noqa: T201
