"""X-ray severity scoring: the published procedure, ONNX Runtime and Triton, in one run.

Every lane does the same work, from the bytes of a file to the score, with the same weights:

(a) the published procedure: PyTorch, one image after the other, networks kept loaded;
(b) ONNX Runtime in this process, on the files that Triton serves;
(c) Triton over gRPC;
(d) Triton over shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..catalog import Network
from ..catalog import cxr_severity as cxr
from ..client import Client
from ..postprocessing.lungs import clean_step
from ..postprocessing.zones import zones_step
from ..preprocessing.images import read_xray
from ..preprocessing.phantom import chest_xray
from ..preprocessing.resize import resize_bilinear_u8
from ..server.launcher import TritonServer
from .instrument.loops import Task
from .instrument.machine import hardware
from .runs import Progress, Run, exported, onnx_run, torch_run, versions
from .table import GRPC, IN_PROCESS, PUBLISHED, SHM, Entry, measured, rows

IMAGES = 8
"""Generated X-rays that the lanes score in turn."""


def measure(
    *,
    networks: Sequence[str],
    repository: Path | None,
    weights: str,
    rounds: int,
    tasks: int,
    concurrencies: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    """Measure all lanes for each of the stage II `networks`.

    Parameters
    ----------
    repository
        Holds the exported networks; None: they are exported to a temporary one.
    weights
        "random" or "store": where the PyTorch lane, and an export, take weights from.
    rounds, tasks
        Interleaved rounds, and images of each lane in each round.

    Returns
    -------
    dict
        The report, ready for JSON.
    """
    images = list(_images())
    wanted = [cxr.LUNG.name, *networks]
    with exported(cxr.SYSTEM, wanted, repository, weights, progress) as folder:
        parts = [
            _measure_one(name, folder, weights, images, rounds, tasks, concurrencies, progress)
            for name in networks
        ]
    chosen = " ".join(f"--network {name}" for name in networks)
    return {
        "title": "X-ray severity scoring",
        "unit": "image",
        "command": f"hilum bench cxr-severity {chosen} --rounds {rounds} --tasks {tasks}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "weights": weights,
        "rounds": rounds,
        "tasks": tasks,
        "parts": parts,
    }


def _images() -> Iterator[bytes]:
    for i in range(IMAGES):
        pixels = chest_xray(100 + i, height=900, width=800, severity=i / (IMAGES - 1)).pixels
        yield cv2.imencode(".png", pixels)[1].tobytes()


def _measure_one(
    name: str,
    repository: Path,
    weights: str,
    images: Sequence[bytes],
    rounds: int,
    tasks: int,
    concurrencies: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    network = cxr.SYSTEM.network(name)
    threshold = cxr.DISEASE[name].zone_threshold
    both = (cxr.LUNG, network)
    eager = {n.model: torch_run(cxr.SYSTEM, n, weights) for n in both}
    sessions = {
        n.model: onnx_run(n, repository, [t.name for t in n.outputs if t.name != "mask"])
        for n in both
    }
    with (
        TritonServer(repository, models=[cxr.ENSEMBLES[name].model]) as server,
        Client(server.grpc_url, transport="grpc") as over_grpc,
        Client(server.grpc_url, transport="shm") as over_shm,
    ):
        ways: dict[str, Task] = {
            PUBLISHED: _in_process(eager, network, threshold, images),
            IN_PROCESS: _in_process(sessions, network, threshold, images),
            GRPC: _served(over_grpc, name, images),
            SHM: _served(over_shm, name, images),
        }
        deviations = _deviations(ways, len(images))
        lanes = [
            Entry(lane, c, task)
            for lane, task in ways.items()
            for c in (concurrencies if lane != PUBLISHED else [1])
        ]
        before = over_shm.statistics(cxr.LUNG.model)
        samples = measured(lanes, rounds=rounds, tasks=tasks, progress=progress)
        after = over_shm.statistics(cxr.LUNG.model)
        served = over_shm.describe()
    speed = next(f for f in network.published if f.quantity == "throughput")
    return {
        "title": cxr.DISEASE[name].title,
        "note": f"Published: {speed.value:g} images/s on {speed.hardware}.",
        "published_images_per_second": speed.value,
        "server": served,
        "batching": {
            "model": cxr.LUNG.model,
            "inferences": after.inferences - before.inferences,
            "executions": after.executions - before.executions,
        },
        "rows": rows(lanes, samples, deviations),
    }


def _in_process(
    runs: Mapping[str, Run], network: Network, threshold: float, images: Sequence[bytes]
) -> Task:
    """The whole path in this process, with the networks as `runs` by model."""
    mode = np.array([cxr.PARITY], np.uint8)

    def task(number: int) -> tuple[int, list[float]]:
        xray = read_xray(images[number % len(images)])
        image = resize_bilinear_u8(xray.pixels, (cxr.LUNG_SIZE, cxr.LUNG_SIZE))[None]
        raw = runs[cxr.LUNG.model]({"image": image})["lung"][0]
        cleaned = clean_step(raw=raw, mode=mode)
        disease = runs[network.model](
            {"image": image, "lung": cleaned["lung"][None], "box": cleaned["box"][None]}
        )
        found = zones_step(
            lung=cleaned["lung"],
            box=cleaned["box"],
            **{n: disease[n][0] for n in ("disease", "ungated", "probability")},
            zone_threshold=np.array([threshold]),
            mode=mode,
        )
        return int(found["score"][0]), found["fractions"].tolist()

    return task


def _served(client: Client, network: str, images: Sequence[bytes]) -> Task:
    def task(number: int) -> tuple[int, list[float]]:
        result = client.run("cxr-severity", images[number % len(images)], network=network)
        return result.score, list(result.fractions)

    return task


def _deviations(tasks: Mapping[str, Task], count: int) -> dict[str, tuple[int, float]]:
    """By lane, how many scores differ from ONNX Runtime's and by how much fractions do."""
    answers = {lane: [task(i) for i in range(count)] for lane, task in tasks.items()}
    found = {}
    for lane, given in answers.items():
        pairs = list(zip(given, answers[IN_PROCESS], strict=True))
        scores = sum(a[0] != b[0] for a, b in pairs)
        largest = max(float(np.abs(np.subtract(a[1], b[1])).max()) for a, b in pairs)
        found[lane] = (scores, largest)
    return found
