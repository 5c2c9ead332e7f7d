"""Every installation that a page shows, as far as choosing all packages (make test-install)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from manual import INLINE, MANUAL, PIP, ROOT, Typist, shown

EXTRAS = sorted(
    {match[1] or "" for page in MANUAL for match in PIP.finditer((ROOT / page).read_text())}
)

pytestmark = pytest.mark.skipif(
    not os.environ.get("HILUM_TEST_INSTALL"), reason="asks a registry: make test-install"
)


def pip(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *map(str, words)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("extras", EXTRAS)
def test_the_packages_of_extras_are_found(extras: str, wheel: zipfile.ZipFile) -> None:
    """As on an empty machine; nothing is installed."""
    wanted = f"hilum[{extras}] @ file://{wheel.filename}" if extras else wheel.filename
    said = pip("--dry-run", "--ignore-installed", "--quiet", "--report", "-", wanted)
    assert '"name": "hilum"' in said


def test_the_lines_of_the_page(wheel: zipfile.ZipFile) -> None:
    first, second = shown("docs/how-to/install.md", "Install", "sh", "sh")
    assert all(PIP.match(line) for line in first.splitlines())
    pip("--dry-run", *second.split()[2:])


def test_the_tested_versions_are_installed_from_a_checkout(tmp_path: Path) -> None:
    listed = ["git", "ls-files", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith(("tests/", "docs/", "model_repository/")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    (exact,) = shown("docs/how-to/install.md", "Install exactly the tested versions", "sh")
    (size,) = shown("docs/how-to/install.md", "How large it is", "sh")
    reader = Typist(tmp_path)
    reader.environment.pop("PYTHONPATH")
    reader.type(exact)
    assert "hilum" in reader.type("tested/bin/hilum --version")
    counted = re.findall(r"^(\d+)\s+empty$", reader.type(size), re.MULTILINE)
    assert len(counted) == 2
    assert int(counted[1]) > int(counted[0])


def test_extras_between_backticks_are_among_them() -> None:
    assert "" in EXTRAS
    assert any(PIP.match(code) for code in INLINE.findall((ROOT / "README.md").read_text()))
