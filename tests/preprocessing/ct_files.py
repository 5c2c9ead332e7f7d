"""A small DICOM series for the tests of reading, and how its files are spoilt."""

from __future__ import annotations

from pathlib import Path

import pydicom
from hilum.preprocessing.phantom_ct import chest_ct

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
