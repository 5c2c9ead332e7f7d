"""`hilum doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from ...catalog import SYSTEMS
from ...catalog.errors import HilumError
from .console import Exit, default_repository, errors_to_exit_codes, out

CVE_FLOOR = (2, 71)
"""Triton older than this (26.07) has published critical vulnerabilities."""

SHM_FLOOR = 512 << 20
"""Free bytes of /dev/shm under which Triton's Python processes run short."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


COLOURS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "bold red"}


@dataclass(frozen=True, slots=True)
class Line:
    """One finding: what it is, why it matters, what to do."""

    level: Level
    what: str
    why: str = ""
    remedy: str = ""


def doctor(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check versions, server, repository, weights and memory; tell what to do about the rest."""
    with errors_to_exit_codes():
        lines = [
            *_packages(),
            *_server(),
            *_shared_memory(),
            *_gpu(),
            *_weights(),
            *_repository(repository or default_repository()),
        ]
    if as_json:
        out.print(json.dumps([asdict(line) for line in lines], indent=2), markup=False)
    else:
        for line in lines:
            out.print(f"{line.level:8}", style=COLOURS[line.level], end="")
            out.print("; ".join(t for t in (line.what, line.why, line.remedy) if t), markup=False)
    if any(line.level is Level.PROBLEM for line in lines):
        raise typer.Exit(Exit.STUDY_FAILED)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _packages() -> Iterator[Line]:
    core = ("hilum", "tritonclient", "grpcio", "numpy", "opencv-python-headless", "pydicom")
    found = ", ".join(f"{name} {_version(name)}" for name in core)
    yield Line(Level.OK, f"Python {platform.python_version()}, {found}")
    missing = [p for p in ("torch", "onnx", "onnxscript", "onnxruntime") if not _version(p)]
    missing += [p for p in ("segmentation_models_pytorch",) if not importlib.util.find_spec(p)]
    if missing:
        yield Line(
            Level.NOTE,
            f"no {', '.join(missing)}",
            "`hilum export` needs them, a client does not",
            "`make install` in a checkout installs them",
        )
    else:
        yield Line(Level.OK, f"export: torch {_version('torch')}, onnx {_version('onnx')}")


def _server() -> Iterator[Line]:
    from ...server.find import find_server

    try:
        found = find_server()
    except HilumError as error:
        yield Line(Level.PROBLEM, "no Triton server on this machine", remedy=str(error))
        return
    yield Line(Level.OK, found.describe())
    number = tuple(int(p) for p in (found.version or "").split(".")[:2] if p.isdigit())
    if number and number < CVE_FLOOR:
        yield Line(
            Level.NOTE,
            f"Triton {found.version} is older than 2.71 (26.07)",
            "it has published critical vulnerabilities",
            "use it on this machine's loopback only; in production run the container "
            "nvcr.io/nvidia/tritonserver:26.07-py3 or newer",
        )


def _shared_memory() -> Iterator[Line]:
    folder = Path("/dev/shm")  # noqa: S108 - looked at, not written
    if not folder.is_dir():
        yield Line(Level.NOTE, "no /dev/shm", "tensors travel over gRPC, which is slower")
        return
    free = shutil.disk_usage(folder).free
    if free < SHM_FLOOR:
        yield Line(
            Level.PROBLEM,
            f"{folder} has {free >> 20} MiB free",
            "Triton's Python processes need about 128 MiB each",
            "start the container with --shm-size=2g, or free some",
        )
    else:
        yield Line(Level.OK, f"{folder} has {free >> 20} MiB free")


def _gpu() -> Iterator[Line]:
    if shutil.which("nvidia-smi") is None:
        yield Line(Level.NOTE, "no NVIDIA GPU found", "networks run on the CPU, slowly")
    elif importlib.util.find_spec("cupy") is None:
        yield Line(
            Level.NOTE,
            "an NVIDIA driver, but no CuPy",
            "array work of the client runs on the CPU",
            "pip install 'hilum[gpu]'",
        )
    else:
        yield Line(Level.OK, f"NVIDIA driver and CuPy {_version('cupy-cuda13x') or ''}".strip())


def _weights() -> Iterator[Line]:
    from ...export.store import list_store, store_folder

    have = {(card.system, card.network) for card in list_store()}
    for system in SYSTEMS.values():
        missing = [n.name for n in system.networks if (system.name, n.name) not in have]
        if not missing:
            yield Line(Level.OK, f"{system.name}: all weights are in the store")
            continue
        yield Line(
            Level.NOTE,
            f"{system.name}: no weights of {', '.join(missing)}",
            f"none in {store_folder()}",
            f"`hilum weights import {system.name} DIR`, or export with --weights random",
        )


def _repository(repository: Path) -> Iterator[Line]:
    from ...export.check import check_repository

    if not repository.is_dir():
        yield Line(
            Level.NOTE, f"no model repository at {repository}", remedy="`hilum export` makes one"
        )
        return
    findings = check_repository(repository)
    for finding in findings:
        yield Line(
            Level.PROBLEM if finding.severity == "error" else Level.NOTE,
            f"{finding.model}: {finding.what}" if finding.model else finding.what,
            finding.why,
            finding.remedy,
        )
    if not findings:
        yield Line(Level.OK, f"{repository} is complete and agrees with its certificates")
