"""Commands of Hilum in a process of their own."""

from __future__ import annotations

import subprocess
import sys


def hilum(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `hilum` with this interpreter."""
    program = "from hilum.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
