"""The build plan of a repository, ``engines.json``: which networks are to become engines, and how.

It lies at the root of the model repository and is all that `hilum engines build` reads: no torch,
no ONNX package and no weights store are needed on the machine with the GPU. It also states what
each network is served by, so that a configuration can always be written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hilum.catalog import Network
from hilum.catalog.errors import RepositoryError

from ..certificate import MODEL_FILE
from .profiles import Profile, profiles

PLAN_FILE, ENGINE_FILE, FINGERPRINT_FILE = "engines.json", "model.plan", "plan.json"
REFERENCE_FILE = "reference.npz"

OPTIMISATION_LEVEL = 4
"""How long TensorRT searches for kernels, 0 to 5: above 4 builds take hours for little."""

ENGINE_TYPES = frozenset({"BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32"})
"""Element types that TensorRT takes at an engine's border, by Triton's names."""

GRAPHS_FROM = 8
"""Networks with batches of this size and more are small enough per item that the launches of their
kernels count: CUDA graphs are switched on for them."""

ServedBy = Literal["tensorrt", "onnxruntime"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What one network's engine is built from.

    Attributes
    ----------
    onnx_sha256
        Of the ``model.onnx`` beside which the engine is put.
    served_by
        ``onnxruntime`` for a network that cannot be an engine, or whose engine failed.
    reason
        Why it is not served by TensorRT.
    failed_as
        Key of the machine and file for which the build failed: it is not tried again for these.
    graphs
        CUDA graphs are switched on.
    """

    system: str
    network: str
    model: str
    precision: str
    onnx_sha256: str
    profiles: tuple[Profile, ...]
    served_by: ServedBy = "tensorrt"
    reason: str = ""
    failed_as: str = ""
    graphs: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Everything about the build that is not the file or the machine, in words."""
        shapes = (
            f"{name} {_shape(r.least)} {_shape(r.usual)} {_shape(r.most)}"
            for profile in self.profiles
            for name, r in profile.inputs.items()
        )
        return ("strongly typed", f"level {OPTIMISATION_LEVEL}", f"tf32 {self.tf32}", *shapes)

    @property
    def tf32(self) -> str:
        """Whether FP32 products may be rounded to TF32: only where FP16 was asked for."""
        return "on" if self.precision == "fp16" else "off"

    def as_json(self) -> dict[str, Any]:
        """The entry of ``engines.json``."""
        return {
            "system": self.system,
            "network": self.network,
            "onnx": f"{self.model}/1/{MODEL_FILE}",
            "onnx_sha256": self.onnx_sha256,
            "precision": self.precision,
            "served_by": self.served_by,
            "reason": self.reason,
            "failed_as": self.failed_as,
            "cuda_graphs": self.graphs,
            "flags": list(self.flags),
            "profiles": [p.as_json() for p in self.profiles],
        }

    @classmethod
    def from_json(cls, model: str, entry: Mapping[str, Any]) -> Engine:
        """The reverse of `as_json`."""
        return cls(
            system=entry["system"],
            network=entry["network"],
            model=model,
            precision=entry["precision"],
            onnx_sha256=entry["onnx_sha256"],
            profiles=tuple(Profile.from_json(p) for p in entry["profiles"]),
            served_by=entry["served_by"],
            reason=entry["reason"],
            failed_as=entry["failed_as"],
            graphs=entry["cuda_graphs"],
        )


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def engine_of(system: str, network: Network, certificate: Mapping[str, Any]) -> Engine:
    """The engine of an exported network.

    Parameters
    ----------
    network
        As it was exported: at its precision.
    """
    sizes = {name: int(value) for name, value in certificate["sizes"].items()}
    foreign = [
        f"{t.name} is {t.dtype}"
        for t in (*network.inputs, *network.outputs)
        if t.dtype not in ENGINE_TYPES
    ]
    reason = f"{', '.join(foreign)}, a type that TensorRT does not take" if foreign else ""
    return Engine(
        system=system,
        network=network.name,
        model=network.model,
        precision=certificate["precision"],
        onnx_sha256=certificate["file"]["sha256"],
        profiles=profiles(network, sizes),
        served_by="onnxruntime" if foreign else "tensorrt",
        reason=reason,
        graphs=network.max_batch >= GRAPHS_FROM,
    )


def read_plan(repository: Path) -> dict[str, Engine]:
    """The engines of a repository by model, empty when it was not exported for TensorRT.

    Raises
    ------
    RepositoryError
        When ``engines.json`` is not a build plan.
    """
    file = repository / PLAN_FILE
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text("utf-8"))["engines"]
        return {model: Engine.from_json(model, entry) for model, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise RepositoryError(
            f"{file} is not a build plan ({broken}); write it again with `hilum export --target "
            f"tensorrt --repository {repository}`"
        ) from broken


def write_plan(repository: Path, engines: Mapping[str, Engine]) -> None:
    """Write ``engines.json`` in one step; without engines it is removed."""
    file = repository / PLAN_FILE
    if not engines:
        file.unlink(missing_ok=True)
        return
    plan = {
        "about": "What `hilum engines build` makes of this repository's networks. "
        "Written by `hilum export --target tensorrt`.",
        "timing_cache": "timing-<GPU>-<TensorRT>.cache in the folder of --cache",
        "engines": {model: engines[model].as_json() for model in sorted(engines)},
    }
    write_json(file, plan)


def refresh_plan(repository: Path) -> dict[str, Engine]:
    """Read the build plan, and write it again where its flags are not what would be built now.

    Its profiles may have been edited, or this Hilum builds with other flags than the one that
    exported; the server compares engines with the flags that are written there.
    """
    engines = read_plan(repository)
    if engines:
        entries = json.loads((repository / PLAN_FILE).read_text("utf-8"))["engines"]
        if any(entries[m].get("flags") != list(e.flags) for m, e in engines.items()):
            write_plan(repository, engines)
    return engines


def write_json(file: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old or the new file, never half of one."""
    temporary = file.with_name(f".{file.name}-{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(file)


def fall_back(engine: Engine, reason: str, key: str) -> Engine:
    """The same network served by ONNX Runtime, because its engine failed as `key`."""
    return replace(engine, served_by="onnxruntime", reason=reason, failed_as=key)


def restored(engine: Engine) -> Engine:
    """The same network served by its engine again."""
    return replace(engine, served_by="tensorrt", reason="", failed_as="")
