"""Files of a COVID-MTL result: the lung mask as NIfTI, and pictures."""

from __future__ import annotations

from pathlib import Path

from hilum.catalog.covid_mtl import VOXEL_MM
from hilum.preprocessing.covid_mtl.resample import to_grid
from hilum.preprocessing.reading.volume import Geometry
from hilum.results.atomic import whole_file
from hilum.results.nifti import nifti_image, save_nifti

from .pictures import draw_answers, draw_lungs
from .result import CovidMtlResult

_AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def write(result: CovidMtlResult, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
    """Write ``lung.nii.gz``; and ``lungs.png`` and ``answers.png``. See `System.write`.

    The mask lies voxel for voxel on the grid of the input; that of a published container on its
    own voxels of 1 mm, whose place in space is not known.
    """
    files = ["lung.nii.gz"]
    _write_mask(result, folder / files[0])
    if pictures:
        drawn = {"lungs.png": draw_lungs, "answers.png": draw_answers}
        for file, draw in drawn.items():
            with whole_file(folder / file) as partial:
                draw(result, note).save(partial, format="PNG")
            files.append(file)
    return files


def _write_mask(result: CovidMtlResult, path: Path) -> None:
    prepared = result.prepared
    mask, geometry, forms = prepared.lungs.mask, prepared.geometry, None
    if result.series is not None and geometry is not None:
        target = result.series.stored_geometry
        mask, geometry = to_grid(mask, geometry, target), target
        forms = result.series.forms
    if geometry is None:
        z, y, x = mask.shape
        geometry = Geometry((z, y, x), (0.0, 0.0, 0.0), (VOXEL_MM, VOXEL_MM, VOXEL_MM), _AXES)
    text = f"Hilum covid-mtl lung {result.mode}; research only"
    save_nifti(nifti_image(mask, geometry, text, forms=forms), path)
