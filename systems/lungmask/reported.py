"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import Any, TypedDict


class Report(TypedDict):
    """What the report holds of one chest CT by lungmask, beside the fields of every system."""

    status: str
    """``ok``, or the worst of the flags."""
    flags: list[str]
    """What is unusual."""
    volumes_ml: dict[str, Any]
    """``right``, ``left``, ``both`` in ml; each slice by its own step."""
    voxels: dict[str, Any]
    """Voxels by label."""
    shape: list[int]
    """Of the series as [z, y, x]."""
    spacing_mm: list[float]
    """Distance of voxels along the same axes."""
    hu_range: list[int]
    """Lowest and highest HU of the series."""
    format: str
    """What was read: DICOM, NIfTI, an array."""
    clean: bool
    """Stray pieces and holes were removed."""
    notes: list[str]
    """What is unusual about the series, in words: missing slices, a tilted gantry, series
    left out."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
