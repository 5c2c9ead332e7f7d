"""What a benchmark runs on: processor, memory, GPUs, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from .record import Machine

_PACKAGES = (
    "numpy", "tritonclient", "nvidia-pytriton", "onnxruntime", "torch", "openvino", "cupy-cuda13x",
)  # fmt: skip


def machine() -> Machine:
    """Describe the machine as it is now."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        gpus=_gpus(),
        load_before=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        versions=_versions(),
    )


def described(found: Machine) -> str:
    """A machine in words: processor, cores, memory, GPUs."""
    gpus = f"GPU: {', '.join(found.gpus)}" if found.gpus else "no GPU"
    return f"{found.processor}, {found.cores} cores, {found.memory_gib:.0f} GiB, {gpus}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":")[1] for x in cpuinfo.read_text().splitlines() if "model name" in x]
        if names:
            return names[0].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    """Name and memory of each GPU, as NVIDIA's driver reports; none without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        reply = subprocess.run(
            [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()  # a driver that does not answer has no GPU to offer
    return tuple(line.strip() for line in reply.stdout.splitlines() if line.strip())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
