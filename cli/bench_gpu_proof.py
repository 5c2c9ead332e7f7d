"""`hilum bench gpu-proof`: the whole path on a GPU, or its rehearsal without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Exit, err, errors_to_exit_codes, out
from .interrupts import Interrupted, Interrupts


def gpu_proof(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for stages, record and page.")],
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="On the processors, in reduced sizes: no GPU needed.")
    ] = False,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be repeated (default: all).")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Exported repository (default: exported into --out).")
    ] = None,
    weights: Annotated[str, typer.Option(help="random or store.")] = "random",
    precision: Annotated[
        str | None, typer.Option(help="fp32 or fp16 (default: fp16; of a rehearsal fp32).")
    ] = None,
) -> None:
    """Prove the whole path on this GPU, stage by stage; what is done is not done again.

    Exit code 1: a stage or a check failed, or some are left.
    """
    from hilum.benchmarks.pages.page import write
    from hilum.catalog.errors import InputError
    from hilum.catalog.extras import require
    from hilum.client.device import Device
    from hilum.proof.report import REHEARSAL, report
    from hilum.proof.runner import run
    from hilum.proof.setting import Setting

    with errors_to_exit_codes():
        if precision not in (None, "fp32", "fp16"):
            raise InputError(f"no precision {precision!r}; choose fp32 or fp16")
        setting = Setting(
            out=out_dir, repository=repository or out_dir / "repository",
            given=repository is not None, rehearse=rehearse, weights=weights,
            precision=precision or ("fp32" if rehearse else "fp16"),
        )  # fmt: skip
        Device.of(setting.device)  # a GPU that is not there is refused, with what is in the way
        if not rehearse:
            require("a proof on a GPU", "pynvml")
        interrupts = Interrupts()
        try:
            with interrupts.handled():
                run(setting, stage or (), lambda text: err.print(text, markup=False))
        except Interrupted as end:  # the stage in progress and the server are gone already
            interrupts.end_now(end.code)
        found = report(setting)
        out.print(write(found.record, out_dir), markup=False)
    if rehearse:
        err.print(REHEARSAL, markup=False)
    if not (found.holds and (found.complete or stage)):
        raise typer.Exit(Exit.STUDY_FAILED)
