"""`hilum bench SYSTEM`: how fast this deployment is, beside what would run without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from . import bench_capacity, bench_gpu_proof, bench_records
from .console import err, errors_to_exit_codes, out

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a system against its alternatives.",
)

Out = Annotated[Path, typer.Option("--out", help="Folder for record, tables and page.")]
Repository = Annotated[
    Path | None, typer.Option(help="Exported repository (default: exported for the run).")
]
Weights = Annotated[str, typer.Option(help="random, reference or store.")]
Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds.")]
Concurrency = Annotated[
    list[int] | None, typer.Option(min=1, help="Requests in flight; may be repeated.")
]
Published = Annotated[
    bool, typer.Option(help="Measure the published procedure in turns with the studies.")
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
    tasks: Annotated[int, typer.Option(min=1, help="Images of one variant in one round.")] = 8,
    concurrency: Concurrency = None,
) -> None:
    """Images per second of Triton, ONNX Runtime and the published procedure, in one run."""
    from hilum.benchmarks import cxr_severity as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            networks=network or ["pspnet", "manet"], repository=repository, weights=weights,
            rounds=rounds, tasks=tasks, concurrencies=concurrency or [1, 2, 4, 8],
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir)


def _slices(system: str) -> Callable[..., None]:
    def command(
        out_dir: Out,
        repository: Repository = None,
        weights: Weights = "random",
        rounds: Rounds = 3,
        tasks: Annotated[int, typer.Option(min=1, help="Slices of one variant in one round.")] = 8,
        concurrency: Concurrency = None,
        batch: Annotated[
            list[int] | None,
            typer.Option(min=1, help="Batch of ONNX Runtime in process; may be repeated."),
        ] = None,
    ) -> None:
        from hilum.benchmarks import ct_slices as bench

        with errors_to_exit_codes():
            plan = bench.Plan(
                repository=repository, weights=weights, rounds=rounds, tasks=tasks,
                concurrencies=concurrency or [1, 4, 8], batches=batch or [1, 4],
            )  # fmt: skip
            _write(bench.measure(system, plan, _say), out_dir)

    command.__doc__ = (
        f"Slices per second of {system}: Triton, ONNX Runtime and PyTorch, in one run."
    )
    return command


for _system in ("ct-angel", "ct-classifier"):
    app.command(_system)(_slices(_system))


@app.command("dlpe")
def dlpe(
    out_dir: Out,
    grid: Annotated[int, typer.Option(help="Voxels along each side of normalised space.")] = 128,
    repository: Repository = None,
    weights: Weights = "random",
    rounds: Rounds = 3,
    published: Published = True,
) -> None:
    """Where the time of a study goes, beside the published procedure."""
    from hilum.benchmarks import dlpe as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            grid=grid, rounds=rounds, repository=repository, weights=weights, published=published
        )
        _write(bench.measure(plan, _say), out_dir)


@app.command("covid-mtl")
def covid_mtl(
    out_dir: Out,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small body instead of --scale: about a minute.")
    ] = False,
    scale: Annotated[
        float, typer.Option(help="Of the phantom's body along every axis; 1 is an adult.")
    ] = 1.0,
    repository: Repository = None,
    weights: Weights = "random",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of studies.")] = 1,
    published: Published = True,
) -> None:
    """Seconds per study by stage, beside the published procedure."""
    from hilum.benchmarks import covid_mtl as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            scale=bench.QUICK_SCALE if quick else scale, rounds=rounds, repository=repository,
            weights=weights, published=published,
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir)


@app.command("load")
def load(
    out_dir: Out,
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems, each loaded on its own.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help="Mixed traffic: SYSTEM=SHARE,SYSTEM=SHARE.")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Closed loop: tasks at once; repeatable.")
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(min=0, help="Open loop: arrivals a second; repeatable.")
    ] = None,
    arrivals: Annotated[str, typer.Option(help="Of open loops: poisson or fixed.")] = "poisson",
    replay: Annotated[
        Path | None, typer.Option(help="Open loop with recorded arrivals: CSV or JSON lines.")
    ] = None,
    transport: Annotated[str, typer.Option(help="auto, grpc or shm.")] = "auto",
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Of one round (default: 30, quick 8).")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Interleaved rounds (default: 5, quick 3).")
    ] = None,
    repository: Repository = None,
    weights: Weights = "random",
    url: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Triton's gRPC; without it one is started.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="URL of its metrics (default: port 8002 of its host).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and of mixed traffic.")] = 0,
    quick: Annotated[bool, typer.Option(help="Short rounds, small studies.")] = False,
) -> None:
    """Load a deployment in closed and open loops, and show where the time went."""
    from hilum.benchmarks import load as bench
    from hilum.benchmarks.instrument.arrivals import shares
    from hilum.benchmarks.instrument.deployment import Choice
    from hilum.client.registry import INSTALLED

    with errors_to_exit_codes():
        settings = bench.setting(quick=quick, seconds=seconds, rounds=rounds)
        plan = bench.Plan(
            systems=systems or (), mix=shares(mix, INSTALLED) if mix else {},
            concurrencies=concurrency or (), rates=rate or (), arrivals=cast("Any", arrivals),
            replayed=replay, seed=seed, quick=quick, **settings,
            choice=Choice(url, repository, weights, cast("Any", transport), metrics),
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir)


app.command("compare")(bench_records.compare)
app.command("page")(bench_records.page)
app.command("capacity")(bench_capacity.capacity)
app.command("gpu-proof")(bench_gpu_proof.gpu_proof)


@app.command("peers")
def peers(
    system: Annotated[str, typer.Argument(help="System whose networks are measured.")],
    out_dir: Out,
    network: Annotated[
        list[str] | None, typer.Option(help="Network; may be repeated (default: the usual ones).")
    ] = None,
    rounds: Rounds = 5,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each variant in one round.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Small slabs, short warm-ups.")] = False,
    repository: Repository = None,
    weights: Weights = "random",
) -> None:
    """PyTorch, ONNX Runtime, OpenVINO and Triton on the same network, in one run."""
    from hilum.benchmarks import peers as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            system=system, networks=tuple(network or ()), rounds=rounds, tasks=tasks, quick=quick,
            repository=repository, weights=weights,
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir)


@app.command("targets")
def targets(
    out_dir: Out,
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems whose figures are listed (default: all).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few networks, small studies: minutes on two cores.")
    ] = False,
    repository: Repository = None,
    weights: Weights = "random",
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="bench.json of an earlier run, instead of measuring; may be repeated."
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="File of published predictions to compute errors from; repeatable."),
    ] = None,
) -> None:
    """Every documented figure beside what is measured here: pass, fail, or not comparable."""
    from hilum.benchmarks import targets as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            systems=tuple(systems or ()), quick=quick, repository=repository, weights=weights,
            earlier=tuple(earlier or ()), predictions=tuple(predictions or ()),
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir)


def _say(text: str) -> None:
    err.print(text, markup=False)


def _write(record: Any, folder: Path) -> None:
    from hilum.benchmarks.pages.page import write

    out.print(write(record, folder), markup=False)
