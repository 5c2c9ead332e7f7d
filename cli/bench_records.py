"""`hilum bench compare` and `hilum bench page`: what is done with records of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilum.catalog.errors import InputError

from .console import err, errors_to_exit_codes, out

_SLOWER = 1
"""Exit code where something became slower."""


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="bench.json before and after; of several runs in turns: before, after, before, …"
        ),
    ],
    threshold: Annotated[str, typer.Option(help="Change that matters.")] = "5%",
    between_runs: Annotated[
        str, typer.Option(help="What single runs one after the other may differ by unchanged.")
    ] = "25%",
) -> None:
    """Tell whether a change is real; exit code 1 where something is slower or fails more often."""
    from hilum.benchmarks.instrument.compare import compare as compare_records
    from hilum.benchmarks.instrument.record import read
    from hilum.benchmarks.pages.changes import markdown

    with errors_to_exit_codes():
        if len(files) % 2:
            raise InputError(f"{len(files)} files make no pairs; give before and after, in turns")
        records = [read(path) for path in files]
        found = compare_records(
            records[::2], records[1::2],
            threshold=_share(threshold), between_runs=_share(between_runs),
        )  # fmt: skip
        out.print(markdown(found), markup=False, end="")
    if found.slower:
        raise typer.Exit(_SLOWER)


def page(
    file: Annotated[Path, typer.Argument(help="bench.json of any benchmark.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for bench.html and figures.")],
) -> None:
    """Draw a record: one self-contained HTML page, and the figures as PNG."""
    from hilum.benchmarks.instrument.record import read
    from hilum.benchmarks.pages.page import write_page

    with errors_to_exit_codes():
        for path in write_page(read(file), out_dir):
            err.print(str(path), markup=False)


def _share(text: str) -> float:
    """A share from ``2%`` or ``0.02``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise InputError(f"{text!r} is no share; write 2% or 0.02")
    return value
