"""Stage one of DLPE in one direction: Triton against ONNX Runtime in process, on the same slabs.

Both lanes hold the whole volume, cut slabs out of it, run the three networks, and add what comes
back to three sums, each in a process of its own. Triton is asked as the pipeline does it: one
request for the three networks, several on their way. In process the networks take turns, each with
ONNX Runtime's defaults, one slab after the other. Blocks of slabs alternate between the lanes, so
that a slow spell of the machine meets both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from ..catalog import dlpe as catalog
from ..catalog.dlpe import Direction
from ..client import Client
from ..client.memory import keep_large_buffers
from ..client.pipelines.dlpe_options import Options
from ..client.window import in_order
from ..preprocessing import slabs
from ..preprocessing.dlpe_space import normalise_signal
from ..preprocessing.phantom_ct import chest_ct
from ..preprocessing.slabs import Slab
from ..server.launcher import TritonServer
from .dlpe_study import DEADLINE_S
from .memory import SessionMemory, peak_bytes
from .processes import apart

TASKS = ("lung", "airway1", "vessel1")

SEED = 7

BLOCK = 16
"""Slabs that a lane processes before it is the other's turn."""

_STEP = 16
"""Every so many voxels along each axis are compared."""

Block = Sequence[tuple[int, int]]
"""First slice of each slab, and the one after its last; what passes between processes."""

Samples = NDArray[np.float32]
"""[task, n, H / step, W / step]: sums at some voxels of a block."""


class _Lane:
    """What both lanes share: a volume, and sums of probabilities.

    Parameters
    ----------
    volume
        File of the normalised volume, ``.npy``.
    """

    def __init__(self, volume: Path, direction: Direction) -> None:
        self.direction: Direction = direction
        self.margin = max(catalog.TASKS[task].margin for task in TASKS)
        self.volume = np.load(volume)
        # Not `zeros`, whose memory is only taken where something is added.
        self.totals = {task: np.full(self.volume.shape, 0, np.float32) for task in TASKS}

    def peak_bytes(self) -> int:
        """Most memory of this process."""
        return peak_bytes()

    def samples(self, block: Block) -> Samples:
        """Sums at some voxels of a block."""
        views = [slabs.slices_first(self.totals[task], self.direction) for task in TASKS]
        chosen = [i for ends in block for i in range(*ends)][:: _STEP // 2]
        return np.stack([view[chosen, ::_STEP, ::_STEP] for view in views])

    def _slabs(self, block: Block) -> list[Slab]:
        return [Slab(self.direction, *ends) for ends in block]

    def _add(self, slab: Slab, found: Any) -> None:
        for task in TASKS:
            slabs.add(self.totals[task], slab, found[task])


class Served(_Lane):
    """Through Triton, as the pipeline asks it.

    Parameters
    ----------
    url
        Of the server.
    """

    def __init__(self, volume: Path, direction: Direction, url: str) -> None:
        keep_large_buffers()  # as the command line does
        super().__init__(volume, direction)
        self._client = Client(url, deadline_s=DEADLINE_S)
        self._model = catalog.ENSEMBLES["stage1", direction].model
        slab = self._client.model(self._model).inputs["slab"]
        self._dtype = np.dtype(triton_to_np_dtype(slab.dtype))
        network = self._client.model(catalog.TASKS[TASKS[0]].network(direction).model)
        self._how = Options().how.at(network)

    def run(self, block: Block) -> float:
        """Seconds for the slabs of a block."""
        start = time.perf_counter()
        for _ in in_order(self._process, self._slabs(block), self._how.in_flight):
            pass
        return time.perf_counter() - start

    def slab_slices(self) -> int:
        """Most slices of a slab, as the pipeline cuts them for this server."""
        return self._how.length(self.volume.shape, self.direction)

    def about(self) -> dict[str, Any]:
        """How slabs travel."""
        return {
            "transport": self._client.transport,
            "in_flight": self._how.in_flight,
            "slab_type": str(self._dtype),
        }

    def _process(self, slab: Slab) -> None:
        cutting = slabs.cut(self.volume, slab, self.margin, self._dtype)
        shape = (len(slab), *cutting.shape[1:])
        answer = self._client.infer(
            self._model, {"slab": cutting}, TASKS, output_shapes=dict.fromkeys(TASKS, shape)
        )
        self._add(slab, answer.outputs)


class InProcess(_Lane):
    """ONNX Runtime in this process, on the files that Triton serves.

    Parameters
    ----------
    repository
        Where these are.
    """

    def __init__(self, volume: Path, direction: Direction, repository: Path) -> None:
        from .runs import onnx_run  # not above: the other lane's memory is to be a client's

        super().__init__(volume, direction)
        networks = {task: catalog.TASKS[task].network(direction) for task in TASKS}
        self._runs = {t: onnx_run(n, repository, ["probability"]) for t, n in networks.items()}

    def run(self, block: Block) -> float:
        """Seconds for the slabs of a block."""
        start = time.perf_counter()
        for slab in self._slabs(block):
            given = {"slab": slabs.cut(self.volume, slab, self.margin)}
            found = {task: run(given)["probability"] for task, run in self._runs.items()}
            self._add(slab, found)
        return time.perf_counter() - start


class Generator:
    """Makes the volume, in a process that takes its memory with it."""

    def write(self, path: Path, side: int) -> None:
        """Write a chest phantom on a grid of normalised space, float32 [x, y, z].

        Of half the resolution, each voxel twice along each axis: that takes an eighth of the time
        and of the memory, and is the same to a network's speed.
        """
        half = side // 2
        x, y, z = (length / half for length in catalog.FIELD_MM)
        phantom = chest_ct(SEED, slices=half, size=half, spacing=(z, x, y))
        hu = phantom.volume.voxels.transpose(1, 2, 0)
        volume = np.empty((side,) * 3, np.float32)
        for odd in np.ndindex(2, 2, 2):
            volume[tuple(slice(k, None, 2) for k in odd)] = hu
        normalise_signal(volume)
        np.save(path, volume)


def measure(
    repository: Path,
    *,
    side: int = catalog.SIDE,
    direction: Direction = "z",
    slices: int = catalog.SIDE,
    progress: Any,
) -> dict[str, Any]:
    """Measure both lanes.

    Parameters
    ----------
    side
        Voxels along each side of the volume, 64 or more.
    slices
        Slices that are processed, at least; the slabs lie evenly over the volume.
    """
    progress(f"stage one: generate a volume of {side}³ voxels")
    ensemble = catalog.ENSEMBLES["stage1", direction].model
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        volume = Path(folder, "volume.npy")
        with apart(Generator) as generator:
            generator.write(volume, side)
        with (
            TritonServer(repository, models=[ensemble], grace=0) as server,
            apart(Served, volume, direction, server.grpc_url) as served,
            apart(InProcess, volume, direction, repository) as in_process,
            SessionMemory(server.pid or 0) as memory,
        ):
            chosen = _chosen(side, direction, slices, served.slab_slices())
            for lane in (served, in_process):
                lane.run(chosen[:BLOCK])  # not measured; its sums are made anew below
            found = _interleave(served, in_process, chosen, progress)
            peaks = served.peak_bytes(), in_process.peak_bytes()
            about = served.about()
    return _report(found, peaks, chosen, side, direction) | about | {"server": memory.report()}


def _chosen(side: int, direction: Direction, slices: int, length: int) -> Block:
    """Slabs of at most `length` slices, all or some."""
    every = slabs.plan(direction, np.ones(side, bool), np.arange(side), length)
    count = min(-(-slices // length), len(every))
    return [
        (every[i].start, every[i].stop)
        for i in np.linspace(0, len(every) - 1, count).round().astype(int)
    ]


def _interleave(
    served: Any, in_process: Any, chosen: Block, progress: Any
) -> list[tuple[float, float, float]]:
    """By block: seconds of both lanes, and how far their probabilities are apart."""
    found = []
    blocks = [chosen[i : i + BLOCK] for i in range(0, len(chosen), BLOCK)]
    for number, block in enumerate(blocks):
        lanes = (served, in_process) if number % 2 == 0 else (in_process, served)
        before = [lane.samples(block) for lane in (served, in_process)]
        seconds = {lane: lane.run(block) for lane in lanes}
        gained = [
            lane.samples(block) - b for lane, b in zip((served, in_process), before, strict=True)
        ]
        deviation = float(np.abs(gained[0] - gained[1]).max())
        found.append((seconds[served], seconds[in_process], deviation))
        progress(
            f"stage one, block {number + 1}/{len(blocks)}: Triton {seconds[served]:.1f} s, "
            f"in process {seconds[in_process]:.1f} s"
        )
    return found


def _report(
    found: Sequence[tuple[float, float, float]],
    peaks: tuple[int, int],
    chosen: Block,
    side: int,
    direction: Direction,
) -> dict[str, Any]:
    slices = sum(stop - start for start, stop in chosen)
    served, in_process = (sum(row[k] for row in found) for k in (0, 1))
    ratios = [b / a for a, b, _ in found]
    return {
        "side": side,
        "direction": direction,
        "slices": slices,
        "slabs": len(chosen),
        "blocks": [
            {"triton_seconds": a, "in_process_seconds": b, "deviation": d} for a, b, d in found
        ],
        "triton_seconds": served,
        "in_process_seconds": in_process,
        "ratio": in_process / served,
        "ratio_of_blocks": statistics.median(ratios),
        "seconds_per_pass": served / (slices * len(TASKS)),
        "deviation": max(d for _, _, d in found),
        "client_peak_bytes": peaks[0],
        "in_process_peak_bytes": peaks[1],
        "all_slices": {
            "triton_seconds": served * side / slices,
            "in_process_seconds": in_process * side / slices,
            "extrapolated": slices < side,
        },
    }
