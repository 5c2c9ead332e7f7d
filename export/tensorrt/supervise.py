"""Running a worker with a limit of time and of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "HILUM_TENSORRT"
"""Environment variable that names a folder with NVIDIA's Python package, if it is not installed."""

_POLL_S = 0.1
_KEPT_OF_LOG = 2000
"""Last characters of a worker's standard error that are looked at."""

_SHOWN_OF_ERROR = 300
"""Characters of the library's own message in a reason."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use: seconds, and bytes of memory (resident)."""

    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a worker.

    Attributes
    ----------
    result
        What it wrote, None when it came to no end.
    problem
        Why not.
    peak
        Largest resident memory in bytes that was seen.
    """

    result: dict[str, Any] | None
    problem: str
    seconds: float
    peak: int


def run_worker(
    order: Mapping[str, Any],
    limits: Limits,
    watch: Callable[[float, int], None] = lambda _seconds, _bytes: None,
) -> Outcome:
    """Have an order done in a process of its own.

    Parameters
    ----------
    watch
        Called many times a second with the seconds and bytes that the worker has used.
    """
    with tempfile.TemporaryDirectory(prefix="hilum-engine-") as folder:
        files = [Path(folder) / name for name in ("order.json", "result.json", "stderr")]
        files[0].write_text(json.dumps(order), "utf-8")
        with files[2].open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", *map(str, files[:2])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=worker_environment(),
                start_new_session=True,
            )
        problem, seconds, peak = _guard(process, limits, watch)
        if not problem and process.returncode:
            problem = _death(process.returncode, files[2])
        if problem or not files[1].is_file():
            return Outcome(None, problem or "the worker wrote no result", seconds, peak)
        return Outcome(json.loads(files[1].read_text("utf-8")), "", seconds, peak)


def worker_environment() -> dict[str, str]:
    """The environment of a worker: NVIDIA's package can lie in a folder of its own."""
    environment = dict(os.environ)
    if folder := environment.get(VARIABLE):
        paths = [str(Path(folder).resolve()), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _guard(
    process: subprocess.Popen[bytes], limits: Limits, watch: Callable[[float, int], None]
) -> tuple[str, float, int]:
    begun, peak, problem = time.monotonic(), 0, ""
    try:
        while process.poll() is None:
            seconds = time.monotonic() - begun
            peak = max(peak, _resident(process.pid))
            watch(seconds, peak)
            if seconds > limits.seconds:
                problem = f"it took more than {limits.seconds:g} s"
            elif peak > limits.memory:
                problem = f"it took more than {limits.memory / 2**30:.1f} GiB of memory"
            if problem:
                break
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return problem, time.monotonic() - begun, peak


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE")


def _death(code: int, errors: Path) -> str:
    lines = errors.read_text("utf-8", "replace")[-_KEPT_OF_LOG:].strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    if code < 0:
        return f"the worker was ended by {signal.Signals(-code).name}{last}"
    return f"the worker ended with code {code}{last}"


def failure(outcome: Outcome) -> str:
    """Why a worker built no engine, in one line; empty when it did."""
    if outcome.result is None:
        return outcome.problem
    if outcome.result["stage"] == "done":
        return ""
    line = " ".join(outcome.result["error"].split()) or "no reason given"
    doing = "the parser" if outcome.result["stage"] == "parse" else "the builder"
    return f"{doing}: {line[:_SHOWN_OF_ERROR]}"
