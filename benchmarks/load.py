"""Closed-loop load, interleaved rounds, and the figures that are drawn from them."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

Task = Callable[[int], Any]
"""One unit of work, called with its number."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One thing that is measured: a way of doing the work at one concurrency.

    Attributes
    ----------
    units
        Images or slices that one call of `task` does: its batch.
    """

    name: str
    concurrency: int
    task: Task
    units: int = 1


@dataclass(slots=True)
class Samples:
    """What was measured of one lane: one throughput for each round, all latencies."""

    throughputs: list[float]
    latencies: list[float]


def closed_loop(task: Task, *, concurrency: int, tasks: int) -> tuple[float, list[float]]:
    """Do `tasks` units of work, `concurrency` at a time; the next starts when one ends.

    Returns
    -------
    tuple
        Units per second over the whole loop, and the latency of each in seconds.
    """
    numbers = count()
    latencies: list[float] = []

    def worker() -> None:
        while (number := next(numbers)) < tasks:
            start = time.perf_counter()
            task(number)
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for future in [pool.submit(worker) for _ in range(concurrency)]:
            future.result()
    return tasks / (time.perf_counter() - start), latencies


def interleave(
    lanes: Sequence[Lane], *, rounds: int, tasks: int, progress: Callable[[str], None]
) -> dict[tuple[str, int], Samples]:
    """Measure all lanes in turn, `rounds` times, each after one unmeasured warm-up.

    A slow spell of the machine meets all lanes of a round alike, so ratios within rounds hold
    where absolute figures do not.

    Parameters
    ----------
    tasks
        Units of work of one lane in one round, at least.
    """
    samples = {(lane.name, lane.concurrency): Samples([], []) for lane in lanes}
    for lane in lanes:
        progress(f"warm-up: {lane.name}, concurrency {lane.concurrency}")
        closed_loop(lane.task, concurrency=lane.concurrency, tasks=lane.concurrency)
    for number in range(1, rounds + 1):
        for lane in lanes:
            progress(f"round {number}/{rounds}: {lane.name}, concurrency {lane.concurrency}")
            throughput, latencies = closed_loop(
                lane.task,
                concurrency=lane.concurrency,
                tasks=max(tasks // lane.units, 2 * lane.concurrency),
            )
            kept = samples[lane.name, lane.concurrency]
            kept.throughputs.append(throughput * lane.units)
            kept.latencies += latencies
    return samples


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of `values`."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]


def ratio(of: Samples, to: Samples) -> float:
    """Median over the rounds of the throughput `of` one lane divided by that of another."""
    return statistics.median(a / b for a, b in zip(of.throughputs, to.throughputs, strict=True))


def hardware() -> str:
    """The machine in words: processor, cores, memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":")[1] for x in cpuinfo.read_text().splitlines() if "model name" in x]
        model = names[0].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, no GPU used"
