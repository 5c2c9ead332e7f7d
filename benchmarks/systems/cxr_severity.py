"""X-ray severity scoring: eight generated X-rays, from the file to the score."""

from __future__ import annotations

from dataclasses import replace

import cv2

from hilum.catalog import cxr_severity as catalog
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.server.machine import cores

from ..figures import THROUGHPUT, Figures, Setting, figure, studies
from ..instrument.workloads import Study, Workload
from ..runs import Progress
from ..target_rows import PREDICTIONS, SIZES
from . import Description

IMAGES = 8
"""Generated X-rays, which tasks score in turn."""

QUICK_NETWORKS = ("pspnet", "manet")
"""The two with figures in the abstract."""

_TIME = "time per image"


def xrays() -> list[Study]:
    """PNG files."""

    def png(i: int) -> bytes:
        pixels = chest_xray(100 + i, height=900, width=800, severity=i / (IMAGES - 1)).pixels
        return cv2.imencode(".png", pixels)[1].tobytes()

    return [png(i) for i in range(IMAGES)]


LOAD = Workload(
    system="cxr-severity", unit="image", units=1, make=xrays,
    describe=f"cxr-severity: {IMAGES} X-rays of 800 × 900 pixels as PNG in turn",
)  # fmt: skip


def images_per_second(setting: Setting, progress: Progress) -> Figures:
    """Images per second from file to score, over shared memory where it can be had."""
    names = QUICK_NETWORKS if setting.quick else tuple(catalog.DISEASE)
    loads = {name: replace(LOAD, chosen={"network": name}) for name in names}
    lanes = studies(setting, loads, cores(), progress)
    found = []
    for name, lane in lanes.items():
        how = f"{LOAD.describe}, {lane.concurrency} at once, {lane.transport}"
        speed = lane.summary.per_second.value
        found.append(figure(setting, lane, THROUGHPUT, speed, "images/s", how, network=name))
    return Figures(tuple(found), tuple(lanes.values()))


DESCRIPTION = Description(
    usual=LOAD, quick=LOAD, unit="image", networks=("lung", "pspnet", "manet"),
    figures=images_per_second,
    remedies={
        THROUGHPUT: "leave out --quick",
        _TIME: "the authors' hardware is not documented",
        **dict.fromkeys(SIZES, "pip install 'hilum[export]'"),
        **{
            figure.quantity: PREDICTIONS
            for owner in (catalog.SYSTEM, *catalog.SYSTEM.networks)
            for figure in owner.published
            if figure.unit == "points"
        },
        **{
            f"{what} of {other}": "a program that Hilum does not serve"
            for what in (THROUGHPUT, _TIME)
            for other in ("COVID-Net-S", "BS-net")
        },
    },
)  # fmt: skip
