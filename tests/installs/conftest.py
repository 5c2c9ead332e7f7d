"""The wheel of this checkout, and an empty environment with the base install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VIEWER = ROOT / "desk/vendor/niivue.umd.js"


@pytest.fixture(scope="session")
def asked() -> None:
    """What fills an environment is left out unless it is asked for; before anything is built."""
    if not os.environ.get("HILUM_TEST_INSTALL"):
        pytest.skip("fills an environment, a minute or two: make test-install")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from the files that git knows, in a folder without leftovers of earlier builds."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("tests/", "model_repository/")) or not (ROOT / name).exists():
            continue
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    if VIEWER.is_file():  # not in git (make desk)
        shutil.copytree(VIEWER.parent, folder / "source/desk/vendor")
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True,
                   capture_output=True)  # fmt: skip
    (made,) = (folder / "source/dist").glob("*.whl")
    return zipfile.ZipFile(made)


@pytest.fixture(scope="session")
def python(asked: None, tmp_path_factory: pytest.TempPathFactory, wheel: zipfile.ZipFile) -> Path:
    """The interpreter of an environment that holds the base install and nothing else."""
    return _install(tmp_path_factory.mktemp("base"), "hashes-base.txt", wheel)


@pytest.fixture(scope="session")
def python_with_radiomics(
    asked: None, tmp_path_factory: pytest.TempPathFactory, wheel: zipfile.ZipFile
) -> Path:
    """The same with the extra `radiomics`, as the image has it; needs a C compiler."""
    folder = tmp_path_factory.mktemp("radiomics")
    return _install(folder, "hashes-image.txt", wheel, ROOT / "docker/authorities")


@pytest.fixture(scope="session")
def python_with_desk(
    asked: None, tmp_path_factory: pytest.TempPathFactory, wheel: zipfile.ZipFile
) -> Path:
    """The interpreter of an environment that was made by ``pip install 'hilum[desk]'``."""
    if not VIEWER.is_file():
        pytest.skip("the viewer is not there: make desk")
    folder = tmp_path_factory.mktemp("desk")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = ["-c", ROOT / "constraints.txt"]
    subprocess.run([*install, *pinned, f"hilum[desk] @ file://{wheel.filename}"], check=True)
    subprocess.run([*install[:3], "check"], check=True)
    return python


def _install(folder: Path, locked: str, wheel: zipfile.ZipFile, *more: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    hashes = ROOT / "constraints" / locked
    subprocess.run([*install, "--require-hashes", "--no-deps", "-r", hashes], check=True)
    subprocess.run([*install, "--no-deps", wheel.filename, *more], check=True)
    subprocess.run([*install[:3], "check"], check=True)
    return python
