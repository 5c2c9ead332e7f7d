"""A small DICOM series for the tests of reading, and how its files are spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Geometry, Volume

VOLUME = chest_ct(3, slices=12, size=40).volume


def files(folder: Path) -> list[Path]:
    """By InstanceNumber: the first is the highest slice."""
    return sorted(folder.glob("*.dcm"))


def edit(path: Path, **changes: object) -> None:
    """Set attributes of a DICOM file; None removes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def edit_all(folder: Path, **changes: object) -> None:
    """The same for all files of a folder."""
    for path in files(folder):
        edit(path, **changes)


def write_slices(
    folder: Path, places: Sequence[float], *, first: int = 1, name: str = "", **changes: object
) -> list[Path]:
    """Write flat slices of 32 × 40 pixels at `places` along the body; their values differ."""
    count = len(places)
    planes = np.arange(count, dtype=np.int16)[:, None, None] * 10 - 500
    grid = Geometry(
        (count, 32, 40),
        (-20.0, -16.0, 0.0),
        (2.0, 1.5, 1.25),
        ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    voxels = np.broadcast_to(planes, grid.shape)
    paths = []
    for k, path in enumerate(write_dicom_series(Volume(voxels, grid), folder / "all")):
        paths.append(path.rename(folder / f"{name}{k + first:04d}.dcm"))
        values: dict[str, object] = {
            "StudyInstanceUID": "1.2",
            "SeriesInstanceUID": "1.2.3",
            "SOPInstanceUID": f"1.2.3.{k + first}",
            "InstanceNumber": k + first,
            "BodyPartExamined": "",
            "SeriesDescription": "",
            "ImagePositionPatient": [-20, -16, f"{places[k]:g}"],
        }
        edit(paths[-1], **values | changes)
    (folder / "all").rmdir()
    return paths
