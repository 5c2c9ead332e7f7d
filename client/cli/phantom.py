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


@app.command("ct")
def ct(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    slices: Annotated[int, typer.Option(min=3, max=2000, help="How many slices.")] = 60,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Which patient.")] = 0,
    lesions: Annotated[int, typer.Option(min=0, max=100, help="Ground-glass opacities.")] = 5,
) -> None:
    """Write a generated chest CT as a DICOM series."""
    from ...preprocessing import phantom_ct, phantom_ct_dicom

    with errors_to_exit_codes():
        made = phantom_ct.chest_ct(seed, slices=slices, size=size, lesions=lesions)
        phantom_ct_dicom.write_dicom_series(made.volume, out_dir)
        out.print(f"a generated CT series of {slices} slices in {out_dir}", markup=False)
