"""Radiomic features of whole lungs: the published procedure and Hilum's in one run.

    python -m hilum.benchmarks.radiomics --out FOLDER

The lungs are those of the chest phantom at the size of the common box. Each procedure runs in a
process of its own, so that its memory can be told.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.covid_mtl import CROP, HU_OFFSET, STORED_MAX
from ..preprocessing.phantom_ct import chest_ct
from ..preprocessing.workers import cores
from .instrument.machine import hardware
from .radiomics_published import Run, run_alone

_VOXEL_MM = 0.96
"""Edge of the phantom's voxels: its lungs then have about 5 million of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One procedure.

    Attributes
    ----------
    cpu_seconds
        Of all its processes.
    peak_bytes
        Of all its processes together, at most.
    ratio
        Seconds of the published procedure divided by these.
    difference
        Largest relative difference of a feature from the published procedure's.
    """

    procedure: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    ratio: float
    difference: float


def make_lungs(scale: float = 1.0, seed: int = 5) -> NDArray[np.uint16]:
    """Generate the lungs in a common box: uint16 [z, y, x], 0 around them.

    Parameters
    ----------
    scale
        Of the box's sides: 0.5 for an eighth of the voxels.
    seed
        Of the generated patient.
    """
    z, y, _ = (int(n * scale) for n in CROP)
    step = _VOXEL_MM / scale
    phantom = chest_ct(seed, slices=z, size=y, spacing=(step, step, step), noise=25)
    stored = np.clip(phantom.volume.voxels + np.int16(HU_OFFSET), 1, STORED_MAX).astype(np.uint16)
    return np.where(phantom.lung > 0, stored, np.uint16(0))


def measure(
    scale: float = 1.0,
    seed: int = 5,
    *,
    rounds: int = 1,
    processes: Sequence[int] = (1, 2),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the published procedure once and Hilum's in turn with different numbers of processes.

    Parameters
    ----------
    scale, seed
        As `make_lungs` takes them.
    rounds
        Runs of Hilum's; the fastest counts.
    processes
        Numbers of processes.
    """
    volume = make_lungs(scale, seed)
    progress(f"{int(np.count_nonzero(volume))} lung voxels in {list(volume.shape)}")
    published = run_alone(volume, None)
    rows = [_row("published", published, published)]
    progress(f"published: {published.seconds:.1f} s")
    for count in processes:
        runs = [run_alone(volume, count) for _ in range(rounds)]
        rows.append(_row(f"Hilum, {count} process(es)", min(runs, key=_seconds), published))
        progress(f"{rows[-1].procedure}: {rows[-1].seconds:.1f} s, {rows[-1].ratio:.1f} times")
    return {
        "title": "Radiomic features of whole lungs",
        "command": f"hilum.benchmarks.radiomics.measure({scale}, {seed}, rounds={rounds}, "
        f"processes={tuple(processes)})",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "versions": {
            name: version(name)
            for name in ("numpy", "pyradiomics-bhklab", "SimpleITK", "PyWavelets", "scikit-image")
        },
        "shape": list(volume.shape),
        "lung_voxels": int(np.count_nonzero(volume)),
        "rounds": rounds,
        "rows": [asdict(row) for row in rows],
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    shape = " × ".join(str(n) for n in report["shape"])
    lines = [
        f"# {report['title']}",
        "",
        f"{shape} voxels, {report['lung_voxels']} of lung; {report['hardware']}, load "
        f"{report['load']:.1f} at the end; {versions}; best of {report['rounds']} round(s). "
        f"`{report['command']}`",
        "",
        "| procedure | seconds | CPU seconds | peak GB | times faster | relative difference |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['procedure']} | {r['seconds']:.1f} | {r['cpu_seconds']:.1f} "
        f"| {r['peak_bytes'] / 1e9:.2f} "
        f"| {r['ratio']:.1f} | {r['difference']:.0e} |"
        for r in report["rows"]
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write ``radiomics.json`` and ``radiomics.md``."""
    parser = argparse.ArgumentParser(prog="python -m hilum.benchmarks.radiomics")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sides of the common box")
    parser.add_argument("--seed", type=int, default=5, help="of the generated patient")
    parser.add_argument("--rounds", type=int, default=1, help="runs of Hilum's procedure")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=sorted({1, cores()}), help="to measure with"
    )
    given = parser.parse_args(arguments)
    report = measure(
        given.scale,
        given.seed,
        rounds=given.rounds,
        processes=given.processes,
        progress=_say,
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "radiomics.json").write_text(json.dumps(report, indent=2) + "\n")
    (given.out / "radiomics.md").write_text(markdown(report))
    sys.stdout.write(markdown(report))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _row(procedure: str, run: Run, published: Run) -> Row:
    away = np.abs(run.features - published.features)
    scale = np.maximum(np.abs(published.features), np.finfo(np.float64).tiny)
    return Row(
        procedure,
        run.seconds,
        run.cpu_seconds,
        run.peak_bytes,
        published.seconds / run.seconds,
        float((away / scale).max()),
    )


def _seconds(run: Run) -> float:
    return run.seconds


if __name__ == "__main__":
    main()
