"""The environment in which a server runs."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

from hilum.catalog.errors import ServerError

from .gpus import ORDER

MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Keeps large buffers mapped between requests: a batch of 42 MB costs a third with these."""

LARGE_PAGES = "glibc.malloc.hugetlb"
"""Tunable of the GNU C library: large pages, where the system grants them, save a tenth of what a
network without an arena needs."""

_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Threads of libraries under Python steps; ONNX Runtime's own are set for each network."""


def server_environment(binary: Path) -> dict[str, str]:
    """The environment for the ``tritonserver`` at `binary`: this process's, and what it needs.

    PATH begins with this interpreter's folder, so that the interpreter inside the Python backend
    finds this environment's packages, Hilum among them.

    Raises
    ------
    ServerError
        When the Python backend of the wheel would not find the shared library of this Python.
    """
    environment = dict(os.environ)
    environment.update(MALLOC)
    tunables = environment.get("GLIBC_TUNABLES", "")
    if LARGE_PAGES not in tunables:
        environment["GLIBC_TUNABLES"] = _joined(tunables, f"{LARGE_PAGES}=1")
    environment.setdefault(*ORDER)  # else a GPU's number is not that by which it was measured
    for name in _ONE_THREAD:
        environment.setdefault(name, "1")
    environment["PATH"] = _joined(str(Path(sys.executable).parent), environment.get("PATH"))
    root = binary.parent.parent
    if (root / "python_backend_stubs").is_dir():
        libraries = root.parents[1] / "nvidia_pytriton.libs"
        environment["LD_LIBRARY_PATH"] = _joined(
            str(libraries), _libpython_folder(libraries), environment.get("LD_LIBRARY_PATH")
        )
    return environment


def _joined(*parts: str | None) -> str:
    return ":".join(part for part in parts if part)


def _libpython_folder(bundled: Path) -> str | None:
    """Folder of this Python's shared library; None where the loader finds it by itself."""
    major, minor = sys.version_info[:2]
    if any(bundled.glob(f"libpython{major}-*.{minor}.so*")):
        return None  # the wheel brings its own
    name = f"libpython{major}.{minor}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for candidate in (bundled, folder, folder / multiarch, Path(sys.base_prefix) / "lib"):
        if (candidate / name).exists():
            return str(candidate)
    try:
        ctypes.CDLL(name)
    except OSError:
        raise ServerError(
            f"The Python backend needs {name}, which this Python ({sys.executable}) does not "
            f"have. Install it (Debian, Ubuntu: `apt install libpython{major}.{minor}`), or use a "
            "Python that was built with --enable-shared."
        ) from None
    return None
