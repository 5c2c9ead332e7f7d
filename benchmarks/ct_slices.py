"""CT-Angel and the CT classifier, slice by slice: PyTorch, ONNX Runtime and Triton, in one run.

Every lane runs the same networks with the same weights on the same prepared slices: (a) PyTorch,
one slice after the other, as published; (b) ONNX Runtime in this process, on the files that Triton
serves, with several batch sizes; (c) Triton over gRPC; (d) Triton over shared memory. Reading and
preparing slices is the same work in all and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog import Network, System, ct_angel, ct_classifier
from ..client import Client
from ..export.certificate import as_exported, read_certificate
from ..export.recipes import as_declared
from ..preprocessing.nearest import resize_nearest
from ..preprocessing.phantom_ct import chest_ct
from ..preprocessing.windows import ct_angel_window
from ..server.launcher import TritonServer
from .instrument.loops import Task
from .instrument.machine import hardware
from .runs import Arrays, Progress, Run, exported, onnx_run, torch_run, versions
from .table import GRPC, IN_PROCESS, PUBLISHED, SHM, Entry, measured, rows

SLICES = 8
"""Generated slices that the lanes process in turn."""

STUDY = 200
"""Slices of the study whose duration is told."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured of one system.

    Attributes
    ----------
    networks
        All of them run on each slice.
    model, outputs
        What a client asks Triton for.
    inputs
        HU slice int16 [512, 512] → inputs of `model`, with a batch axis of 1.
    network_inputs
        Network and inputs of `model` → inputs of that network.
    """

    system: System
    networks: tuple[Network, ...]
    model: str
    outputs: tuple[str, ...]
    inputs: Callable[[np.ndarray], Arrays]
    network_inputs: Callable[[Network, Arrays], Arrays]


def _angel_inputs(hu: np.ndarray) -> Arrays:
    threshold = np.array([[ct_angel.THRESHOLD]], np.float32)
    window = ct_angel.WINDOWS[ct_angel.DEFAULT_WINDOW]
    image = ct_angel_window(hu, window)[None]
    return {"image": image, "threshold": threshold, "valid_threshold": threshold}


def _classifier_inputs(hu: np.ndarray) -> Arrays:
    side = ct_classifier.SIZE
    return {"hu": resize_nearest(hu, (side, side), "opencv")[None]}


SUBJECTS = {
    "ct-angel": Subject(
        ct_angel.SYSTEM,
        ct_angel.SYSTEM.networks,
        ct_angel.ENSEMBLE.model,
        ("mask", "valid"),
        _angel_inputs,
        lambda _network, given: {n: given[n] for n in ("image", "threshold")},
    ),
    "ct-classifier": Subject(
        ct_classifier.SYSTEM,
        (ct_classifier.RAW_HU_NETWORK,),
        ct_classifier.RAW_HU_NETWORK.model,
        ("probability", "logit", "cam"),
        _classifier_inputs,
        lambda _network, given: given,
    ),
}


def measure(
    system: str,
    *,
    repository: Path | None,
    weights: str,
    rounds: int,
    tasks: int,
    concurrencies: Sequence[int],
    batches: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    """Measure all lanes of one system; parameters as for the X-ray benchmark.

    Parameters
    ----------
    batches
        Batch sizes of ONNX Runtime in this process.
    """
    subject = SUBJECTS[system]
    volume = chest_ct(7, slices=SLICES, size=512).volume.voxels
    slices = [subject.inputs(np.ascontiguousarray(s)) for s in volume]
    names = [n.name for n in subject.networks]
    with exported(subject.system, names, repository, weights, progress) as folder:
        slices = [_as_exported(subject, folder, given) for given in slices]
        part = _measure(
            subject, folder, weights, slices, rounds, tasks, concurrencies, batches, progress
        )
    return {
        "title": subject.system.title,
        "unit": "slice",
        "command": " ".join(
            (
                f"hilum bench {system} --rounds {rounds} --tasks {tasks}",
                *(f"--concurrency {c}" for c in concurrencies),
                *(f"--batch {b}" for b in batches),
            )
        ),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "weights": weights,
        "rounds": rounds,
        "tasks": tasks,
        "parts": [part],
    }


def _as_exported(subject: Subject, repository: Path, given: Arrays) -> Arrays:
    """Inputs in the element types of a repository, which engines have wider."""
    for network in subject.networks:
        certificate = read_certificate(repository / network.model)
        if certificate is not None:
            given = as_declared(as_exported(network, certificate), given)
    return given


def _measure(
    subject: Subject,
    repository: Path,
    weights: str,
    slices: Sequence[Arrays],
    rounds: int,
    tasks: int,
    concurrencies: Sequence[int],
    batches: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    eager = {n.model: torch_run(subject.system, n, weights) for n in subject.networks}
    sessions = {
        n.model: onnx_run(n, repository, [t.name for t in n.outputs]) for n in subject.networks
    }
    with (
        TritonServer(repository, models=[subject.model]) as server,
        Client(server.grpc_url, transport="grpc") as over_grpc,
        Client(server.grpc_url, transport="shm") as over_shm,
    ):
        ways: dict[str, Task] = {
            PUBLISHED: _in_process(subject, eager, slices, 1),
            IN_PROCESS: _in_process(subject, sessions, slices, 1),
            GRPC: _served(subject, over_grpc, slices),
            SHM: _served(subject, over_shm, slices),
        }
        deviations = _deviations(ways)
        lanes = [Entry(PUBLISHED, 1, ways[PUBLISHED])]
        for batch in batches:
            name = f"{IN_PROCESS}, batch {batch}"
            lanes.append(Entry(name, 1, _in_process(subject, sessions, slices, batch), batch))
            deviations[name] = deviations[IN_PROCESS]
        lanes += [Entry(w, c, ways[w]) for w in (GRPC, SHM) for c in concurrencies]
        counted = subject.networks[0].model
        before = over_shm.statistics(counted)
        samples = measured(lanes, rounds=rounds, tasks=tasks, progress=progress)
        after = over_shm.statistics(counted)
        served = over_shm.describe()
    found = rows(lanes, samples, deviations)
    fastest = max(row["per_second"] for row in found if row["lane"] == SHM)
    return {
        "title": ", ".join(n.title for n in subject.networks),
        "note": f"At the best rate over shared memory {STUDY} slices take {STUDY / fastest:.1f} s.",
        "study_seconds": STUDY / fastest,
        "server": served,
        "batching": {
            "model": counted,
            "inferences": after.inferences - before.inferences,
            "executions": after.executions - before.executions,
        },
        "rows": found,
    }


def _in_process(
    subject: Subject, runs: Mapping[str, Run], slices: Sequence[Arrays], batch: int
) -> Task:
    def task(number: int) -> list[Arrays]:
        chosen = [slices[(number * batch + k) % len(slices)] for k in range(batch)]
        given = {name: np.concatenate([c[name] for c in chosen]) for name in chosen[0]}
        return [runs[n.model](subject.network_inputs(n, given)) for n in subject.networks]

    return task


def _served(subject: Subject, client: Client, slices: Sequence[Arrays]) -> Task:
    def task(number: int) -> Mapping[str, Any]:
        return client.infer(subject.model, slices[number % len(slices)], subject.outputs).outputs

    return task


def _deviations(ways: Mapping[str, Task]) -> dict[str, tuple[int, float]]:
    """By lane, mask pixels that differ from ONNX Runtime's and the largest other difference."""
    answers = {lane: _flat(task(0)) for lane, task in ways.items()}
    found = {}
    for lane, given in answers.items():
        pixels, largest = 0, 0.0
        for a, b in zip(given, answers[IN_PROCESS], strict=True):
            if a.dtype == np.uint8:
                pixels += int((a != b).sum())
            else:
                largest = max(largest, float(np.abs(a.astype(float) - b).max()))
        found[lane] = (pixels, largest)
    return found


def _flat(answer: Any) -> list[np.ndarray]:
    """What all lanes give, in one order: masks where there are any, else every number."""
    if isinstance(answer, list):
        if len(answer) > 1:
            return [part["mask"] for part in answer]
        return [answer[0][name] for name in ("probability", "logit", "cam")]
    return [np.asarray(array) for array in answer.values()]
