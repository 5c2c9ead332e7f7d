"""Files of a lung segmentation: the labels as NIfTI, and a picture."""

from __future__ import annotations

from pathlib import Path

from hilum.results.nifti import nifti_image, save_nifti

from ..writing import save_drawings
from .pictures import draw
from .result import LungmaskResult


def write(result: LungmaskResult, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
    """Write the labels on the grid of the input as ``lung.nii.gz``, and ``lung.png``.

    See `System.write`.
    """
    stored = result.series.reorientation.undo(result.lung)
    geometry, forms = result.series.stored_geometry, result.series.forms
    save_nifti(nifti_image(stored, geometry, forms=forms), folder / "lung.nii.gz")
    files = ["lung.nii.gz"]
    return files + save_drawings(folder, [("lung.png", draw(result, note))] if pictures else [])
