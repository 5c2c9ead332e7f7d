"""CuPy against NumPy for whole pipelines: the same server, the same study, the same masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hilum.catalog.terms import Mode
from hilum.client import Client
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.xray import chest_xray

from ..done import Check, Done, Say
from ..setting import DISEASE, Setting

LEAST_DICE = 0.9999
"""Where sums of single-precision numbers are in another order (mode corrected)."""

XRAYS = 4

MODES: tuple[Mode, ...] = ("parity", "corrected")


def run(setting: Setting, say: Say) -> Done:
    """DLPE in both modes, and X-rays with both networks."""
    rows: list[dict[str, Any]] = []
    checks: list[Check] = []
    with Client(setting.url, deadline_s=240.0) as client:
        for mode in MODES:
            say(f"DLPE, {mode}")
            found = _dlpe(client, setting, mode)
            rows += found
            least = min(row["dice"] for row in found)
            same = all(row["differing"] == 0 for row in found)
            holds = same if mode == "parity" else bool(least >= LEAST_DICE)
            name = f"DLPE's masks, {mode}: CuPy gives those of NumPy"
            checks.append(Check(name, holds, f"{_differing(found)}; least Dice {least:.6f}"))
        for network in DISEASE:
            say(f"X-rays, {network}")
            found = _xrays(client, setting, network)
            rows += found
            holds = all(row["differing"] == 0 for row in found)
            checks.append(
                Check(f"X-rays, {network}: CuPy gives those of NumPy", holds, _differing(found))
            )
    return Done(checks=tuple(checks), tables={"arrays": tuple(rows)})


def _differing(rows: list[dict[str, Any]]) -> str:
    differing, of = (sum(row[name] for row in rows) for name in ("differing", "of"))
    return f"{differing} of {of} pixels differ"


def _dlpe(client: Client, setting: Setting, mode: Mode) -> list[dict[str, Any]]:
    sizes = setting.sizes
    phantom = chest_ct(3, slices=sizes.slices, size=sizes.pixels, lesions=4).volume
    chosen = {"grid": sizes.arrays_grid, "mode": mode}
    host: Any = client.run("dlpe", phantom, **chosen)
    there: Any = client.run("dlpe", phantom, **chosen, device=setting.device)
    rows = compared(f"dlpe, {mode}", host.masks, there.masks)
    rows[0]["level_apart_hu"], rows[0]["width_apart_hu"] = _window_apart(host, there)
    rows[0] |= {"host_s": sum(host.timings.values()), "device_s": sum(there.timings.values())}
    return rows


def _window_apart(host: Any, there: Any) -> tuple[float, float]:
    """How far window level and width lie apart."""
    a, b = host.enhancement, there.enhancement
    return abs(a.window_level - b.window_level), abs(a.window_width - b.window_width)


def _xrays(client: Client, setting: Setting, network: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(XRAYS):
        pixels = chest_xray(100 + i, height=900, width=800, severity=i / XRAYS).pixels
        host: Any = client.run("cxr-severity", pixels, network=network)
        there: Any = client.run("cxr-severity", pixels, network=network, device=setting.device)
        rows += compared(f"{network}, X-ray {i + 1}", host.arrays(), there.arrays())
        if (host.score, host.fractions) != (there.score, there.fractions):
            rows[-1]["differing"] += 1
            rows[-1]["note"] = "another score or fraction"
    return rows


def compared(what: str, host: Mapping[str, Any], there: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each mask."""
    rows = []
    for name, mask in host.items():
        other = there[name]
        both, sizes = np.count_nonzero(mask & other), mask.sum(dtype=int) + other.sum(dtype=int)
        rows.append(
            {
                "what": what, "mask": name, "voxels": int(np.count_nonzero(mask)),
                "differing": int(np.count_nonzero(mask != other)), "of": int(mask.size),
                "dice": 2.0 * both / int(sizes) if sizes else 1.0,
            }
        )  # fmt: skip
    return rows
