"""Fixtures that several modules about exports share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chest CT to calibrate INT8 networks on."""
    folder = tmp_path_factory.mktemp("calibration") / "study"
    write_dicom_series(chest_ct(5, slices=64, size=64).volume, folder)
    return folder


@pytest.fixture(autouse=True)
def _drawn_alike() -> None:
    """Every run draws the same images."""
    import torch

    torch.manual_seed(0)
