"""DLPE: a generated CT on a small grid of normalised space."""

from __future__ import annotations

from hilum.catalog import dlpe as catalog

from ..figures import Figures, Setting, figure, studies
from ..instrument.workloads import Workload, scan
from ..runs import Progress
from . import Description

SCAN_TIME, CPU_MEMORY = "time per scan", "CPU memory, at least"
REFINEMENT = "connectivity refinement of"


def _study(slices: int, size: int, grid: int) -> Workload:
    return Workload(
        system="dlpe", unit="study", units=1, make=scan(slices, size), chosen={"grid": grid},
        describe=f"dlpe: CT of {slices} slices of {size} × {size}, from memory, grid {grid}",
    )  # fmt: skip


USUAL, QUICK = _study(240, 512, 128), _study(48, 128, 32)


def smaller_grid(grid: int) -> str:
    """Why a figure of this grid cannot stand beside a documented one; empty where it can."""
    if grid == catalog.SIDE:
        return ""
    return f"measured on a grid of {grid}³, documented for {catalog.SIDE}³"


def minutes_per_scan(setting: Setting, progress: Progress) -> Figures:
    """Minutes per scan from voxels to result, on a smaller grid than the published one."""
    load = QUICK if setting.quick else USUAL
    lane = studies(setting, {"": load}, 1, progress)[""]
    minutes = lane.summary.latency_s["50"].value / 60
    how, limits = f"{load.describe}, {lane.transport}", smaller_grid(load.options.grid)
    own = figure(setting, lane, SCAN_TIME, minutes, "min", how, limits=limits)
    return Figures((own,), (lane,))


DESCRIPTION = Description(
    usual=USUAL, quick=QUICK, unit="slice", networks=("lung_z",), figures=minutes_per_scan,
    remedies={
        "GPU memory in batches of 4, about": "no GPU was used",
        "GPU memory, at least": "no GPU was used",
        SCAN_TIME: f"`hilum bench dlpe` with `--grid {catalog.SIDE}`, and `--from` its bench.json",
        CPU_MEMORY: f"`hilum bench dlpe` with `--grid {catalog.SIDE}`, and `--from` its bench.json",
        **{
            f.quantity: "a step of the stages that `hilum bench dlpe` measures"
            for f in catalog.SYSTEM.published
            if f.quantity.startswith(REFINEMENT)
        },
    },
)  # fmt: skip
