"""CT-Angel and the CT classifier, slice by slice: PyTorch, ONNX Runtime and Triton, in one run.

Every variant runs the same networks with the same weights on the same prepared slices: (a) PyTorch,
one slice after the other, as published; (b) ONNX Runtime in this process, on the files that Triton
serves, with several batch sizes; (c) Triton over gRPC; (d) Triton over shared memory. Reading and
preparing slices is the same work in all and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.catalog import Network, System, ct_angel, ct_classifier
from hilum.client import Client
from hilum.export.certificate import as_exported, read_certificate
from hilum.export.recipes import as_declared
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.windows import ct_angel_window

from . import beside
from .beside import GRPC, PUBLISHED, RUNTIME, SHM, Plan
from .instrument.loops import Task
from .instrument.machine import machine
from .instrument.record import Deviation, Lane, Record, new_record
from .runs import Arrays, Progress, Run, exported, served_run, torch_run

SLICES = 8
"""Generated slices that the variants process in turn."""

STUDY = 200
"""Slices of the study whose duration is worked out."""


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


def measure(system: str, plan: Plan, progress: Progress) -> Record:
    """Measure all variants of one system."""
    before, subject = machine(), SUBJECTS[system]
    volume = chest_ct(7, slices=SLICES, size=512).volume.voxels
    slices = [subject.inputs(np.ascontiguousarray(s)) for s in volume]
    names = [n.name for n in subject.networks]
    with exported(subject.system, names, plan.repository, plan.weights, progress) as folder:
        slices = [_as_exported(subject, folder, given) for given in slices]
        found = _measure(subject, plan, folder, slices, progress)
    study = STUDY / beside.fastest(found).summary.per_second.value
    return new_record(
        system, f"{subject.system.title} beside its published procedure", plan.command(system),
        before, lanes=found, tables={"ratios": tuple(beside.ratios(found))},
        notes=(
            f"At the best rate through Triton {STUDY} slices take {study:.1f} s.",
            "Reading and preparing slices is left out of all.",
            *beside.NOTES,
        ),
    )  # fmt: skip


def _as_exported(subject: Subject, repository: Path, given: Arrays) -> Arrays:
    """Inputs in the element types of a repository, which engines have wider."""
    for network in subject.networks:
        certificate = read_certificate(repository / network.model)
        if certificate is not None:
            given = as_declared(as_exported(network, certificate), given)
    return given


def _measure(
    subject: Subject, plan: Plan, repository: Path, slices: Sequence[Arrays], progress: Progress
) -> tuple[Lane, ...]:
    networks = subject.networks
    eager = {n.model: torch_run(subject.system, n, plan.weights) for n in networks}
    sessions = {n.model: served_run(n, repository, [t.name for t in n.outputs]) for n in networks}
    with beside.served(repository, subject.model) as (over_grpc, over_shm):
        tasks: dict[str, Task] = {
            PUBLISHED: _in_process(subject, eager, slices, 1),
            RUNTIME: _in_process(subject, sessions, slices, 1),
            GRPC: _served(subject, over_grpc, slices),
            SHM: _served(subject, over_shm, slices),
        }
        return beside.lanes(
            plan, tasks, _deviations(tasks), over_shm, progress, part=subject.system.name,
            system=subject.system.name, unit="slice", models=tuple(n.model for n in networks),
            precision=beside.precision_of(repository, networks[0].model),
            batched=lambda batch: _in_process(subject, sessions, slices, batch),
        )  # fmt: skip


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


def _deviations(tasks: Mapping[str, Task]) -> dict[str, Deviation]:
    """How many mask pixels differ from ONNX Runtime's, and the largest difference of a number."""
    answers = {way: _flat(task(0)) for way, task in tasks.items()}
    found = {}
    for way, given in answers.items():
        differing, of, largest = 0, 0, 0.0
        for a, b in zip(given, answers[RUNTIME], strict=True):
            if a.dtype == np.uint8:
                differing += int((a != b).sum())
                of += a.size
            else:
                largest = max(largest, float(np.abs(a.astype(float) - b).max()))
        found[way] = Deviation(largest, differing, of, RUNTIME)
    return found


def _flat(answer: Any) -> list[np.ndarray]:
    """What all variants give, in one order: masks where there are any, else every number."""
    if isinstance(answer, list):
        if len(answer) > 1:
            return [part["mask"] for part in answer]
        return [answer[0][name] for name in ("probability", "logit", "cam")]
    return [np.asarray(array) for array in answer.values()]
