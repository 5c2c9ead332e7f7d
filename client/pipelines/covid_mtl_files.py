"""Files of a COVID-MTL result: the lung mask as NIfTI, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...catalog.covid_mtl import VOXEL_MM
from ...preprocessing.covid_mtl_resample import to_grid
from ...preprocessing.volume import Geometry
from ..nifti_image import nifti_image, save_nifti
from ..pictures import covid_mtl as pictures
from ..whole_file import whole_file

if TYPE_CHECKING:
    from .covid_mtl_result import CovidMtlResult

_AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def write_files(result: CovidMtlResult, folder: Path, name: str) -> list[str]:
    """Write the lung mask as ``<name>-lung.nii.gz``; returns the file's name.

    Voxel for voxel on the grid of the input; that of a published container lies on its own voxels
    of 1 mm, whose place in space is not known.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    file = f"{name}-lung.nii.gz"
    prepared = result.prepared
    mask, geometry = prepared.lungs.mask, prepared.geometry
    if result.series is not None and geometry is not None:
        target = result.series.stored_geometry
        mask, geometry = to_grid(mask, geometry, target), target
    if geometry is None:
        z, y, x = mask.shape
        geometry = Geometry((z, y, x), (0.0, 0.0, 0.0), (VOXEL_MM, VOXEL_MM, VOXEL_MM), _AXES)
    text = f"Hilum covid-mtl lung {result.mode}; research only"
    save_nifti(nifti_image(mask, geometry, text), folder / file)
    return [file]


def write_pictures(result: CovidMtlResult, folder: Path, name: str, note: str) -> list[str]:
    """Write sections through the lungs and a chart of the answers; returns the files' names.

    Parameters
    ----------
    note
        Whose weights made the result.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    drawn = {
        f"{name}-lungs.png": pictures.draw_lungs,
        f"{name}-answers.png": pictures.draw_answers,
    }
    for file, draw in drawn.items():
        with whole_file(folder / file) as partial:
            draw(result, note).save(partial, format="PNG")
    return list(drawn)
