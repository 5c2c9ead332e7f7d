"""One DLPE study as `hilum run` does it, in a process of its own, with what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.client import Client
from hilum.client.malloc import keep_large_buffers
from hilum.preprocessing.reading.series import open_series
from hilum.systems.dlpe.files import write_files, write_pictures
from hilum.systems.dlpe.options import Options
from hilum.systems.dlpe.result import DlpeResult

from .memory import peak_bytes

DEADLINE_S = 1800.0
"""For one request: a slab of the published grid takes long on few cores."""


@dataclass(frozen=True, slots=True)
class Outcome:
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
    start_bytes: int
    peak_bytes: int
    flags: tuple[str, ...]
    masks: dict[str, NDArray[np.uint8]]
    level: float
    width: float


class Study:
    """Runs one study; for a process of its own, see `memory.apart`.

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

    def run(self, out: Path) -> Outcome:
        """Run the study and write its files into a folder."""
        read_s = self._read()
        start_bytes = peak_bytes()
        with Client(self._url, deadline_s=DEADLINE_S) as client:
            start = time.perf_counter()
            result: Any = client.run("dlpe", self._series, options=self._options)
            seconds = time.perf_counter() - start
        write_s = _write(result, out)
        found = result.enhancement
        return Outcome(
            seconds=seconds, read_s=read_s, write_s=write_s,
            written_bytes=sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
            timings=dict(result.timings), counts=dict(result.counts), transport=result.transport,
            start_bytes=start_bytes, peak_bytes=peak_bytes(), flags=result.flags,
            masks=dict(result.masks), level=float("nan") if found is None else found.window_level,
            width=float("nan") if found is None else found.window_width,
        )  # fmt: skip

    def _read(self) -> float:
        start = time.perf_counter()
        series = open_series(self._series)
        for k in range(len(series)):
            series.stored_slice(k)
        return time.perf_counter() - start


def _write(result: DlpeResult, out: Path) -> dict[str, float]:
    out.mkdir(parents=True, exist_ok=True)
    times = [time.perf_counter()]
    write_files(result, out)
    times.append(time.perf_counter())
    write_pictures(result, out, result.weights_note)
    times.append(time.perf_counter())
    return {"write files": times[1] - times[0], "write pictures": times[2] - times[1]}
