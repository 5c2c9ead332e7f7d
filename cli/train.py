"""`hilum train`: the reference weights, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import err, errors_to_exit_codes, out


def train(
    system: Annotated[str, typer.Argument(help="cxr-severity or dlpe.")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of checkpoints; the same command goes on from there."),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Only these networks; may be repeated.")
    ] = None,
    public_xrays: Annotated[
        Path | None,
        typer.Option(help="Folder with images/ and lung_masks/ of the public X-rays, for `lung`."),
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(help="Where weights and cards go (default: Hilum's own reference weights)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 2,
    small: Annotated[
        bool, typer.Option("--small", help="A few steps on small images, to see that it works.")
    ] = False,
    measure: Annotated[
        int | None,
        typer.Option(min=1, help="Train nothing; measure the reference weights on so many images."),
    ] = None,
    grid: Annotated[int, typer.Option(min=64, help="Side of the grid of CTs to measure on.")] = 256,
) -> None:
    """Train reference weights on generated images; resumable, the same for the same seed."""
    with errors_to_exit_codes():
        import torch

        from hilum.catalog import SYSTEMS
        from hilum.catalog.errors import InputError
        from hilum.export.reference import FOLDER
        from hilum.training import plan as training
        from hilum.training.publish import write_figures

        torch.set_num_threads(threads)
        training.networks_of(system)
        if measure is not None:
            figures = training.measured(system, measure, grid, public_xrays, _say)
            for name, value in figures.items():
                out.print(f"{name}: {value}", markup=False)
            command = _command(system, measure, grid, public=public_xrays is not None)
            write_figures(SYSTEMS[system], command, figures, publish or FOLDER)
            return
        if folder is None:
            raise InputError("--out: give a folder for the checkpoints")
        training.run(
            training.Plan(
                system, folder, network or (), public_xrays, publish or FOLDER, seed, small
            ),
            _say,
        )
        out.print(f"weights and cards: {publish or FOLDER}", markup=False)


def _command(system: str, count: int, grid: int, *, public: bool) -> str:
    more = " --public-xrays FOLDER" if public else ""
    return f"hilum train {system} --measure {count}" + (
        f" --grid {grid}" if system == "dlpe" else more
    )


def _say(what: str, done: int, whole: int, remark: str) -> None:
    """One line for every twentieth part."""
    if done in (1, whole) or done * 20 // whole != (done - 1) * 20 // whole:
        err.print(f"{what}: {done} of {whole} {remark}".rstrip(), markup=False)
