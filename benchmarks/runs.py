"""The networks of a lane: PyTorch or ONNX Runtime in this process, and exports for the run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ..catalog import Network, System
from ..export.recipes import recipe
from ..export.repository import export_system
from ..export.store import load_weights

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
"""Served inputs to served outputs, with a batch axis."""

Progress = Callable[[str], None]


def versions() -> dict[str, str]:
    """What the lanes in this process run on."""
    return {"torch": torch.__version__, "onnxruntime": ort.__version__}


@contextmanager
def exported(
    system: System,
    networks: Sequence[str],
    repository: Path | None,
    weights: str,
    progress: Progress,
) -> Iterator[Path]:
    """A repository with the networks: the one that is given, or exported for the run."""
    if repository is not None:
        yield repository
        return
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        export_system(
            system,
            repository=Path(folder),
            networks=list(networks),
            weights=cast("Literal['random', 'store']", weights),
            progress=lambda name, step: progress(f"export {name}: {step}"),
        )
        yield Path(folder)


def torch_run(system: System, network: Network, weights: str) -> Run:
    """The network in PyTorch, eager, with what surrounds it in the served graph."""
    how = recipe(system)
    if weights == "store":
        core = how.build(network)
        core.load_state_dict(load_weights(system.name, network.name)[0])
    else:
        core, _ = how.build_random(network, 0)

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return how.outputs(network, core(how.core_input(network, network.sizes, inputs)))

    return run


def onnx_run(network: Network, repository: Path, outputs: Sequence[str]) -> Run:
    """The served file in ONNX Runtime, with its defaults."""
    session = ort.InferenceSession(
        repository / network.model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )

    def run(inputs: Arrays) -> Arrays:
        found: Any = session.run(list(outputs), inputs)
        return dict(zip(outputs, found, strict=True))

    return run
