"""A whole CT through DLPE on processors, from DICOM files to masks, beside the published passes.

    python tests/soak/dlpe_scan.py SERIES --repository reduced --grid 512
    taskset -c 0 python tests/soak/dlpe_scan.py SERIES --repository reduced --grid 512

The seconds of the stages say how long other numbers of cores take: networks share them, the rest
does not. How far that is from the truth, a run on fewer cores says.

The published procedure runs every slice through every network, by PyTorch in eager mode, in batches
of four. Of each network some batches are timed and extrapolated; all else that it does is left out,
so the ratio is the least. Weights are random: seconds are right, and what is found means nothing.
`--passes REPOSITORY` says how many passes are left with networks that find lungs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from hilum.benchmarks import dlpe_published as published
from hilum.catalog import dlpe as catalog
from hilum.client import Client
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe.result import DlpeResult

OF_NETWORKS = ("stage_one", "stage_two", "lesions", "visible_lesions")
MODELLED = (1, 2, 4, 8, 16, 32)
WARM_UP_GRID = 128


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def study(repository: Path, series: Path, grid: int) -> tuple[DlpeResult, float]:
    """The result of a study, and its seconds."""
    with (
        TritonServer(repository, grace=0) as server,
        Client(server.grpc_url, deadline_s=3600) as client,
    ):
        client.run("dlpe", series, grid=min(grid, WARM_UP_GRID), quantities=False)
        began = time.perf_counter()
        found = client.run("dlpe", series, grid=grid, quantities=False)
        return found, time.perf_counter() - began


def published_seconds(grid: int, batches: int) -> float:
    """Seconds of the published procedure's networks for all slices in all directions."""
    networks = published.load("random")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    total = 0.0
    for (task, _), network in networks.items():
        shape = (published.BATCH, catalog.TASKS[task].channels, grid, grid)
        noise = np.random.default_rng(0).normal(0, 0.5, shape).astype(np.float32)
        slices, seconds = torch.from_numpy(noise), list[float]()
        with torch.inference_mode():
            for _ in range(batches + 1):  # the first one warms up
                began = time.perf_counter()
                network(slices)
                seconds.append(time.perf_counter() - began)
        total += statistics.median(seconds[1:]) / published.BATCH * grid
    return total


def passes(found: DlpeResult) -> str:
    done, of = found.counts["passes"], found.counts["published_passes"]
    return f"{done} of {of} passes, {1 - done / of:.0%} left out"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--passes", type=Path)
    parser.add_argument("--grid", type=int, default=512)
    parser.add_argument("--batches", type=int, default=2)
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    theirs = published_seconds(given.grid, given.batches)
    say(f"published passes, from {given.batches} batches of each network: {theirs:.0f} s")
    found, whole = study(given.repository, given.series, given.grid)
    say(f"Hilum on {cores} cores: {whole:.0f} s, {passes(found)}")
    for name, value in found.timings.items():
        say(f"  {name}: {value:.1f} s")
    say(f"at least {theirs / whole:.2f} times as fast")
    shared = sum(found.timings[name] for name in OF_NETWORKS)
    for number in MODELLED:
        seconds = whole - shared + shared * cores / number
        say(f"{number} cores, modelled: {seconds / 60:.1f} minutes")
    if given.passes:
        other, _ = study(given.passes, given.series, given.grid)
        say(f"with {given.passes.name}: {passes(other)}")


if __name__ == "__main__":
    main()
