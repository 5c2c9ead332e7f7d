"""TensorRT on this machine's GPU: the `Builder` of production.

Not yet run on a GPU (docs/how-to/own-network.md): everything here and `vendor.run`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hilum.catalog.errors import ExportError

from .build import Machine, Tried
from .plan import OPTIMISATION_LEVEL, Engine
from .supervise import Limits, Outcome, run_worker
from .vendor import Order

MODULE = "tensorrt"

OLDEST = (10, 12)
"""TensorRT before this does not build strongly typed networks as it should."""

_QUERY = "name,compute_cap,driver_version"

_WHERE = (
    "build engines in the container that serves them, on the GPU that runs them: "
    "nvcr.io/nvidia/tritonserver:26.07-py3 or newer with its TensorRT Python package "
    "(docs/how-to/own-network.md)"
)


class TensorRT:
    """Builds for the GPU of this machine, and runs what it has built there.

    Parameters
    ----------
    limits
        Of each build.
    cache
        Folder of the timing caches; made if it is not there.
    """

    def __init__(self, limits: Limits, cache: Path) -> None:
        self._limits, self._cache = limits, cache
        self._machine: Machine | None = None

    def machine(self) -> Machine:
        """Versions and the GPU; see `Builder`."""
        if self._machine is None:
            outcome = run_worker({"probe": [MODULE, "cupy"]}, self._limits)
            found = outcome.result or {}
            version: str | None = found.get(MODULE)
            if not version:
                why = f" ({outcome.problem})" if outcome.problem else ""
                raise ExportError(f"TensorRT is not installed here{why}; {_WHERE}")
            if tuple(int(p) for p in version.split(".")[:2]) < OLDEST:
                oldest = ".".join(map(str, OLDEST))
                raise ExportError(f"TensorRT {version} is older than {oldest}; {_WHERE}")
            if not found["cupy"]:
                raise ExportError(
                    "CuPy is not installed here, so engines cannot be compared with their ONNX "
                    "files; pip install 'hilum[gpu]'"
                )
            self._machine = Machine(version, *_gpu())
        return self._machine

    def build(self, engine: Engine, onnx: Path, plan: Path) -> Outcome:
        """Build one engine; see `Builder`."""
        machine = self.machine()
        self._cache.mkdir(parents=True, exist_ok=True)
        name = f"timing-{machine.gpu}-{machine.tensorrt}.cache".replace(" ", "-").replace("/", "-")
        order = Order(
            module=MODULE,
            onnx=str(onnx),
            plan=str(plan),
            profiles=[p.as_json() for p in engine.profiles],
            tf32=engine.tf32 == "on",
            level=OPTIMISATION_LEVEL,
            timing_cache=str(self._cache / name),
        )
        return run_worker(asdict(order), self._limits)

    def run(self, plan: Path, reference: Path, prefix: str) -> Tried | None:
        """Outputs for the stored inputs, and the memory that took; see `Builder`."""
        with tempfile.TemporaryDirectory(prefix="hilum-engine-") as folder:
            outputs = Path(folder) / "outputs.npz"
            order = {
                "module": MODULE,
                "plan": str(plan),
                "inputs": str(reference),
                "prefix": prefix,
                "outputs": str(outputs),
            }
            outcome = run_worker(order, self._limits)
            if outcome.result is None:
                raise ExportError(f"the engine does not run: {outcome.problem}")
            with np.load(outputs) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return Tried(arrays, outcome.result["context_bytes"])


def timing_folder() -> Path:
    """The user's folder of timing caches: ``$XDG_CACHE_HOME/hilum`` or ``~/.cache/hilum``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "hilum"


def _gpu() -> tuple[str, str, str]:
    """Name, compute capability and driver of this machine's GPUs, which must be alike."""
    program = shutil.which("nvidia-smi")
    if program is None:
        raise ExportError(f"there is no NVIDIA GPU here (no nvidia-smi); {_WHERE}")
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        reply = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as failed:
        raise ExportError(f"nvidia-smi reports no GPU ({failed}); {_WHERE}") from failed
    return parse_gpus(reply.stdout)


def parse_gpus(text: str) -> tuple[str, str, str]:
    """Name, compute capability and driver from the lines that ``nvidia-smi`` writes.

    Raises
    ------
    ExportError
        When there is no GPU, or there are different ones: an engine fits one kind only.
    """
    kinds = {tuple(part.strip() for part in line.split(",")) for line in text.splitlines() if line}
    if len(kinds) != 1 or len(kind := next(iter(kinds))) != len(_QUERY.split(",")):
        names = ", ".join(sorted(" ".join(k) for k in kinds)) or "no GPU"
        raise ExportError(
            f"nvidia-smi reports {names}; an engine fits one kind of GPU: build in a "
            "container that sees only that kind (docker run --gpus)"
        )
    name, capability, driver = kind
    return name, capability, driver
