"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.server.launcher import TritonServer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for helper modules that several rooms share

# A shell's background job ignores Ctrl-C, and so would the programs that tests start from it.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = ("test_readme.py", "test_certificates.py", "test_real_xrays.py", "test_ct_full_size.py")
"""Files that take minutes: the last of them would keep one process busy while the other rests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others keep their order."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


STANDINS = {"manet": (544, 0.9), "fpn": (384, 0.9), "pan": (544, 0.5), "linknet": (544, 0.2)}
"""Stage II stand-ins: input side and image-level probability, by the network they replace."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """The synthetic golden files that are part of the project."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real images and published tables, if it is there."""
    folder = Path(os.environ.get("HILUM_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no folder with real images and published tables beside the checkout")
    return folder


@pytest.fixture(scope="session")
def standin_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that serves analytic stand-ins through `--onnx`: small, quick, exact."""
    import standins
    from hilum.export.repository import export_system

    folder = tmp_path_factory.mktemp("standins")
    files = {"lung": standins.write_lung(folder / "lung.onnx")}
    for name, (side, cls) in STANDINS.items():
        files[name] = standins.write_disease(folder / f"{name}.onnx", side, cls)
    repository = folder / "repository"
    export_system(SYSTEMS["cxr-severity"], repository=repository, onnx=files)
    return repository


@pytest.fixture(scope="session")
def standin_server(standin_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with the ensembles of all stand-ins."""
    models = [cxr.ENSEMBLES[name].model for name in STANDINS]
    with TritonServer(standin_repository, models=models) as server:
        yield server


@pytest.fixture(scope="session")
def exported_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with all ten networks of the X-ray system and random weights (minutes).

    Where several processes share the tests, one of them exports for all.
    """
    import exports

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes
    repository = folder / "exported-repository"
    with FileLock(folder / "exported-repository.lock"):
        if not repository.is_dir():
            made = tmp_path_factory.mktemp("exported") / "repository"
            exports.export_all(made)
            made.rename(repository)
    return repository
