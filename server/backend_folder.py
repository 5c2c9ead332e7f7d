"""The backend folder for a server that needs backends of ours."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from hilum.catalog.errors import ServerError

from .binary import ServerBinary
from .machine import gpus
from .runtime_repository import Resources, Runtime

OURS = Path(__file__).resolve().parent / "backends"
"""Hilum's Python-based backends."""

VARIABLE = "HILUM_NETWORKS"
"""Environment variable that names what computes ONNX networks: onnxruntime or pytorch."""

_STUB = "triton_python_backend_stub"


def assemble_backends(
    found: ServerBinary, target: Path, needed: Collection[str] = ()
) -> Path | None:
    """Fill `target` with the server's backends and ours.

    Returns
    -------
    The folder for ``--backend-directory``, or None when the server is to use its own.

    Raises
    ------
    ServerError
        When the server has no Python backend for this Python.
    """
    ours = [name for name in found.python_backends if found.needs_backends or name in needed]
    if not ours or found.backends is None:
        return None
    target.mkdir()
    for backend in found.backends.iterdir():
        if backend.is_dir() and backend.name not in ("python", *ours):
            (target / backend.name).symlink_to(backend)
    if found.kind == "wheel":
        _copy_python(found, target / "python")
    elif (found.backends / "python").is_dir():
        shutil.copytree(found.backends / "python", target / "python")
    else:
        raise ServerError(
            f"{found.binary} has no Python backend, in which {' and '.join(ours)} of Hilum run; "
            "use the container nvcr.io/nvidia/tritonserver:26.07-py3 or "
            "`pip install 'hilum[server]'`"
        )
    for name in ours:
        _copy(OURS / name, target / name)
    return target


def check_backends(found: ServerBinary, needed: Collection[str], folder: Path | None) -> None:
    """Refuse models whose backend the server lacks; `folder` is where it looks, None: unknown.

    Raises
    ------
    ServerError
    """
    if folder is None:
        return
    if "openvino" in needed and not find_spec("openvino"):
        raise ServerError(
            "the repository is exported for OpenVINO, which is not installed: "
            "pip install 'hilum[openvino]', or export it with `--target onnx`"
        )
    for backend in sorted(needed):
        if not (folder / backend).is_dir():
            raise ServerError(
                f"the repository needs the backend {backend!r}, which {found.describe()} does not "
                "have; serve it in the container nvcr.io/nvidia/tritonserver:26.07-py3, or export "
                "it with `--target onnx`"
            )


def networks_use_gpus(found: ServerBinary) -> bool:
    """Whether ONNX networks would run on a GPU of this machine under `found`."""
    if gpus() == 0:
        return False
    return _SEES_GPUS[network_runtime(found)](found)


def resources_for(
    found: ServerBinary, instances: int | None, threads: int | None, queue_delay_ms: float | None
) -> Resources:
    """What models under `found` may use on this machine, see `Resources.of_machine`."""
    fits = Resources.of_machine(instances, threads, networks_use_gpus(found), queue_delay_ms)
    return replace(fits, runtime=network_runtime(found))


def network_runtime(found: ServerBinary) -> Runtime:
    """What computes the repository's ONNX networks under `found`.

    The one that `VARIABLE` names; else ONNX Runtime, but PyTorch on a GPU that only PyTorch sees.

    Raises
    ------
    ServerError
        When the variable names none of the two, or one that is not installed.
    """
    named = os.environ.get(VARIABLE, "")
    if named == "pytorch" and not all(map(find_spec, ("torch", "onnx"))):
        raise ServerError(
            f"{VARIABLE}=pytorch: PyTorch or onnx is not installed; pip install 'hilum[export]', "
            "or leave the variable out"
        )
    if named:
        if named not in get_args(Runtime):
            raise ServerError(f"{VARIABLE}={named}: choose {' or '.join(get_args(Runtime))}")
        return cast("Runtime", named)
    if not found.needs_backends or gpus() == 0 or _onnxruntime_sees_gpus(found):
        return "onnxruntime"
    return "pytorch" if _pytorch_sees_gpus(found) else "onnxruntime"


def _onnxruntime_sees_gpus(found: ServerBinary) -> bool:
    if not found.needs_backends:
        return True
    if not find_spec("onnxruntime"):
        return False
    import onnxruntime  # takes a while; only our backend runs on this one

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _pytorch_sees_gpus(_found: ServerBinary) -> bool:
    if not all(map(find_spec, ("torch", "onnx"))):
        return False
    import torch  # takes seconds; only our backend runs on this one

    return torch.cuda.is_available()


_SEES_GPUS: Mapping[Runtime, Callable[[ServerBinary], bool]] = {
    "onnxruntime": _onnxruntime_sees_gpus,
    "pytorch": _pytorch_sees_gpus,
}


def _copy_python(found: ServerBinary, target: Path) -> None:
    """The wheel's Python backend with the stub for the running Python beside it."""
    root = found.binary.parent.parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / _STUB
    if not stub.is_file():
        raise ServerError(
            f"the nvidia-pytriton wheel has no Python backend for Python {version}; "
            "use Python 3.11 or 3.12"
        )
    _copy(root / "backends" / "python", target)
    shutil.copy(stub, target / _STUB)
    (target / _STUB).chmod(0o755)  # pip keeps no permissions of files that are not scripts


def _copy(folder: Path, target: Path) -> None:
    """Copy the files of a backend: Triton refuses those that links lead to (it is 3 MB)."""
    target.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, target / file.name)
