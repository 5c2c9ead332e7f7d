"""The GPUs that a server started from here sees, as ``nvidia-smi`` reports them.

Not yet run on a GPU: what is read was recorded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from hilum.catalog.errors import ServerError

from . import machine

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
"""Environment: which GPUs CUDA shows, and that it numbers them as ``nvidia-smi`` does."""

_SMI = (
    "nvidia-smi",
    "--query-gpu=uuid,name,compute_cap,driver_version,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU; memory in MiB."""

    uuid: str
    name: str
    capability: str
    driver: str
    memory_mib: int
    free_mib: int


def devices() -> tuple[Device, ...]:
    """The GPUs that CUDA would show a server, in CUDA's order; empty where nothing reports them."""
    return visible(_all(), os.environ.get(VISIBLE))


def parse_devices(text: str) -> tuple[Device, ...]:
    """The GPUs in what ``nvidia-smi --query-gpu`` printed; lines of other kinds are left out."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 6 and re.fullmatch(r"\d+\.\d+", parts[2]):
            uuid, name, capability, driver, *memory = parts
            if all(m.isdigit() for m in memory):
                found.append(Device(uuid, name, capability, driver, *map(int, memory)))
    return tuple(found)


def visible(found: Sequence[Device], wanted: str | None) -> tuple[Device, ...]:
    """Those that a value of ``CUDA_VISIBLE_DEVICES`` shows, in its order; None shows all.

    As CUDA does it, the first entry that is no GPU ends the list. Entries are numbers or the
    beginnings of UUIDs.
    """
    if wanted is None:
        return tuple(found)
    shown: list[Device] = []
    for entry in (e.strip() for e in wanted.split(",")):
        if entry.isdigit():
            fitting = list(found[int(entry) : int(entry) + 1])
        else:
            fitting = [d for d in found if entry and d.uuid.startswith(entry)]
        if len(fitting) != 1:
            break
        shown += fitting
    return tuple(shown)


def choose(wanted: str) -> None:
    """Show this process, and what it starts, only some GPUs.

    Parameters
    ----------
    wanted
        Their numbers as ``nvidia-smi`` reports them, ``"0,1"``.

    Raises
    ------
    ServerError
        When one of them is not there, or given twice.
    """
    numbers = [n.strip() for n in wanted.split(",")]
    if not all(n.isdigit() for n in numbers) or len(set(map(int, numbers))) != len(numbers):
        raise ServerError(f"--gpus {wanted}: give different numbers, as in --gpus 0,1")
    count = max(len(_all()), machine.gpus())
    if missing := [n for n in numbers if int(n) >= count]:
        there = f"GPUs 0 to {count - 1}" if count else "no NVIDIA GPU"
        raise ServerError(
            f"there is no GPU {missing[0]} on this machine; it has {there} (`nvidia-smi -L`)"
        )
    os.environ[VISIBLE] = ",".join(str(int(n)) for n in numbers)
    os.environ[ORDER[0]] = ORDER[1]


def _all() -> tuple[Device, ...]:
    if shutil.which(_SMI[0]) is None:
        return ()
    try:
        reply = subprocess.run(_SMI, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_devices(reply.stdout) if reply.returncode == 0 else ()
