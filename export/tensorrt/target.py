"""What an export for TensorRT writes beyond one for ONNX Runtime: build plan and references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hilum.catalog import Network, System

from ..certificate import MODEL_FILE, read_certificate, sha256_of
from ..recipes import Recipe
from .plan import ENGINE_FILE, FINGERPRINT_FILE, REFERENCE_FILE, engine_of, read_plan, write_plan
from .reference import write_reference

Target = Literal["onnx", "openvino", "tensorrt"]
"""What serves the networks: ONNX Runtime, OpenVINO, or engines built from the same files."""


def update_plan(
    repository: Path, system: System, certificates: Sequence[Mapping[str, Any]], target: Target
) -> None:
    """Put exported networks into the build plan, or take them out of it.

    Parameters
    ----------
    system
        At the precision of the export.
    """
    engines = read_plan(repository)
    for found in certificates:
        network = system.network(found["network"])
        if target != "tensorrt":
            engines.pop(network.model, None)
            continue
        engine, kept = engine_of(system.name, network, found), engines.get(network.model)
        same_file = kept is not None and kept.onnx_sha256 == engine.onnx_sha256
        if kept is None or not same_file or kept.flags != engine.flags:
            engines[network.model] = engine  # else what is known of the engine still holds
    write_plan(repository, engines)


def prepare_engine(
    recipe: Recipe,
    network: Network,
    sizes: Mapping[str, int],
    staged: Path,
    old: Path,
    seed: int,
) -> None:
    """Put beside a staged network what its engine is compared with, and the engine it has.

    Parameters
    ----------
    staged, old
        Version folders: the new one, and the one that it replaces, if there is one. The engine is
        kept when both hold the same ONNX file.
    """
    served = staged / MODEL_FILE
    write_reference(staged / REFERENCE_FILE, served, recipe.samples(network, sizes, seed))
    before = read_certificate(old.parent)
    same = before is not None and before["file"]["sha256"] == sha256_of(served)
    files = [old / name for name in (ENGINE_FILE, FINGERPRINT_FILE)]
    if same and all(file.is_file() for file in files):
        for file in files:
            (staged / file.name).hardlink_to(file)
