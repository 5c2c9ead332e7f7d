"""`hilum bench SYSTEM`: how fast this deployment is, beside what would run without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import err, errors_to_exit_codes, out

app = typer.Typer(no_args_is_help=True, help="Measure a system against its alternatives.")


@app.callback()
def _group() -> None:
    """Keep `cxr-severity` a sub-command while it is the only one."""


@app.command("cxr-severity")
def cxr_severity(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for bench.json and bench.md.")],
    network: Annotated[
        list[str] | None, typer.Option(help="Stage II network; may be repeated.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Exported repository (default: exported for the run).")
    ] = None,
    weights: Annotated[str, typer.Option(help="random or store.")] = "random",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    tasks: Annotated[int, typer.Option(min=1, help="Images of one lane in one round.")] = 8,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Images in flight; may be repeated.")
    ] = None,
) -> None:
    """Images per second of Triton, ONNX Runtime and the published procedure, in one run."""
    from ...benchmarks import cxr_severity as bench

    with errors_to_exit_codes():
        report = bench.measure(
            networks=network or ["pspnet", "manet"],
            repository=repository,
            weights=weights,
            rounds=rounds,
            tasks=tasks,
            concurrencies=concurrency or [1, 2, 4, 8],
            progress=lambda text: err.print(text, markup=False),
        )
        out_dir.mkdir(parents=True, exist_ok=True)
        text = bench.write(report, out_dir)
        out.print(text, markup=False)
