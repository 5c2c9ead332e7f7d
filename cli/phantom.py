"""`hilum phantom`: generated sample studies, for trying everything without patients' data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.preprocessing.phantoms.ct import CtPhantom

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Write generated sample studies."
)


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
    from hilum.preprocessing.phantoms import xray as phantom

    with errors_to_exit_codes():
        out_dir.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            severity = i / (count - 1) if count > 1 else 0.5
            image = phantom.chest_xray(seed + i, height=size, width=size, severity=severity)
            path = out_dir / f"phantom-{seed + i:04d}"
            if image_format is ImageFormat.DICOM:
                whole = (2048, 4096)  # window centre and width of the 12 bits it is stored in
                phantom.write_dicom(image, path.with_suffix(".dcm"), window=whole)
            else:
                phantom.write_png(image, path.with_suffix(".png"))
        out.print(f"{count} generated X-rays in {out_dir}", markup=False)


@app.command("ct")
def ct(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    slices: Annotated[int, typer.Option(min=3, max=2000, help="How many slices.")] = 60,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Rows, and columns.")] = 512,
    columns: Annotated[
        int | None, typer.Option(min=32, max=1024, help="Columns, when not as many as rows.")
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Distance of slices, rows and columns in mm (default: a whole chest)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which patient.")] = 0,
    lesions: Annotated[int, typer.Option(min=0, max=100, help="Ground-glass opacities.")] = 5,
    noise: Annotated[float, typer.Option(min=0, help="Standard deviation in HU.")] = 18.0,
    truth: Annotated[Path | None, typer.Option(help="Folder for the true masks as NIfTI.")] = None,
) -> None:
    """Write a generated chest CT as a DICOM series, and what is where in it."""
    from hilum.preprocessing.phantoms import ct as phantom_ct
    from hilum.preprocessing.phantoms import ct_dicom as phantom_ct_dicom

    with errors_to_exit_codes():
        shape = size, size if columns is None else columns
        made = phantom_ct.chest_ct(
            seed, slices=slices, size=shape, spacing=spacing, lesions=lesions, noise=noise
        )
        phantom_ct_dicom.write_dicom_series(made.volume, out_dir)
        out.print(f"a generated CT series of {slices} slices in {out_dir}", markup=False)
        if truth is not None:
            _write_truth(made, truth)
            out.print(f"lungs, airways, vessels and lesions in {truth}", markup=False)


def _write_truth(made: CtPhantom, folder: Path) -> None:
    """Write the masks of a phantom as ``<name>.nii.gz``; the lungs have 1 right, 2 left."""
    from hilum.results.atomic import make_folder
    from hilum.results.nifti import nifti_image, save_nifti

    make_folder(folder)
    masks = {
        "lung": made.lung, "airway": made.airway, "vessel": made.vessel, "lesion": made.lesion
    }  # fmt: skip
    for name, mask in masks.items():
        image = nifti_image(mask, made.volume.geometry, "generated")
        save_nifti(image, folder / f"{name}.nii.gz")
