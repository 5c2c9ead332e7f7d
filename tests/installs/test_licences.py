"""Licences of this environment against the list of those that are allowed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "constraints/licences.py"


def test_every_installed_licence_is_allowed() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 with a licence that is not allowed" in done.stdout


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = spec_from_file_location("licences", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_library_inside_a_wheel_must_be_listed_and_allowed(licences: ModuleType) -> None:
    rules = tomllib.loads(SCRIPT.with_suffix(".toml").read_text())
    table, faults = licences.inside(rules)
    assert not faults
    (ffmpeg,) = (those for _, _, those in table if "libavcodec" in those)
    assert "libavformat" in ffmpeg
    del rules["bundled"]["libavcodec"]
    rules["bundled"]["libquadmath"] = "GPL-3.0-only"
    _, faults = licences.inside(rules)
    assert [f for f in faults if "ships libavcodec" in f and "unknown" in f]
    assert [f for f in faults if "ships libquadmath" in f and "GPL-3.0-only" in f]


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("MIT AND GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True), ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("(MIT OR GPL-2.0-only) AND LGPL-2.1-only", False), ("unknown", False),
    ],
)  # fmt: skip
def test_copyleft_is_refused_however_it_is_joined(
    expression: str, fine: bool, licences: ModuleType
) -> None:
    assert licences.allowed(expression, {"MIT", "BSD-3-Clause"}) is fine
