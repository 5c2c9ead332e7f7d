"""One stage in a process of its own: what it breaks, breaks there. Called by `runner`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from hilum.benchmarks.instrument.record import plain
from hilum.catalog.errors import HilumError

from .done import Done, Row
from .setting import Setting
from .stages import STAGES
from .utilisation import watched


def carry_out(name: str, setting: Setting) -> tuple[Done, list[Row]]:
    """Run a stage; what it gives, and what it made of the machine."""
    module = importlib.import_module(f"hilum.proof.stages.{STAGES[name].module}")
    used: list[Row] = []
    with watched(not setting.rehearse, used):
        done = module.run(setting, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    return done, used


def main() -> int:
    """Arguments: the stage, and the file for what it gives; the setting comes on the input."""
    name, target = sys.argv[1], Path(sys.argv[2])
    try:
        done, used = carry_out(name, Setting.parse(sys.stdin.read()))
    except HilumError as failure:
        print(f"error: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    target.write_text(json.dumps({**plain(done), "used": plain(used)}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
