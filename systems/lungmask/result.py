"""The lungs of one chest CT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import lungmask as catalog
from hilum.catalog.terms import Mode
from hilum.preprocessing.reading.series import Series

from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class LungmaskResult(DicomResult, ShownInNotebook):
    """The lungs of one chest CT.

    Attributes
    ----------
    status
        "ok", or the worst of the flags.
    flags
        ``doubtful_hu``, ``no_lung``, ``no_right_lung``, ``no_left_lung``, and those of
        `preprocessing.reading.notes`.
    voxels
        By label, in the order of `catalog.lungmask.LABELS`.
    volumes_ml
        Right and left lung.
    hu_range
        Lowest and highest HU of the series.
    clean
        Stray pieces and holes were removed.
    mode
        ``parity`` or ``corrected``: the same here.
    transport
        How tensors reached the server: ``grpc``, ``shm`` or ``cuda``.
    notes
        What is unusual about the series, human-readable.
    lung
        uint8 [z, y, x] in LPS order: 0, 1 right lung, 2 left lung.
    preview
        uint8 [z, h, w], the slices in the lung window, every n-th pixel.
    series
        The series on its own grid.
    """

    system: ClassVar[str] = "lungmask"

    status: str
    flags: tuple[str, ...]
    voxels: tuple[int, ...]
    volumes_ml: tuple[float, float]
    hu_range: tuple[int, int]
    notes: tuple[str, ...]
    clean: bool
    mode: Mode
    transport: str
    lung: Labels = field(repr=False)
    preview: NDArray[np.uint8] = field(repr=False)
    series: Series = field(repr=False)

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        geometry = self.series.geometry
        right, left = (round(v, 3) for v in self.volumes_ml)
        return {
            "status": self.status,
            "flags": list(self.flags),
            "volumes_ml": {"right": right, "left": left, "both": round(right + left, 3)},
            "voxels": dict(zip(catalog.LABELS, self.voxels, strict=True)),
            "shape": list(geometry.shape),
            "spacing_mm": [round(s, 6) for s in geometry.spacing],
            "hu_range": list(self.hu_range),
            "format": self.series.kind,
            "clean": self.clean,
            "notes": list(self.notes),
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """What `--save-arrays` keeps."""
        return {"lung": self.lung}

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        right, left = self.volumes_ml
        return {
            "slices": str(len(self.series)),
            "right ml": f"{right:.0f}",
            "left ml": f"{left:.0f}",
            "status": self.status,
        }
