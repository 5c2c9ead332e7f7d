"""Running the command line as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HILUM = [str(Path(sys.executable).with_name("hilum"))]


def hilum(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*HILUM, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a run."""
    return json.loads((folder / "report.json").read_text())
