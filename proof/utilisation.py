"""What a stage makes of the machine: use, memory and power of the GPU, or use of the processors."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .done import Row

EVERY_S = 0.2
"""Between two readings; NVML itself averages over about as long."""

Readings = dict[str, float]


@contextmanager
def watched(gpu: bool, kept: list[Row]) -> Iterator[None]:
    """Read what is in use meanwhile, and put one row for each quantity into `kept`.

    Parameters
    ----------
    gpu
        GPUs by NVML; else the processors and the memory of the host.
    """
    read, ended, found = _gpus() if gpu else _host(), threading.Event(), defaultdict(list)

    def run() -> None:
        while not ended.wait(EVERY_S):
            for name, value in read().items():
                found[name].append(value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        kept += [
            {"what": name, "mean": sum(v) / len(v), "most": max(v), "readings": len(v)}
            for name, v in found.items()
        ]


def _gpus() -> Callable[[], Readings]:
    """Readings of all GPUs, see https://docs.nvidia.com/deploy/nvml-api. Not yet run on a GPU."""
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    asked: dict[str, Callable[[Any], float]] = {
        "use, share of 1": lambda h: nvml.nvmlDeviceGetUtilizationRates(h).gpu / 100,
        "its memory busy, share of 1": lambda h: nvml.nvmlDeviceGetUtilizationRates(h).memory / 100,
        "memory in use, GiB": lambda h: nvml.nvmlDeviceGetMemoryInfo(h).used / 2**30,
        "power, W": lambda h: nvml.nvmlDeviceGetPowerUsage(h) / 1000,
    }

    def read() -> Readings:
        found: Readings = {}
        for number, handle in enumerate(handles):
            for name, ask in asked.items():
                with contextlib.suppress(nvml.NVMLError):  # not every GPU reports everything
                    found[f"GPU {number}: {name}"] = ask(handle)
        return found

    return read


def _host() -> Callable[[], Readings]:
    """Readings of the processors and the host's memory."""
    before = _processor_times()

    def read() -> Readings:
        nonlocal before
        now = _processor_times()
        busy, total = now[0] - before[0], now[1] - before[1]
        before = now
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        held = _kib(memory["MemTotal"]) - _kib(memory["MemAvailable"])
        return {
            "processors: use, share of 1": busy / total if total else 0.0,
            "host: memory in use, GiB": held / 2**20,
        }

    return read


def _kib(text: str) -> int:
    return int(text.split()[0])


def _processor_times() -> tuple[float, float]:
    """Time that the processors were busy so far, and all of it."""
    values = [float(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = values[3] + values[4]
    return sum(values) - idle, sum(values)
