"""Exported repositories that several tests share, each made once and kept until code changes.

They lie under ``.pytest_cache``, by the content of what makes them: the rooms that an export reads,
with the reference weights, the tests' own helper modules, and the versions of the libraries. Where
several processes share the tests, one of them makes a repository for all. No test may write into
one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".pytest_cache" / "exports"

ROOMS = ("catalog", "preprocessing", "postprocessing", "export")
"""What an export reads; server and client work with what it has made."""

LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy", "segmentation-models-pytorch")

FIRST = next(
    line.split()
    for line in (ROOT / "docs/start/xray.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("hilum export ")
)
"""The first export that the manual shows: `lung` and `pspnet` with reference weights."""

ALL = (
    ("lung", "unet", "deeplabv3", "deeplabv3plus", "fpn"),
    ("manet", "unetplusplus", "pan", "linknet", "pspnet"),
)
"""Two halves of about the same work: tracing uses one core, so two processes are twice as fast."""


def cached(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills with a repository of this name, and whatever belongs to it."""
    folder = CACHE / name / _content()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            for old in folder.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)  # of one that failed
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills for all processes of this run of the tests."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder


@cache
def _content() -> str:
    digest = hashlib.sha256(sys.version.encode())
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    files += [f for f in (ROOT / "export" / "reference_weights").rglob("*") if f.is_file()]
    tests = ROOT / "tests"
    helpers = [file for file in tests.rglob("*.py") if not file.name.startswith("test_")]
    for file in sorted([*files, *helpers, *(tests / "golden").rglob("*.npz")]):
        digest.update(f"{file.relative_to(ROOT)} ".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(" ".join(version(library) for library in LIBRARIES).encode())
    return digest.hexdigest()[:16]


def as_shown(words: Sequence[str], folder: Path) -> str:
    """Run an export that a page shows, below `folder`; gives what it prints."""
    made, repository = shown(words), words[words.index("--repository") + 1]
    shutil.copytree(made / repository, folder / repository, dirs_exist_ok=True)
    return (made / "printed").read_text()


def shown(words: Sequence[str]) -> Path:
    """The folder in which an export ran that a page shows, with what it printed.

    One that several pages show is run for the first of them.
    """

    def make(made: Path) -> None:
        tools = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            words, cwd=made, env=os.environ | tools, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, (words, done.stderr)
        (made / "printed").write_text(done.stdout)

    return cached(f"shown-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:12]}", make)


def export_xrays(repository: Path, halves: Sequence[tuple[str, ...]]) -> None:
    """Export networks of X-rays with random weights into the new folder `repository`."""
    folders = [repository, repository.with_name("second-half")]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_export, folders, halves))
    for certificate in folders[1].glob("*/1/certificate.json"):
        model = certificate.parents[1].name
        certificate.parent.rename(repository / model / "1")


def _export(repository: Path, networks: tuple[str, ...]) -> None:
    import torch

    from hilum.catalog import SYSTEMS
    from hilum.export.repository import export_system

    torch.set_num_threads(1)
    export_system(SYSTEMS["cxr-severity"], repository=repository, networks=networks)
