"""`hilum engines`: TensorRT engines, built where they run; every graph checked anywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.catalog import SYSTEMS

from .console import Exit, Steps, chosen_system, default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_unbuildable

if TYPE_CHECKING:
    from hilum.export.tensorrt.build import Built
    from hilum.export.tensorrt.checked import Checked

app = typer.Typer(
    help="TensorRT engines: check every graph without a GPU, build engines on one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Precision(StrEnum):
    """Arithmetic of the exported networks."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


Seconds = Annotated[float, typer.Option(min=1, help="Seconds that one build may take.")]
Memory = Annotated[float, typer.Option(min=0.5, help="GiB of memory that one build may take.")]


@app.command("check")
def check(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems to check (default: all).")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of report and exported files.")] = (
        Path("out/tensorrt-check")
    ),
    network: Annotated[
        list[str] | None, typer.Option(help="Only these networks; may be repeated.")
    ] = None,
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Only this one; may be repeated.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Check this repository's files; export nothing.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Export and build again what has passed before.")
    ] = False,
    timeout: Seconds = 900,
    memory: Memory = 12,
) -> None:
    """Pass graphs through NVIDIA's parser and an ahead-of-time build; needs no GPU."""
    from hilum.export.tensorrt.check import PAGE, check_graphs
    from hilum.export.tensorrt.graphs import wanted
    from hilum.export.tensorrt.supervise import Limits

    with errors_to_exit_codes():
        graphs = wanted(
            [chosen_system(name) for name in systems or SYSTEMS],
            network or None,
            [p.value for p in precision or Precision],
        )
        done: list[Checked] = []
        with Steps("graphs", len(graphs)) as steps:
            for graph, found, earlier in check_graphs(
                graphs,
                folder,
                repository=repository,
                again=again,
                limits=Limits(timeout, int(memory * 2**30)),
                progress=lambda name, step: err.print(f"{name}: {step}", markup=False),
            ):
                done.append(found)
                steps.advance(f"{graph.label}: {_verdict(found, earlier)}")
    failed = [c for c in done if c.status != "ok"]
    out.print(f"{len(done) - len(failed)} of {len(done)} graphs passed", markup=False)
    for checked in failed:
        out.print(f"failed: {checked.model} {checked.precision}: {checked.reason}", markup=False)
    out.print(f"Report: {folder / PAGE}", markup=False)
    if failed or not done:
        raise typer.Exit(Exit.STUDY_FAILED)


def _verdict(found: Checked, earlier: bool) -> str:
    if found.status != "ok":
        return f"failed, {found.reason}"
    when = " (earlier)" if earlier else ""
    return f"ok, built in {found.build_seconds:.1f} s{when}"


@app.command("build")
def build(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only these Triton models; may be repeated.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the timing caches (default: the user's cache folder)."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try engines again that failed on this machine.")
    ] = False,
    timeout: Seconds = 3600,
    memory: Memory = 32,
    ignore_doctor: Annotated[
        bool, typer.Option("--ignore-doctor", help="Build where `hilum doctor` advises against it.")
    ] = False,
) -> None:
    """Build the engines of a repository for this machine's GPU; what is valid stays."""
    from hilum.export.tensorrt.build import build_engines
    from hilum.export.tensorrt.machine import TensorRT, timing_folder
    from hilum.export.tensorrt.supervise import Limits

    with errors_to_exit_codes():
        folder = repository or default_repository()
        if not ignore_doctor:
            refuse_unbuildable()
        limits = Limits(timeout, int(memory * 2**30))
        builder = TensorRT(limits, cache or timing_folder())
        done: list[Built] = []
        begin = build_engines(folder, builder, models=model or None, retry=retry)
        with Steps("engines", begin.count) as steps:
            for built in begin.results:
                done.append(built)
                steps.advance(f"{built.model}: {built.describe()}")
    counts = {what: sum(b.outcome == what for b in done) for what in ("built", "valid", "failed")}
    counted = ", ".join(f"{count} {what}" for what, count in counts.items())
    out.print(f"Engines: {counted}; {folder}", markup=False)
    for built in (b for b in done if b.outcome == "failed"):
        out.print(f"served by ONNX Runtime: {built.model} ({built.reason})", markup=False)
    if counts["failed"]:
        raise typer.Exit(Exit.STUDY_FAILED)
