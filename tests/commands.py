"""Running the command line as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from hilum.cli import app
from hilum.results import schema

try:
    import msgspec
except ModuleNotFoundError:  # of the extra `dev`
    msgspec = None

HILUM = [str(Path(sys.executable).with_name("hilum"))]


def hilum(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*HILUM, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, for tests of what a command does and not of the program.

    Most of what a program takes is its start.
    """
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def written_in(folder: Path) -> set[str]:
    """Files of the studies' folders as the report lists them: without those that it is itself."""
    own = {"report.json", "summary.csv", "result.json"}
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name not in own)
    return {str(f) if len(f.parts) < 3 else f"{Path(*f.parts[:2])}/" for f in files}


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a run, which keeps to its schema, as the results of its studies do.

    So do the fields that its system adds: each is documented, with its type.
    """
    report = (folder / "report.json").read_bytes()
    if msgspec is not None:
        _check_fields(json.loads(report))
        msgspec.json.decode(report, type=schema.ReportFile)
        for path in folder.glob("*/result.json"):
            msgspec.json.decode(path.read_bytes(), type=schema.ResultFile)
    return json.loads(report)


def _check_fields(report: dict[str, Any]) -> None:
    name = report["system"].replace("-", "_")
    if find_spec("hilum.systems." + name) is None:
        return  # a system of another package
    own = import_module(f"hilum.systems.{name}.reported").Report
    known = {*own.__annotations__, *schema.Entry.__annotations__}
    for entry in report["results"]:
        if "error" not in entry:
            msgspec.convert(entry, own)
            assert not entry.keys() - known
