"""`pytest -m gpu`: everything that is marked as needing a GPU."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from hilum.catalog.errors import InputError

from ..done import Check, Done, Say
from ..setting import Setting

ROOT = Path(__file__).resolve().parents[2]

MARK = re.compile(r"mark\.gpu|array_modules import|\bCUPY\b")

REHEARSED = ("tests/preprocessing/test_preprocessing_modules.py", "-k", "numpy and window")
"""Of the same test bodies, some on NumPy."""


def run(setting: Setting, say: Say) -> Done:
    """Run the tests and count them.

    Raises
    ------
    InputError
        Without a checkout's tests, or without pytest.
    """
    if not (ROOT / "tests").is_dir() or importlib.util.find_spec("pytest") is None:
        raise InputError("the tests need a checkout of Hilum and pytest")
    chosen = list(REHEARSED) if setting.rehearse else ["-m", "gpu", *_files()]
    say(f"pytest {' '.join(chosen)}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[-300:]]
    lines = done.stdout.splitlines()
    failed = tuple(line for line in lines if line.startswith(("FAILED", "ERROR")))
    passed = re.search(r"(\d+) passed", last[0])
    holds = done.returncode == 0 and passed is not None
    return Done(checks=(Check("tests that need a GPU pass", holds, last[0]),), notes=failed)


def _files() -> list[str]:
    """Files with such tests: collecting all others would take longer than running these."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(f.relative_to(ROOT)) for f in found if MARK.search(f.read_text("utf-8"))]
