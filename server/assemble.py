"""The backend folder for a server that lacks an ``onnxruntime`` backend."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ..catalog.errors import ServerError
from .find import ServerBinary
from .machine import gpus

OURS = Path(__file__).resolve().parent / "backends"
"""Hilum's Python-based backends."""

_STUB = "triton_python_backend_stub"


def assemble_backends(found: ServerBinary, target: Path) -> Path | None:
    """Fill `target` with the server's backends and ours.

    Returns
    -------
    The folder for ``--backend-directory``, or None when the server is to use its own.

    Raises
    ------
    ServerError
        When the server has no Python backend for this Python.
    """
    if not found.needs_backends or found.backends is None:
        return None
    target.mkdir()
    for backend in found.backends.iterdir():
        if backend.is_dir() and backend.name != "python":
            (target / backend.name).symlink_to(backend)
    if found.kind == "wheel":
        _copy_python(found, target / "python")
    elif (found.backends / "python").is_dir():
        shutil.copytree(found.backends / "python", target / "python")
    else:
        raise ServerError(
            f"{found.binary} has neither an onnxruntime nor a Python backend; use the container "
            "nvcr.io/nvidia/tritonserver:26.07-py3 or `pip install 'hilum[server]'`"
        )
    for backend in OURS.iterdir():
        if (backend / "model.py").is_file() and not (target / backend.name).exists():
            _copy(backend, target / backend.name)
    return target


def networks_use_gpus(found: ServerBinary) -> bool:
    """Whether ONNX networks would run on a GPU of this machine under `found`."""
    if gpus() == 0:
        return False
    if not found.needs_backends:
        return True
    import onnxruntime  # takes a while; only our backend runs on this one

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


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
