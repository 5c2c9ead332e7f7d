"""`hilum bench capacity`: the highest arrival rate that meets a bound on latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .console import Exit, err, errors_to_exit_codes, out


def capacity(
    system: Annotated[str, typer.Argument(help="System whose deployment is measured.")],
    bound: Annotated[
        str,
        typer.Option(
            "--p99",
            "--bound",
            help="What users accept: 500ms, 2s, 5min. The bound of "
            "the 99th percentile, or of --percentile.",
        ),
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for trials, record, tables and page.")
    ],
    percentile: Annotated[
        float, typer.Option(help="That the bound is of: 50, 75, 90, 95, 99 or 99.9.")
    ] = 99.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short runs, small studies, an interval of 10 %.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Of one run (default: as long as the percentile needs)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the trials that the folder holds.")
    ] = False,
    transport: Annotated[str, typer.Option(help="auto, grpc or shm.")] = "auto",
    repository: Annotated[
        Path | None, typer.Option(help="Exported repository (default: exported for the run).")
    ] = None,
    weights: Annotated[str, typer.Option(help="random, reference or store.")] = "random",
    url: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Triton's gRPC; without it one is started.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals.")] = 0,
) -> None:
    """Find the highest arrival rate that meets a bound; exit code 1 where none does."""
    from hilum.benchmarks import capacity as bench
    from hilum.benchmarks.capacity_rule import Bound, parse_duration
    from hilum.benchmarks.instrument.deployment import Choice
    from hilum.benchmarks.pages.page import write

    with errors_to_exit_codes():
        plan = bench.Plan(
            system=system, bound=Bound(parse_duration(bound), percentile), seconds=seconds,
            quick=quick, seed=seed,
            choice=Choice(url, repository, weights, cast("Any", transport)),
        )  # fmt: skip
        found = bench.measure(plan, out_dir, _say, resume=resume)
        out.print(write(found, out_dir), markup=False)
    if not found.tables["capacity"][0]["per_second"]:
        raise typer.Exit(Exit.STUDY_FAILED)


def _say(text: str) -> None:
    err.print(text, markup=False)
