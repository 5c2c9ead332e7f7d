"""Reads a whole HDF5 file in a process of its own: a damaged one may crash the HDF5 library.

``python -m hilum.export.checkpoints.hdf5_probe FILE``; exit code 0 when everything could be read.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py

from hilum.catalog.errors import WeightsError

MAX_SECONDS = 120
MAX_MEMORY = 4 * 2**30
MAX_GROWTH = 16
"""Arrays may be so many times larger than the file."""


def check_readable(path: Path) -> None:
    """Make sure that a file can be read from end to end, in a child process with limits.

    Raises
    ------
    WeightsError
        When it cannot.
    """
    command = [sys.executable, "-m", __name__, str(path.absolute())]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=MAX_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{path}: takes over {MAX_SECONDS} s to read; is it damaged?") from None
    if done.returncode != 0:
        how = "crashes the HDF5 library" if done.returncode < 0 else "truncated or not an HDF5 file"
        raise WeightsError(f"{path}: {how}; download it again")


def probe(path: Path) -> None:
    """Read every attribute and array."""
    allowed = MAX_GROWTH * path.stat().st_size

    def visit(_name: str, found: Any) -> None:
        nonlocal allowed
        dict(found.attrs)
        if isinstance(found, h5py.Dataset) and not (found.external or found.is_virtual):
            allowed -= found.nbytes
            if allowed < 0:
                raise ValueError("arrays larger than the file")
            found[()]

    with h5py.File(path, "r") as file:
        dict(file.attrs)
        file.visititems(visit)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    probe(Path(sys.argv[1]))
