"""X-ray severity scoring: the published procedure, ONNX Runtime and Triton, in one run.

Every lane does the same work, from the bytes of a file to the score, with the same weights:

(a) the published procedure: PyTorch, one image after the other, networks kept loaded;
(b) ONNX Runtime in this process, on the files that Triton serves;
(c) Triton over gRPC;
(d) Triton over shared memory.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ..catalog import Network
from ..catalog import cxr_severity as cxr
from ..client import Client
from ..export.networks import cxr_reference
from ..export.recipes import recipe
from ..export.repository import export_system
from ..export.store import load_weights
from ..postprocessing.lungs import clean_step
from ..postprocessing.zones import zones_step
from ..preprocessing.images import read_xray
from ..preprocessing.phantom import chest_xray
from ..preprocessing.resize import resize_bilinear_u8
from ..server.launcher import TritonServer
from .load import Lane, Samples, Task, hardware, interleave, percentile, ratio

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
Progress = Callable[[str], None]

PUBLISHED, IN_PROCESS = "PyTorch, as published", "ONNX Runtime in process"
GRPC, SHM = "Triton, gRPC", "Triton, shared memory"

IMAGES = 8
"""Generated X-rays that the lanes score in turn."""


@dataclass(frozen=True, slots=True)
class Row:
    """One lane at one concurrency.

    Attributes
    ----------
    images_per_second
        Median over the rounds.
    to_published, to_in_process
        Median over the rounds of the throughput's ratio to lane (a), and to lane (b) at the
        concurrency at which that is fastest.
    score_differences, fraction_difference
        Images whose score differs from lane (b)'s, and the largest difference of a fraction.
    """

    lane: str
    concurrency: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    samples: int
    to_published: float
    to_in_process: float
    score_differences: int
    fraction_difference: float


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
    with _exported(repository, networks, weights, progress) as folder:
        results = {
            name: _measure_one(
                name, folder, weights, images, rounds, tasks, concurrencies, progress
            )
            for name in networks
        }
    return {
        "benchmark": "cxr-severity",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {"torch": torch.__version__, "onnxruntime": ort.__version__},
        "weights": weights,
        "rounds": rounds,
        "tasks": tasks,
        "published_hardware": cxr.PUBLISHED_HARDWARE,
        "networks": results,
    }


def _images() -> Iterator[bytes]:
    for i in range(IMAGES):
        pixels = chest_xray(100 + i, height=900, width=800, severity=i / (IMAGES - 1)).pixels
        yield cv2.imencode(".png", pixels)[1].tobytes()


@contextmanager
def _exported(
    repository: Path | None, networks: Sequence[str], weights: str, progress: Progress
) -> Iterator[Path]:
    if repository is not None:
        yield repository
        return
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        export_system(
            cxr.SYSTEM,
            repository=Path(folder),
            networks=[cxr.LUNG.name, *networks],
            weights=cast("Literal['random', 'store']", weights),
            progress=lambda name, step: progress(f"export {name}: {step}"),
        )
        yield Path(folder)


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
    eager = {n.model: _torch_run(n, weights) for n in (cxr.LUNG, network)}
    sessions = {n.model: _onnx_run(n, repository) for n in (cxr.LUNG, network)}
    ensemble = cxr.ENSEMBLES[name].model
    with (
        TritonServer(repository, models=[ensemble]) as server,
        Client(server.grpc_url, transport="grpc") as over_grpc,
        Client(server.grpc_url, transport="shm") as over_shm,
    ):
        tasks_by_lane: dict[str, Task] = {
            PUBLISHED: _in_process(eager, network, threshold, images),
            IN_PROCESS: _in_process(sessions, network, threshold, images),
            GRPC: _served(over_grpc, name, images),
            SHM: _served(over_shm, name, images),
        }
        deviations = _deviations(tasks_by_lane, len(images))
        lanes = [
            Lane(lane, c, task)
            for lane, task in tasks_by_lane.items()
            for c in (concurrencies if lane != PUBLISHED else [1])
        ]
        before = over_shm.statistics(cxr.LUNG.model)
        samples = interleave(lanes, rounds=rounds, tasks=tasks, progress=progress)
        after = over_shm.statistics(cxr.LUNG.model)
        served = over_shm.describe()
    rows = [_row(lane, samples, deviations[lane.name]) for lane in lanes]
    speed = next(f for f in network.published if f.quantity == "throughput")
    return {
        "title": cxr.DISEASE[name].title,
        "published_images_per_second": speed.value,
        "server": served,
        "batching": {
            "inferences": after.inferences - before.inferences,
            "executions": after.executions - before.executions,
        },
        "rows": [{field: getattr(row, field) for field in Row.__slots__} for row in rows],
    }


def _torch_run(network: Network, weights: str) -> Run:
    how = recipe(cxr.SYSTEM)
    if weights == "store":
        core = how.build(network)
        core.load_state_dict(load_weights(cxr.SYSTEM.name, network.name)[0])
    else:
        core, _ = how.build_random(network, 0)

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            found = core(cxr_reference.core_input(network, network.sizes, inputs))
            return cxr_reference.outputs(network, found)

    return run


def _onnx_run(network: Network, repository: Path) -> Run:
    session = ort.InferenceSession(
        repository / network.model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    outputs = [t.name for t in network.outputs if t.name != "mask"]

    def run(inputs: Arrays) -> Arrays:
        found: Any = session.run(outputs, inputs)
        return dict(zip(outputs, found, strict=True))

    return run


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


def _row(
    lane: Lane, samples: Mapping[tuple[str, int], Samples], deviation: tuple[int, float]
) -> Row:
    own = samples[lane.name, lane.concurrency]
    in_process = max(
        (s for (name, _), s in samples.items() if name == IN_PROCESS),
        key=lambda s: statistics.median(s.throughputs),
    )
    p50, p95, p99 = (1e3 * percentile(own.latencies, p) for p in (50, 95, 99))
    return Row(
        lane.name,
        lane.concurrency,
        statistics.median(own.throughputs),
        p50,
        p95,
        p99,
        len(own.latencies),
        ratio(own, samples[PUBLISHED, 1]),
        ratio(own, in_process),
        *deviation,
    )


def write(report: Mapping[str, Any], folder: Path) -> str:
    """Write ``bench.json`` and ``bench.md``; returns the Markdown."""
    (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (folder / "bench.md").write_text(text)
    return text


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# X-ray severity scoring",
        "",
        f"{report['hardware']}; torch {report['versions']['torch']}, onnxruntime "
        f"{report['versions']['onnxruntime']}; weights: {report['weights']}; {report['rounds']} "
        "interleaved rounds; ratios are medians over rounds, of throughput.",
    ]
    for found in report["networks"].values():
        batching = found["batching"]
        lines += [
            "",
            f"## {found['title']}",
            "",
            f"Published: {found['published_images_per_second']:g} images/s on "
            f"{report['published_hardware']}. Stage I ran {batching['executions']} times for "
            f"{batching['inferences']} images on the server.",
            "",
            "| lane | in flight | images/s | p50 ms | p95 ms | p99 ms | ÷ published procedure "
            "| ÷ best in-process | scores that differ | max fraction difference |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['lane']} | {r['concurrency']} | {r['images_per_second']:.2f} "
            f"| {r['p50_ms']:.0f} | {r['p95_ms']:.0f} | {r['p99_ms']:.0f} "
            f"| {r['to_published']:.2f} | {r['to_in_process']:.2f} "
            f"| {r['score_differences']} | {r['fraction_difference']:.1e} |"
            for r in found["rows"]
        ]
    return "\n".join(lines) + "\n"
