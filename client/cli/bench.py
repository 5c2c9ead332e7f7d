"""`hilum bench SYSTEM`: how fast this deployment is, beside what would run without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .console import err, errors_to_exit_codes, out

app = typer.Typer(no_args_is_help=True, help="Measure a system against its alternatives.")

Markdown = Callable[[Mapping[str, Any]], str]

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


@app.command("dlpe")
def dlpe(
    out_dir: Out,
    grid: Annotated[
        int, typer.Option(help="Voxels along each side for studies and published procedure.")
    ] = 128,
    repository: Repository = None,
    weights: Weights = "random",
    rounds: Rounds = 3,
    study: Annotated[bool, typer.Option(help="Measure whole studies.")] = True,
    published: Annotated[
        bool, typer.Option(help="Measure the published procedure in turns with the studies.")
    ] = True,
    stage_one: Annotated[
        bool, typer.Option(help="Measure stage one in one direction at the published grid.")
    ] = True,
    direction: Annotated[str, typer.Option(help="Of stage one: x, y or z.")] = "z",
    slices: Annotated[int, typer.Option(min=1, help="Of stage one; 512 are all.")] = 512,
    steps: Annotated[
        bool, typer.Option(help="Measure the steps between the networks at the published grid.")
    ] = True,
    side: Annotated[
        int, typer.Option(help="Voxels along each side for stage one and the steps.")
    ] = 512,
) -> None:
    """Where the time of a study goes, beside the published procedure and ONNX Runtime."""
    from ...benchmarks import dlpe as bench
    from ...benchmarks.dlpe_table import markdown

    with errors_to_exit_codes():
        plan = bench.Plan(
            grid=grid, rounds=rounds, repository=repository, weights=weights, study=study,
            published=published, stage_one=stage_one, direction=cast("Any", direction),
            slices=slices, steps=steps, side=side,
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir, markdown)


def _say(text: str) -> None:
    err.print(text, markup=False)


def _write(report: dict[str, Any], folder: Path, markdown: Markdown | None = None) -> None:
    from ...benchmarks import table

    text = table.write(report, folder, markdown or table.markdown)
    out.print(text, markup=False)
