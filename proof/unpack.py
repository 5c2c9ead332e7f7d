"""Unpack a bundle: `python3 unpack.py FOLDER`, beside its parts; needs Python's own library alone.

Parts may come one after the other: nothing is unpacked before all are there and whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "bundle.json"

_CHUNK = 1 << 20

STARTER = """#!/bin/sh
exec "{python}" -c 'from hilum.cli import main; main()' "$@"
"""


class Parts(io.RawIOBase):
    """Files as one stream."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._open: Any = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, from the next file where one ends."""
        while True:
            if self._open is None:
                if not self._files:
                    return 0
                self._open = self._files.pop(0).open("rb")
            if count := self._open.readinto(buffer):
                return count
            self._open.close()
            self._open = None


def faults(folder: Path, manifest: Any) -> Iterator[str]:
    """What is wrong with the parts in a folder."""
    for part in manifest["parts"]:
        file = folder / part["name"]
        if not file.is_file():
            yield f"{part['name']} is not there yet"
        elif _sha256(file) != part["sha256"]:
            yield f"{part['name']} is damaged: bring it again"


def unpack(folder: Path, target: Path) -> Path:
    """Unpack the bundle in `folder` into `target`; gives the program `hilum`.

    Raises
    ------
    ValueError
        When parts are missing or damaged, or for another Python.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != here:
        raise ValueError(f"the bundle is for Python {manifest['python']}, this is {here}")
    if wrong := list(faults(folder, manifest)):
        raise ValueError("; ".join(wrong))
    stream = io.BufferedReader(Parts([folder / p["name"] for p in manifest["parts"]]), _CHUNK)
    with tarfile.open(fileobj=stream, mode="r|xz") as archive:
        archive.extractall(target, filter="tar")
    python = environment(target)
    program = target / "bin" / "hilum"
    program.parent.mkdir(exist_ok=True)
    program.write_text(STARTER.format(python=python))
    program.chmod(0o755)
    return program


def environment(target: Path) -> Path:
    """Make a virtual environment that sees the bundle first, then what this Python has.

    Triton's Python steps look at no PYTHONPATH, but at the environment whose interpreter comes
    first in PATH.
    """
    folder = target / "env"
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    theirs = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = [str(target / "hilum"), str(target / "site")]
    lines += [f"import site; site.addsitedir({path!r})" for path in theirs]
    own = folder / "lib" / version / "site-packages" / "hilum-bundle.pth"
    own.write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as held:
        while chunk := held.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def main() -> int:
    """One argument: the folder to unpack into."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    try:
        program = unpack(Path(__file__).resolve().parent, Path(sys.argv[1]).resolve())
    except (OSError, ValueError) as fault:
        print(f"error: {fault}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"unpacked; go on with: {program} bench gpu-proof --out FOLDER")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
