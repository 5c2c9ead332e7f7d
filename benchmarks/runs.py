"""The networks of a variant: PyTorch or a runtime in this process, and exports for the run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from hilum.catalog import Network, System
from hilum.export import openvino
from hilum.export.certificate import read_certificate
from hilum.export.job import Origin
from hilum.export.parity import Session
from hilum.export.recipes import all_inputs, recipe
from hilum.export.reference import load_reference
from hilum.export.repository import export_system
from hilum.export.store import load_weights

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
"""Served inputs to served outputs, with a batch axis."""

Progress = Callable[[str], None]


@contextmanager
def exported(
    system: System,
    networks: Sequence[str],
    repository: Path | None,
    weights: str,
    progress: Progress,
) -> Iterator[Path]:
    """A repository with the networks: the one that is given, or exported for the run."""
    with exported_all([(system, networks)], repository, weights, progress) as folder:
        yield folder


@contextmanager
def exported_all(
    wanted: Sequence[tuple[System, Sequence[str]]],
    repository: Path | None,
    weights: str,
    progress: Progress,
) -> Iterator[Path]:
    """Give a repository with networks of several systems, see `exported`."""
    if repository is not None:
        yield repository
        return
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        for system, networks in wanted:
            export_system(
                system,
                repository=Path(folder),
                networks=list(networks),
                weights=cast("Origin", weights),
                progress=lambda name, step: progress(f"export {name}: {step}"),
            )
        yield Path(folder)


def torch_core(system: System, network: Network, weights: str) -> torch.nn.Module:
    """The network in PyTorch with the weights that are exported."""
    how = recipe(system)
    if weights != "random":
        load = load_reference if weights == "reference" else load_weights
        tensors, _ = load(system.name, network.name)
        core = how.build(network, tensors)
        core.load_state_dict(tensors)
    else:
        core, _ = how.build_random(network, 0)
    return core


def torch_run(system: System, network: Network, weights: str) -> Run:
    """The network in PyTorch, eager, with what surrounds it in the served graph."""
    how, core = recipe(system), torch_core(system, network, weights)

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            given = all_inputs(how.core_input(network, network.sizes, inputs))
            return how.outputs(network, core(*given))

    return run


def served_run(network: Network, repository: Path, outputs: Sequence[str]) -> Run:
    """The served file in the runtime that serves it, with its defaults; FP16 where it is so."""
    file, halves = repository / network.model / "1" / "model.onnx", set[str]()
    certificate = read_certificate(repository / network.model) or {}
    if certificate.get("served_by") == "openvino":
        session: Session = openvino.Session(file.read_bytes(), network.name)
    else:
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        halves = {i.name for i in session.get_inputs() if i.type == "tensor(float16)"}

    def run(inputs: Arrays) -> Arrays:
        given = {n: a.astype(np.float16) if n in halves else a for n, a in inputs.items()}
        found: Any = session.run(list(outputs), given)
        return dict(zip(outputs, found, strict=True))

    return run
