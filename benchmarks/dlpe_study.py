"""One DLPE study as `hilum run` does it, in a process of its own, with what it costs."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..catalog import Network
from ..catalog import dlpe as catalog
from ..client import Client
from ..client.memory import keep_large_buffers
from ..client.pipelines import PIPELINES
from ..client.pipelines.dlpe_options import Options
from ..client.pipelines.dlpe_result import DlpeResult
from ..client.steps import Action, Ask, Compute, Each, Steps, run_steps
from ..preprocessing.series import open_series
from .memory import peak_bytes

T = TypeVar("T")

NAME = "0001"
"""Of the study's files."""

DEADLINE_S = 1800.0
"""For one request: a slab of the published grid takes long on few cores."""

_ENSEMBLES = {e.model: e for e in catalog.SYSTEM.ensembles}


@dataclass(slots=True)
class Asked:
    """What was asked of one model; seconds are those of requests, which overlap."""

    requests: int = 0
    slices: int = 0
    seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(slots=True)
class Watched:
    """Drives steps through a client and notes what they ask of the server. Thread-safe.

    Attributes
    ----------
    asked
        By Triton model.
    passes
        Slices by network: those of an ensemble whose output was requested.
    local_s
        Seconds that slabs took in the client: cut, converted, added. Of several at once.
    """

    client: Client
    asked: defaultdict[str, Asked] = field(default_factory=lambda: defaultdict(Asked))
    passes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    local_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def drive(self, steps: Steps[T], *, within: bool = False) -> T:
        """Run steps; `within`: they are one of many, those of a slab."""
        return run_steps(steps, lambda action: self._perform(action, within=within))

    def _perform(self, action: Action, *, within: bool) -> Any:
        if isinstance(action, Each):
            action = dataclasses.replace(action, make=self._watched(action))
        start = time.perf_counter()
        outcome = self.client.drive(_alone(action))
        seconds = time.perf_counter() - start
        with self._lock:
            if within and isinstance(action, Compute):
                self.local_s += seconds
            if isinstance(action, Ask) and action.method == "infer":
                self._note(*action.arguments, answer=outcome)
        return outcome

    def _watched(self, each: Each) -> Any:
        def make(item: Any) -> Steps[Any]:
            return (yield Compute(lambda: self.drive(each.make(item), within=True)))

        return make

    def _note(self, model: str, inputs: Any, outputs: Any, *, answer: Any) -> None:
        arrays = answer.outputs.values()
        slices = len(next(iter(arrays)))
        asked = self.asked[model]
        asked.requests += 1
        asked.slices += slices
        asked.seconds += answer.seconds
        asked.bytes_sent += sum(a.nbytes for a in inputs.values())
        asked.bytes_received += sum(a.nbytes for a in arrays)
        for network in called(model, outputs):
            self.passes[network] += slices


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


def called(model: str, outputs: Any) -> list[str]:
    """Triton models of the networks that run when these outputs of a model are requested."""
    ensemble = _ENSEMBLES.get(model)
    if ensemble is None:
        return [model]
    wanted = set(outputs)
    return [
        call.target.model
        for call in ensemble.calls
        if isinstance(call.target, Network) and wanted & set(call.outputs.values())
    ]


def _write(result: DlpeResult, out: Path) -> dict[str, float]:
    out.mkdir(parents=True, exist_ok=True)
    times = [time.perf_counter()]
    result.write_files(out, NAME)
    times.append(time.perf_counter())
    result.write_pictures(out, NAME, result.weights_note)
    times.append(time.perf_counter())
    return {"write files": times[1] - times[0], "write pictures": times[2] - times[1]}


def _alone(action: Action) -> Steps[Any]:
    """Steps of a single action."""
    return (yield action)
