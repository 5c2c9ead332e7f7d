"""X-ray severity scoring: the published procedure, ONNX Runtime and Triton, in one run.

Every variant does the same work, from the bytes of a file to the score, with the same weights: the
published procedure (PyTorch, one image after the other, networks kept loaded); ONNX Runtime in this
process, on the files that Triton serves; Triton over gRPC; Triton over shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hilum.catalog import Network
from hilum.catalog import cxr_severity as cxr
from hilum.client import Client
from hilum.postprocessing.cxr_severity.lungs import clean_step
from hilum.postprocessing.cxr_severity.zones import zones_step
from hilum.preprocessing.reading.images import read_xray
from hilum.preprocessing.resize import resize_bilinear_u8

from . import beside
from .beside import GRPC, PUBLISHED, RUNTIME, SHM, Plan
from .figures import THROUGHPUT, figure_of
from .instrument.loops import Task
from .instrument.machine import machine
from .instrument.record import Deviation, Lane, Record, new_record
from .runs import Progress, Run, exported, served_run, torch_run
from .systems.cxr_severity import xrays


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure all variants for each of the stage II networks."""
    before, images = machine(), xrays()
    found: list[Lane] = []
    rows, measured = [], []
    wanted = [cxr.LUNG.name, *plan.networks]
    with exported(cxr.SYSTEM, wanted, plan.repository, plan.weights, progress) as folder:
        for name in plan.networks:
            own = _measure_one(plan, name, folder, images, progress)
            found += own
            rows += beside.ratios(own)
            best = beside.fastest(own)
            own_figure = figure_of(
                before, "cxr-severity", THROUGHPUT, best.summary.per_second.value, "images/s",
                best.name, network=name, command=plan.command("cxr-severity"),
                weights=best.weights, precision=best.precision,
            )  # fmt: skip
            measured.append(asdict(own_figure))
    return new_record(
        "cxr-severity", "X-ray severity scoring beside its published procedure",
        plan.command("cxr-severity"), before, lanes=tuple(found),
        tables={"ratios": tuple(rows), "measured": tuple(measured)},
        notes=(
            f"{len(images)} generated X-rays as PNG files, from the bytes to the score.",
            *beside.NOTES,
        ),
    )  # fmt: skip


def _measure_one(
    plan: Plan, name: str, repository: Path, images: Sequence[bytes], progress: Progress
) -> tuple[Lane, ...]:
    network = cxr.SYSTEM.network(name)
    threshold = cxr.DISEASE[name].zone_threshold
    both = (cxr.LUNG, network)
    eager = {n.model: torch_run(cxr.SYSTEM, n, plan.weights) for n in both}
    sessions = {
        n.model: served_run(n, repository, [t.name for t in n.outputs if t.name != "mask"])
        for n in both
    }
    model = cxr.ENSEMBLES[name].model
    with beside.served(repository, model) as (over_grpc, over_shm):
        tasks: dict[str, Task] = {
            PUBLISHED: _in_process(eager, network, threshold, images),
            RUNTIME: _in_process(sessions, network, threshold, images),
            GRPC: _served(over_grpc, name, images),
            SHM: _served(over_shm, name, images),
        }
        return beside.lanes(
            plan, tasks, _deviations(tasks, len(images)), over_shm, progress, part=name,
            system="cxr-severity", unit="image", models=tuple(n.model for n in both),
            precision=beside.precision_of(repository, network.model),
        )  # fmt: skip


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


def _deviations(tasks: Mapping[str, Task], count: int) -> dict[str, Deviation]:
    """How many scores differ from ONNX Runtime's and by how much fractions do."""
    answers = {way: [task(i) for i in range(count)] for way, task in tasks.items()}
    found = {}
    for way, given in answers.items():
        pairs = list(zip(given, answers[RUNTIME], strict=True))
        scores = sum(a[0] != b[0] for a, b in pairs)
        largest = max(float(np.abs(np.subtract(a[1], b[1])).max()) for a, b in pairs)
        found[way] = Deviation(largest, scores, count, RUNTIME)
    return found
