"""Shared by the tests of reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import VOLUME

from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the DICOM files of `VOLUME`."""
    write_dicom_series(VOLUME, tmp_path / "study")
    return tmp_path / "study"
