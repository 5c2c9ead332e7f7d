"""`hilum bench SYSTEM`: how fast this deployment is, beside what would run without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from . import bench_capacity, bench_records, bench_scale
from .console import err, errors_to_exit_codes, out

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a system against its alternatives.",
)

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
    study: Annotated[bool, typer.Option(help="Measure whole studies.")] = True,
    published: Annotated[
        bool, typer.Option(help="Measure the published procedure in turns with the studies.")
    ] = True,
    studies: Annotated[
        int, typer.Option(min=0, help="Studies to overlap, one and two in flight; 0: none.")
    ] = 2,
    radiomics: Annotated[
        bool, typer.Option(help="Measure the features of whole lungs by both procedures.")
    ] = True,
) -> None:
    """Seconds per study by stage, beside the published procedure; features of whole lungs."""
    from ...benchmarks import covid_mtl as bench
    from ...benchmarks.covid_mtl_table import markdown

    with errors_to_exit_codes():
        plan = bench.Plan(
            scale=bench.QUICK_SCALE if quick else scale, rounds=rounds, repository=repository,
            weights=weights, study=study, published=published, studies=studies,
            radiomics=radiomics,
        )  # fmt: skip
        _write(bench.measure(plan, _say), out_dir, markdown)


@app.command("covid-mtl-baselines")
def covid_mtl_baselines(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV file: the 375 features by name, labels ct, nat and severity, and if wanted "
            "a column split (train or test). Without it cases are split as published, in the "
            "order of the table."
        ),
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for models, baselines.json and baselines.md.")
    ],
    labels: Annotated[
        list[str] | None, typer.Option(help="Label to learn; may be repeated (default: all).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="lightgbm or forest; may be repeated (default: both).")
    ] = None,
    trees: Annotated[int, typer.Option(min=1, help="Trees of either model.")] = 1000,
) -> None:
    """Train and test LightGBM and a random forest on a table of COVID-MTL's radiomic features."""
    from ...benchmarks import covid_mtl_baselines as bench

    with errors_to_exit_codes():
        report = bench.train(
            table, out_dir, heads=labels or list(bench.HEADS), models=model or bench.MODELS,
            trees=trees, progress=_say,
        )  # fmt: skip
        out.print(bench.write(report, out_dir), markup=False)


@app.command("load")
def load(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for record, tables and page.")],
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems, each loaded on its own.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help="Mixed traffic: SYSTEM=SHARE,SYSTEM=SHARE.")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Closed loop: tasks in work; repeatable.")
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
    from ...benchmarks import load as bench
    from ...benchmarks.instrument.arrivals import shares
    from ...benchmarks.instrument.deployment import Choice
    from ..pipelines import PIPELINES

    with errors_to_exit_codes():
        settings = bench.setting(quick=quick, seconds=seconds, rounds=rounds)
        plan = bench.Plan(
            systems=systems or (), mix=shares(mix, PIPELINES) if mix else {},
            concurrencies=concurrency or (), rates=rate or (), arrivals=cast("Any", arrivals),
            replayed=replay, seed=seed, quick=quick, **settings,
            choice=Choice(url, repository, weights, cast("Any", transport), metrics),
        )  # fmt: skip
        out.print(bench.write(bench.measure(plan, _say), out_dir), markup=False)


app.command("compare")(bench_records.compare)
app.command("page")(bench_records.page)
app.command("scale")(bench_scale.scale)
app.command("perf-analyzer")(bench_scale.perf_analyzer)
app.command("capacity")(bench_capacity.capacity)


@app.command("peers")
def peers(
    system: Annotated[str, typer.Argument(help="System whose networks are measured.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for record, tables and page.")],
    network: Annotated[
        list[str] | None, typer.Option(help="Network; may be repeated (default: the usual ones).")
    ] = None,
    rounds: Rounds = 5,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each lane in one round.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Small slabs, short warm-ups.")] = False,
    repository: Repository = None,
    weights: Weights = "random",
) -> None:
    """PyTorch, ONNX Runtime, OpenVINO, pytriton and Triton on the same network, in one run."""
    from ...benchmarks import peers as bench
    from ...benchmarks.peer_table import write

    with errors_to_exit_codes():
        plan = bench.Plan(
            system=system, networks=tuple(network or ()), rounds=rounds, tasks=tasks, quick=quick,
            repository=repository, weights=weights,
        )  # fmt: skip
        out.print(write(bench.measure(plan, _say), out_dir), markup=False)


@app.command("targets")
def targets(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for record, tables and page.")],
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems whose figures are told (default: all).")
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
) -> None:
    """Every documented figure beside what is measured here: pass, fail, or not comparable."""
    from ...benchmarks import targets as bench

    with errors_to_exit_codes():
        plan = bench.Plan(
            systems=tuple(systems or ()), quick=quick, repository=repository, weights=weights,
            earlier=tuple(earlier or ()),
        )  # fmt: skip
        out.print(bench.write(bench.measure(plan, _say), out_dir), markup=False)


def _say(text: str) -> None:
    err.print(text, markup=False)


def _write(report: dict[str, Any], folder: Path, markdown: Markdown | None = None) -> None:
    from ...benchmarks import table

    text = table.write(report, folder, markdown or table.markdown)
    out.print(text, markup=False)
