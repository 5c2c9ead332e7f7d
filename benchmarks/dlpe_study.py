"""One DLPE study as `hilum run` does it, in a process of its own, with what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..client import Client
from ..client.memory import keep_large_buffers
from ..client.pipelines import PIPELINES
from ..client.pipelines.dlpe_options import Options
from ..client.pipelines.dlpe_result import DlpeResult
from ..preprocessing.series import open_series
from .instrument.watched import Asked, Watched
from .memory import peak_bytes

NAME = "0001"
"""Of the study's files."""

DEADLINE_S = 1800.0
"""For one request: a slab of the published grid takes long on few cores."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One study.

    Attributes
    ----------
    seconds
        From the folder to the result, files not written.
    read_s
        Reading the series alone, one slice after the other, on its own beforehand.
    write_s, written_bytes
        By kind: volumes and windowed series; pictures.
    start_bytes, peak_bytes
        Memory of the process before the study, and at most.
    masks
        uint8 [x, y, z] in normalised space.
    """

    seconds: float
    read_s: float
    write_s: dict[str, float]
    written_bytes: int
    timings: dict[str, float]
    counts: dict[str, int]
    transport: str
    asked: dict[str, Asked]
    passes: dict[str, int]
    local_s: float
    start_bytes: int
    peak_bytes: int
    flags: tuple[str, ...]
    masks: dict[str, NDArray[np.uint8]]
    level: float
    width: float


class Study:
    """Runs one study; for a process of its own, see `processes.apart`.

    Parameters
    ----------
    url
        Of the server.
    series
        Folder of the DICOM series.
    """

    def __init__(self, url: str, series: Path, grid: int) -> None:
        keep_large_buffers()  # as the command line does
        self._url, self._series = url, series
        self._options = Options(grid=grid)

    def run(self, out: Path) -> Measured:
        """Run the study and write its files into a folder."""
        read_s = self._read()
        start_bytes = peak_bytes()
        with Client(self._url, deadline_s=DEADLINE_S) as client:
            watched = Watched(client)
            start = time.perf_counter()
            steps = PIPELINES["dlpe"].study(self._series, self._options)
            result: Any = watched.drive(steps)
            seconds = time.perf_counter() - start
        write_s = _write(result, out)
        found = result.enhancement
        return Measured(
            seconds=seconds,
            read_s=read_s,
            write_s=write_s,
            written_bytes=sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
            timings=dict(result.timings),
            counts=dict(result.counts),
            transport=result.transport,
            asked=dict(watched.asked),
            passes=dict(watched.passes),
            local_s=watched.local_s,
            start_bytes=start_bytes,
            peak_bytes=peak_bytes(),
            flags=result.flags,
            masks=dict(result.masks),
            level=float("nan") if found is None else found.window_level,
            width=float("nan") if found is None else found.window_width,
        )

    def _read(self) -> float:
        start = time.perf_counter()
        series = open_series(self._series)
        for k in range(len(series)):
            series.stored_slice(k)
        return time.perf_counter() - start


def _write(result: DlpeResult, out: Path) -> dict[str, float]:
    out.mkdir(parents=True, exist_ok=True)
    times = [time.perf_counter()]
    result.write_files(out, NAME)
    times.append(time.perf_counter())
    result.write_pictures(out, NAME, result.weights_note)
    times.append(time.perf_counter())
    return {"write files": times[1] - times[0], "write pictures": times[2] - times[1]}
