"""How fast this hardware multiplies and copies: what the floors are computed with.

Measured, not read from a data sheet, so that it holds for any GPU, at its own clock and power.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hilum.client.device import Device

from ..done import Done, Figure, Say, timed
from ..setting import Setting

TIMES = 10

HALF_ON_HOST = 128
"""Side of matrices in half precision for NumPy, which multiplies them element by element."""


def run(setting: Setting, say: Say) -> Done:
    """Arithmetic in both precisions, and copies within the device and to it."""
    device = Device.of(setting.device)
    rows: list[dict[str, Any]] = []
    with device:
        for name, dtype in (("fp32", np.float32), ("fp16", np.float16)):
            say(f"matrix products in {name}")
            side = setting.sizes.matrix
            if device.gpu is None and dtype is np.float16:
                side = min(side, HALF_ON_HOST)
            rows.append(_row(name, "FLOP/s", 2.0 * side**3 / _product(device, side, dtype)))
        say("copies")
        size = setting.sizes.copied
        rows.append(_row("copy", "bytes/s, read and written", 2 * size / _copy(device, size)))
        rows.append(_row("host", "bytes/s, from the host", size / _upload(device, size)))
    shown = tuple(
        Figure(name=f"hardware: {r['what']}", value=r["value"], unit=r["unit"]) for r in rows
    )
    return Done(figures=shown, tables={"peaks": tuple(rows)})


def _row(what: str, unit: str, value: float) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit}


def _product(device: Device, side: int, dtype: type[np.generic]) -> float:
    """Seconds of one product; of the fastest, since the question is what the hardware can."""
    rng = np.random.default_rng(7)
    a, b = (device.put(rng.random((side, side), np.float32).astype(dtype)) for _ in range(2))
    out = device.array_module.empty_like(a)

    def work() -> None:
        device.array_module.matmul(a, b, out=out)
        device.synchronize()

    return min(timed(work, TIMES))


def _copy(device: Device, size: int) -> float:
    source = device.array_module.zeros(size, np.uint8)
    target = device.array_module.empty_like(source)

    def work() -> None:
        device.array_module.copyto(target, source)
        device.synchronize()

    return min(timed(work, TIMES))


def _upload(device: Device, size: int) -> float:
    """From pageable memory of the host, as NumPy's arrays lie in it."""
    source = np.zeros(size, np.uint8)

    def work() -> None:
        if device.put(source) is source:
            source.copy()
        device.synchronize()

    return min(timed(work, TIMES))
