"""`hilum bench SYSTEM`: how fast this deployment is, beside what would run without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import err, errors_to_exit_codes, out

app = typer.Typer(no_args_is_help=True, help="Measure a system against its alternatives.")

Out = Annotated[Path, typer.Option("--out", help="Folder for bench.json and bench.md.")]
Repository = Annotated[
    Path | None, typer.Option(help="Exported repository (default: exported for the run).")
]
Weights = Annotated[str, typer.Option(help="random or store.")]
Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds.")]
Concurrency = Annotated[
    list[int] | None, typer.Option(min=1, help="Requests in flight; may be repeated.")
]


@app.command("cxr-severity")
def cxr_severity(
    out_dir: Out,
    network: Annotated[
        list[str] | None, typer.Option(help="Stage II network; may be repeated.")
    ] = None,
    repository: Repository = None,
    weights: Weights = "random",
    rounds: Rounds = 5,
    tasks: Annotated[int, typer.Option(min=1, help="Images of one lane in one round.")] = 8,
    concurrency: Concurrency = None,
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
            progress=_say,
        )
        _write(report, out_dir)


def _slices(system: str) -> Callable[..., None]:
    def command(
        out_dir: Out,
        repository: Repository = None,
        weights: Weights = "random",
        rounds: Rounds = 3,
        tasks: Annotated[int, typer.Option(min=1, help="Slices of one lane in one round.")] = 8,
        concurrency: Concurrency = None,
        batch: Annotated[
            list[int] | None,
            typer.Option(min=1, help="Batch of ONNX Runtime in process; may be repeated."),
        ] = None,
    ) -> None:
        from ...benchmarks import ct_slices as bench

        with errors_to_exit_codes():
            report = bench.measure(
                system,
                repository=repository,
                weights=weights,
                rounds=rounds,
                tasks=tasks,
                concurrencies=concurrency or [1, 4, 8],
                batches=batch or [1, 4],
                progress=_say,
            )
            _write(report, out_dir)

    command.__doc__ = (
        f"Slices per second of {system}: Triton, ONNX Runtime and PyTorch, in one run."
    )
    return command


for _system in ("ct-angel", "ct-classifier"):
    app.command(_system)(_slices(_system))


def _say(text: str) -> None:
    err.print(text, markup=False)


def _write(report: dict[str, Any], folder: Path) -> None:
    from ...benchmarks.table import write

    out.print(write(report, folder), markup=False)
