"""`hilum phantom`: generated sample studies, for trying everything without patients' data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .console import errors_to_exit_codes, out

app = typer.Typer(no_args_is_help=True, help="Write generated sample studies.")


class ImageFormat(StrEnum):
    """File formats of a generated X-ray."""

    PNG = "png"
    DICOM = "dicom"


@app.callback()
def _group() -> None:
    """Keep `cxr` a sub-command while it is the only one."""


@app.command("cxr")
def cxr(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="How many X-rays.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the first; each next is one more.")] = 0,
    image_format: Annotated[ImageFormat, typer.Option("--format")] = ImageFormat.PNG,
    size: Annotated[int, typer.Option(min=256, max=4096, help="Side in pixels.")] = 640,
) -> None:
    """Write generated chest X-rays, from healthy to severe."""
    from ...preprocessing import phantom

    with errors_to_exit_codes():
        out_dir.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            severity = i / (count - 1) if count > 1 else 0.5
            image = phantom.chest_xray(seed + i, height=size, width=size, severity=severity)
            path = out_dir / f"phantom-{seed + i:04d}"
            if image_format is ImageFormat.DICOM:
                phantom.write_dicom(image, path.with_suffix(".dcm"))
            else:
                phantom.write_png(image, path.with_suffix(".png"))
        out.print(f"{count} generated X-rays in {out_dir}", markup=False)
