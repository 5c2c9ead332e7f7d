"""The manual, built once for all tests of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import exports
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of the builder, a dead link or anchor among them, fails it."""
    pytest.importorskip("material", reason="the extra docs is not installed")
    return exports.once(tmp_path_factory, "site", _build)


def _build(folder: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
