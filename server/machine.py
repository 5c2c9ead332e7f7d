"""What this machine has: cores, GPUs, shared memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - POSIX shared memory itself, not a temporary file


def cores() -> int:
    """Number of CPU cores that this process may use: its affinity, capped by its cgroup's quota."""
    usable = len(os.sched_getaffinity(0))
    quota = _quota()
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def _quota() -> float | None:
    """Cores that the cgroup grants, as a fraction; None without a limit."""
    root = Path("/sys/fs/cgroup")
    try:
        if (root / "cpu.max").is_file():
            granted, period = (root / "cpu.max").read_text().split()
        else:
            granted = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        return int(granted) / int(period) if granted not in ("max", "-1") else None
    except (OSError, ValueError):
        return None


def gpus() -> int:
    """Number of NVIDIA GPUs that a server started from here would see."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "none"):
        return 0
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def shared_memory_free() -> int:
    """Free bytes in ``/dev/shm``; 0 without it."""
    try:
        stats = os.statvfs(SHM)
    except OSError:
        return 0
    return stats.f_bavail * stats.f_frsize
