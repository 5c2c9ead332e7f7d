"""Fixtures that every room's tests share."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_pool import borrowed

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.server.launcher import TritonServer

pytest_plugins = ("servers",)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for helper modules that several rooms share

# A shell's background job ignores Ctrl-C, one of nohup also SIGHUP, and so would the programs that
# tests start from it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONGEST = (
    "test_readme.py", "test_gateway_round_trip.py", "test_how_to.py", "test_covid_mtl_command.py",
    "test_reference_weights.py", "test_training.py",
)  # fmt: skip
"""Files that take minutes: the last of them would keep one process busy while the other rests."""


SERVERS = (
    "dlpe_server", "mtl_server", "desk_server", "standin_server", "ct_server", "angel_server",
    "chest_server",
)  # fmt: skip
"""Shared servers, the slowest to start first. Files that ask for the same one follow each other, so
that each process that runs tests starts it once."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, then those with shared servers.

    Tests on CuPy are left out where it is not installed: each would say so in a line of its own.
    """
    if importlib.util.find_spec("cupy") is None:
        absent = [item for item in items if item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in set(absent)]
    longest = {name: place for place, name in enumerate(LONGEST)}
    asked: dict[Path, int] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        server = min((n for n, s in enumerate(SERVERS) if s in fixtures), default=len(SERVERS))
        asked[item.path] = min(server, asked.get(item.path, server))
    items.sort(key=lambda i: (longest.get(i.path.name, len(longest)), asked[i.path]))


STANDINS = {"manet": (544, 0.9), "fpn": (384, 0.9), "pan": (544, 0.5), "linknet": (544, 0.2)}
"""Stage II stand-ins: input side and image-level probability, by the network they replace."""


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Logs and runtime folders of all servers that tests start, away from the user's."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder / "hilum"


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
def standin_repository() -> Path:
    """A repository that serves analytic stand-ins through `--onnx`: small, quick, exact."""
    import exports

    return exports.cached("standins", _export_standins) / "repository"


def _export_standins(folder: Path) -> None:
    import standins

    from hilum.export.repository import export_system

    files = {"lung": standins.write_lung(folder / "lung.onnx")}
    for name, (side, cls) in STANDINS.items():
        files[name] = standins.write_disease(folder / f"{name}.onnx", side, cls)
    export_system(SYSTEMS["cxr-severity"], repository=folder / "repository", onnx=files)


@pytest.fixture(scope="module")
def standin_server(standin_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with the ensembles of all stand-ins."""
    models = [cxr.ENSEMBLES[name].model for name in STANDINS]
    with borrowed("standin", standin_repository, models) as server:
        yield server


@pytest.fixture(scope="session")
def exported_repository() -> Path:
    """The networks `lung` and `pspnet` of the X-ray system with their reference weights."""
    import exports

    return exports.shown(exports.FIRST) / "models"


@pytest.fixture(scope="session")
def whole_repository() -> Path:
    """All ten networks with random weights (minutes)."""
    import exports

    return (
        exports.cached("xrays", lambda f: exports.export_xrays(f / "repository", exports.ALL))
        / "repository"
    )
