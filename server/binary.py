"""Which Triton server there is, and what it needs from us."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import mmap
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hilum.catalog.errors import ServerError

from .environment import server_environment

Kind = Literal["wheel", "native"]

VARIABLE = "HILUM_TRITONSERVER"
"""Environment variable that names the ``tritonserver`` to run."""

_WHEEL_VERSIONS = {"0.7.0": "2.51.0", "0.6.0": "2.51.0", "0.5.14": "2.50.0"}
"""Triton inside the releases of nvidia-pytriton."""

_REMEDY = (
    "Install the one for this machine's own use with `pip install 'hilum[server]'`, run Hilum in "
    f"the container nvcr.io/nvidia/tritonserver:26.07-py3, or set {VARIABLE} to a tritonserver; "
    "or use a server that runs elsewhere with --url HOST:PORT."
)


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A ``tritonserver`` on this machine.

    Attributes
    ----------
    version
        Triton's version (``"2.51.0"``), None when it is unknown without starting it.
    kind
        ``"wheel"``: the one inside nvidia-pytriton, which brings the Python backend only.
        ``"native"``: a container's or one's own installation.
    backends
        The folder of its own backends, None when it is not where installations keep it.
    needs_backends
        It has no ``onnxruntime`` backend: ours must be given to it in an own backend folder.
    """

    binary: Path
    version: str | None
    kind: Kind
    backends: Path | None
    needs_backends: bool

    @property
    def python_backends(self) -> tuple[str, ...]:
        """Backends of Hilum's that run in Python beside this server's own.

        ``openvino`` always: a container's computes in bfloat16 unasked where the processor can, the
        coordinates around a network as well, and has no parameter against it. ``pytorch`` where
        it is asked for: a container's loads TorchScript.
        """
        ours = ("openvino", "pytorch")
        return ("onnxruntime", *ours) if self.needs_backends else ours

    def describe(self) -> str:
        """One human-readable line."""
        version = self.version or "of unknown version"
        where = "nvidia-pytriton wheel" if self.kind == "wheel" else "installation"
        extra = " with Hilum's onnxruntime backend" if self.needs_backends else ""
        return f"tritonserver {version} ({where}{extra}) at {self.binary}"

    def has_flag(self, flag: str) -> bool:
        """Whether this server knows the command line option `flag`."""
        return flag in _help(self)

    def has_field(self, field: str) -> bool:
        """Whether this server knows the `field` of a model configuration; True in doubt.

        Triton refuses a ``config.pbtxt`` with a field that its version does not have. The
        protobuf descriptor inside its library lists them.
        """
        return _library_has(self, bytes([10, len(field)]) + field.encode())


def find_server() -> ServerBinary:
    """The server to start: `HILUM_TRITONSERVER`, else one on PATH, else the wheel's.

    Raises
    ------
    ServerError
        When there is none, or `HILUM_TRITONSERVER` names none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = shutil.which(named)
        if path is None:
            raise ServerError(f"{VARIABLE}={named} is not an executable file. {_REMEDY}")
        return inspect_server(Path(path))
    on_path = shutil.which("tritonserver")
    if on_path:
        return inspect_server(Path(on_path))
    for candidate in (_in_wheel(), Path("/opt/tritonserver/bin/tritonserver")):
        if candidate is not None and candidate.is_file():
            return inspect_server(candidate)
    raise ServerError(f"No tritonserver was found. {_REMEDY}")


def inspect_server(binary: Path) -> ServerBinary:
    """What the ``tritonserver`` at `binary` is, judged by the files around it."""
    binary = binary.resolve()
    root = binary.parent.parent
    backends = root / "backends" if (root / "backends").is_dir() else None
    if (root / "python_backend_stubs").is_dir():
        return ServerBinary(binary, _wheel_version(), "wheel", backends, needs_backends=True)
    version_file = root / "TRITON_VERSION"
    version = version_file.read_text().strip() if version_file.is_file() else None
    lacking = backends is not None and not (backends / "onnxruntime").is_dir()
    return ServerBinary(
        binary,
        version or os.environ.get("TRITON_SERVER_VERSION"),
        "native",
        backends,
        needs_backends=lacking,
    )


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec("pytriton")  # found, not imported: that takes a second
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "tritonserver" / "bin" / "tritonserver"


def _wheel_version() -> str | None:
    try:
        return _WHEEL_VERSIONS.get(importlib.metadata.version("nvidia-pytriton"))
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _library_has(found: ServerBinary, part: bytes) -> bool:
    root = found.binary.parent.parent
    folder = root.parents[1] / "nvidia_pytriton.libs" if found.kind == "wheel" else root / "lib"
    for library in folder.glob("libtritonserver*.so*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            return data.find(part) >= 0
    return True


@functools.cache
def _help(found: ServerBinary) -> frozenset[str]:
    try:
        shown = subprocess.run(
            [found.binary, "--help"],
            env=server_environment(found.binary),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise ServerError(f"{found.binary} cannot be run: {failure}. {_REMEDY}") from failure
    text = shown.stdout + shown.stderr
    if "--model-repository" not in text:
        raise ServerError(
            f"{found.binary} does not answer --help as a tritonserver does "
            f"(exit code {shown.returncode}): {text.strip()[:300]}. {_REMEDY}"
        )
    return frozenset(re.findall(r"^\s*(--[a-z0-9-]+)", text, re.MULTILINE))
