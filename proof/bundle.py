"""What a GPU machine without package registries needs for the proof, in parts that can be carried.

`python -m hilum.proof.bundle pack --out DIR [--have FILE]` on a machine with registries writes the
parts and `unpack.py`, which puts them together on the other. Inside are Triton (from its wheel,
without what other Pythons need), this checkout, and wheels for the other machine's Python.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import importlib.metadata
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement

from hilum.catalog.errors import HilumError, InputError

from .unpack import MANIFEST

PART_BYTES = 60 << 20

PRESET = 3
"""Of xz: higher ones take three times as long for a tenth less."""

PYTHON = "3.12"

ROOT = Path(__file__).resolve().parents[1]

TRITON = "nvidia-pytriton"

PACKAGES = (
    TRITON, "array-api-compat", "array-api-strict", "cupy-cuda13x", "filelock", "grpcio", "h5py",
    "msgspec", "nibabel", "numpy", "nvidia-ml-py", "onnx", "onnxruntime", "onnxscript",
    "opencv-python-headless", "pillow", "prometheus-client", "protobuf", "pydicom", "pyjpegls",
    "pylibjpeg", "pylibjpeg-openjpeg", "pytest", "rich", "safetensors", "scipy",
    "segmentation-models-pytorch", "tritonclient", "typer",
)  # fmt: skip
"""Of the proof: client, server, export, tests; what they need comes along."""

NEVER = ("torch", "torchvision")
"""A build for a GPU has gigabytes, and such machines have one."""

LEFT_OUT = ("docs/", "docker/", ".ci/")
"""Folders of the checkout that the proof does not need."""

_OF_OTHER_PYTHONS = re.compile(
    r"nvidia_pytriton\.libs/libpython|pytriton/tritonserver/python_backend_stubs/(?!{python}/)"
    .replace("{python}", re.escape(PYTHON))
)  # fmt: skip

_PROGRAMS = re.compile(r"pytriton/tritonserver/(bin|python_backend_stubs)/")
"""Wheels keep no permissions of files that are not scripts."""


def pack(
    out: Path, have: Collection[str], *, libpython: Path | None = None, part_bytes: int = PART_BYTES
) -> Path:
    """Write the bundle into a new folder; gives its manifest.

    Parameters
    ----------
    have
        Names of packages that the other machine has: they are not packed.
    libpython
        ``libpython3.12.so.1.0`` for a machine that lacks it: Triton's Python steps load it.

    Raises
    ------
    InputError
        For a folder with other files, or a package that cannot be had for that Python.
    """
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} holds other files; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hilum-bundle-") as name:
        wheels, tree = Path(name) / "wheels", Path(name) / "tree"
        packed = _collect({_plain(name) for name in (*have, *NEVER)}, wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            install(wheel, tree / "site")
        if libpython is not None:
            target = tree / "site" / "nvidia_pytriton.libs" / f"libpython{PYTHON}.so.1.0"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(libpython, target)
        _checkout(tree / "hilum")
        _registered(tree / "site")
        with _Parts(out, part_bytes) as parts:
            stream: Any = parts  # lzma asks for no more than `write`
            with (
                lzma.open(stream, "wb", preset=PRESET) as squeezed,
                tarfile.open(fileobj=squeezed, mode="w|") as archive,
            ):
                for entry in sorted(tree.iterdir()):
                    archive.add(entry, entry.name)
    shutil.copy(Path(__file__).with_name("unpack.py"), out)
    manifest = out / MANIFEST
    manifest.write_text(json.dumps({"python": PYTHON, "packages": packed, "parts": parts.made}))
    return manifest


def _collect(have: Collection[str], folder: Path) -> list[str]:
    """Wheels of `PACKAGES` and of what they need, but for those that are there; their names."""
    packed = dict[str, None]()
    more = [name for name in PACKAGES if _plain(name) not in have]
    while more:
        _download(more, folder)
        packed |= dict.fromkeys(map(_plain, more))
        needed = {n for wheel in folder.glob("*.whl") for n in _needed(wheel)}
        more = sorted(needed - set(packed) - set(have))
    return sorted(packed)


def _needed(wheel: Path) -> Iterator[str]:
    """Names of what a wheel needs on the other machine; of Triton's only the server is used."""
    if _plain(wheel.name.partition("-")[0]) == TRITON:
        return
    with zipfile.ZipFile(wheel) as held:
        name = next(n for n in held.namelist() if n.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(held.read(name))
    there = {
        "python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": "",
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
    }  # fmt: skip
    for line in about.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(there):
            yield _plain(requirement.name)


def _download(names: Iterable[str], folder: Path) -> None:
    """Wheels for the other Python, in the versions of ``constraints.txt``."""
    pinned = _pins()
    platforms = [f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17)]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp",
        *(f"--platform={p}" for p in platforms), f"--dest={folder}",
        *(pinned.get(_plain(name), name) for name in names),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"not all wheels for Python {PYTHON} can be had: {done.stderr[-600:]}")


def _pins() -> dict[str, str]:
    lines = [
        line for file in ("constraints.txt", "constraints/cupy.txt")
        for line in (ROOT / file).read_text().splitlines() if "==" in line
    ]  # fmt: skip
    return {_plain(line.partition("==")[0]): line.split("#")[0].strip() for line in lines}


def install(wheel: Path, site: Path) -> None:
    """Unpack a wheel as pip would for ``--target``, without what other Pythons need."""
    with zipfile.ZipFile(wheel) as held:
        for item in held.infolist():
            place = _place(item.filename)
            if place is None or item.is_dir() or _OF_OTHER_PYTHONS.match(place):
                continue
            target = site / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(held.read(item))
            if _PROGRAMS.match(place):
                target.chmod(0o755)


def _place(name: str) -> str | None:
    """Where a wheel's file goes; None for scripts, headers and data beside the packages."""
    parts = PurePosixPath(name).parts
    if not parts[0].endswith(".data"):
        return name
    return str(PurePosixPath(*parts[2:])) if parts[1] in ("purelib", "platlib") else None


def _checkout(target: Path) -> None:
    """Copy the tracked files of the checkout, with the links of `hilum/`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if name.startswith(LEFT_OUT) or not (source.is_file() or source.is_symlink()):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / name, follow_symlinks=False)


def _registered(site: Path) -> None:
    """What `importlib.metadata` finds of Hilum: its version and its systems."""
    found = importlib.metadata.distribution("hilum")
    folder = site / f"hilum-{found.version}.dist-info"
    folder.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (folder / name).write_text(found.read_text(name) or "")


class _Parts:
    """A file to write to that is cut into parts.

    Attributes
    ----------
    made
        Name, bytes and sha256 of each part that is whole.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._file: Any = None
        self._left, self._digest = 0, hashlib.sha256()
        self.made: list[dict[str, Any]] = []

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def write(self, data: bytes) -> int:
        """Write on, in as many parts as it takes."""
        view = memoryview(data)
        while view:
            if self._left == 0:
                self._end()
                name = f"hilum-gpu.tar.xz.{len(self.made):02d}"
                self._file = (self._folder / name).open("wb")
                self._left, self._digest = self._most, hashlib.sha256()
            piece = view[: self._left]
            self._file.write(piece)
            self._digest.update(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
        return len(data)

    def _end(self) -> None:
        if self._file is None:
            return
        file = Path(self._file.name)
        self._file.close()
        self._file = None
        size = file.stat().st_size
        self.made.append({"name": file.name, "bytes": size, "sha256": self._digest.hexdigest()})


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def names_in(text: str) -> Iterator[str]:
    """Names in what ``pip list --format=freeze`` printed, or one name a line."""
    for line in text.splitlines():
        if name := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip()):
            yield name[0]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hilum.proof.bundle", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("pack")
    command.add_argument("--out", type=Path, required=True, help="new folder for the parts")
    command.add_argument(
        "--have", type=Path, help="what `pip list --format=freeze` prints on the other machine"
    )
    command.add_argument("--without", action="append", default=[], help="package to leave out")
    command.add_argument(
        "--libpython", type=Path, help=f"a libpython{PYTHON}.so.1.0 for a machine without one"
    )
    chosen = parser.parse_args(arguments)
    have = [*chosen.without, *(names_in(chosen.have.read_text()) if chosen.have else ())]
    try:
        manifest = pack(chosen.out, have, libpython=chosen.libpython)
    except HilumError as fault:
        print(f"error: {fault}", file=sys.stderr)  # noqa: T201
        return 1
    for part in json.loads(manifest.read_text())["parts"]:
        print(f"{part['name']}: {part['bytes'] / 2**20:.1f} MiB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
