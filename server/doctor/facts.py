"""Gather the facts that `checks` judges: server, GPUs, engines, shared memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hilum.catalog import SYSTEMS, Ensemble, Model, Network, PythonStep, System
from hilum.catalog.errors import ServerError

from .. import machine
from ..backend_folder import networks_use_gpus
from ..binary import ServerBinary, find_server
from ..gpus import devices
from ..runtime_repository import Resources
from .checks import Facts, Gpu, number
from .engines import PLAN, find_engines
from .gpu_memory import Need, shared_memory_need

_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/opt/tensorrt/lib")


def gather(
    repository: Path,
    host: str = "127.0.0.1",
    models: Iterable[str] | None = None,
    deep: bool = True,
) -> Facts:
    """The facts about this machine and the `repository`.

    Parameters
    ----------
    models
        Names of the Triton models to serve; None: all that the repository has.
    deep
        Read engines and ONNX files whole, for their checksums; otherwise it takes milliseconds.
    """
    found, facts = _machine()
    free = machine.shared_memory_free() if machine.SHM.is_dir() else None
    return replace(
        facts,
        tensorrt=facts.tensorrt if found and found.kind == "native" else None,
        host=host,
        shm_free=free,
        shm_need=_need(found, repository, models),
        engines=tuple(find_engines(repository, deep)),
        rebuild=f"hilum engines build --repository {repository}",
    )


def gather_machine() -> Facts:
    """The facts about server, GPUs and TensorRT: what building engines depends on."""
    return _machine()[1]


def _machine() -> tuple[ServerBinary | None, Facts]:
    gpus, unread = _gpus()
    try:
        found, missing = find_server(), ""
    except ServerError as error:
        found, missing = None, str(error)
    return found, Facts(
        server=found and found.describe(),
        triton=found and found.version,
        embedded=found is not None and found.kind == "wheel",
        server_missing=missing,
        tensorrt=tensorrt_version(),
        gpus=gpus,
        gpus_unread=unread,
    )


def tensorrt_version(folders: Iterable[str] = _LIBRARY_FOLDERS) -> str | None:
    """Version of the TensorRT that a container's server loads, None when there is none."""
    version = re.match(r"\d+(\.\d+){2,3}", os.environ.get("TRT_VERSION", ""))
    if version:
        return version[0]
    names = [file.name for folder in folders for file in Path(folder).glob("libnvinfer.so.*.*.*")]
    return max((name.partition(".so.")[2] for name in names), key=number, default=None)


def repository_models(repository: Path, models: Iterable[str] | None = None) -> list[Model]:
    """Declarations of what a repository can serve: exported networks, and the steps between them.

    Parameters
    ----------
    models
        Names to look at, with what they call; None: all.
    """
    wanted = None if models is None else set(_with_callees(models))
    found: list[Model] = []
    for system in SYSTEMS.values():
        there = [m for m in _exported(repository, system) if wanted is None or m.model in wanted]
        found += [model for model in there if model not in found]
    return found


def _exported(repository: Path, system: System) -> Iterator[Model]:
    networks = {n.model for n in system.networks if _has_file(repository / n.model / "1")}
    yield from (n for n in system.networks if n.model in networks)
    for ensemble in system.ensembles:
        called = [call.target for call in ensemble.calls]
        if all(isinstance(c, PythonStep) or c.model in networks for c in called):
            yield from (c for c in called if isinstance(c, PythonStep))


def _has_file(version: Path) -> bool:
    return any((version / name).is_file() for name in ("model.onnx", PLAN))


def _with_callees(models: Iterable[str]) -> Iterator[str]:
    ensembles = {e.model: e for s in SYSTEMS.values() for e in s.ensembles}
    for name in models:
        yield name
        if isinstance(found := ensembles.get(name), Ensemble):
            yield from (call.target.model for call in found.calls)


def _need(found: ServerBinary | None, repository: Path, models: Iterable[str] | None) -> Need:
    if found is None:
        return Need()
    served = repository_models(repository, models)
    in_python = found.needs_backends and any(isinstance(m, Network) for m in served)
    gpu = networks_use_gpus(found) if served else False
    return shared_memory_need(served, Resources.of_machine(gpu=gpu), in_python)


def _gpus() -> tuple[tuple[Gpu, ...], bool]:
    """The GPUs that a server would see, and whether there are some that nothing reports."""
    found = tuple(Gpu(d.name, d.capability, d.driver, d.memory_mib) for d in devices())
    return found, machine.gpus() > 0 and not found
