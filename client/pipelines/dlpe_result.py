"""What DLPE finds in one chest CT: window, enhanced volume, masks, and how they came about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...catalog import dlpe as catalog
from ...preprocessing.arrays import Array, to_host
from ...preprocessing.images import Mode

if TYPE_CHECKING:
    from ...postprocessing.enhancement import Enhancement
    from ...preprocessing.dlpe_space import Normalised
    from ...preprocessing.series import Series

LESIONS = ("visible", "follow_up", "in_patient", "lesion")
"""Masks of lesions: on the CT; on the enhanced volume, by the cohort of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DlpeResult:
    """Parenchyma of one chest CT.

    Attributes
    ----------
    source
        What the study is, for people to read: size and spacing; free of identifiers.
    mode
        ``parity`` or ``corrected``.
    cohort
        Whose lesion networks ran on the enhanced volume.
    preview
        The grid is coarser than the published one.
    slice
        Slice of normalised space that the three panels show, from 0 at the feet; None: the
        published one.
    normalised
        The CT in normalised space.
    masks
        By name, uint8 [x, y, z] in normalised space, 0 or 1, on the host or a GPU: ``lung``, and
        some of ``airway``, ``vessel``, ``visible``, ``follow_up``, ``in_patient``, ``lesion``,
        ``heart``, ``artery``, ``vein``.
    enhancement
        The enhanced volume and the window; None where no lung was found.
    timings
        Seconds by stage.
    counts
        Whole numbers by name: ``passes`` (of the networks) of ``published_passes``, ``slabs``,
        ``bytes_sent``, ``bytes_received`` and more.
    flags
        What is unusual, the worst first.
    notes
        The same and more, for people to read; free of identifiers.
    transport
        How tensors reached the server.
    series
        The series on its own grid; None for a volume that came normalised.
    weights_note
        Whose weights these are when they are not the published ones, for headers of files.
    options
        What was chosen beside mode and cohort, for the report.
    """

    source: str
    mode: Mode
    cohort: catalog.Cohort
    preview: bool
    slice: int | None = None
    normalised: Normalised = field(repr=False)
    masks: Mapping[str, Array] = field(repr=False)
    enhancement: Enhancement | None = field(repr=False)
    timings: Mapping[str, float]
    counts: Mapping[str, int]
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    transport: str
    series: Series | None = field(default=None, repr=False)
    weights_note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    voxels: Mapping[str, int] = field(init=False)
    """Voxels of each mask in normalised space."""
    lesion_voxels: Mapping[str, int] = field(init=False)
    """Those of each lesion mask that lie in the lungs."""

    def __post_init__(self) -> None:
        lung = self.masks["lung"]
        counted = {name: _count(mask) for name, mask in self.masks.items()}
        inside = {n: _count(self.masks[n], lung) for n in LESIONS if n in self.masks}
        object.__setattr__(self, "voxels", counted)
        object.__setattr__(self, "lesion_voxels", inside)

    @property
    def status(self) -> str:
        """Status of the study: "ok", or the worst of the flags."""
        return self.flags[0] if self.flags else "ok"

    @property
    def side(self) -> int:
        """Voxels of the longest axis of normalised space."""
        return max(self.normalised.space.shape)

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Size of a voxel of normalised space along each axis."""
        return self.normalised.space.voxel_mm

    @property
    def picture_slice(self) -> int:
        """Slice of normalised space that the three panels show."""
        if self.slice is not None:
            return self.slice
        return catalog.PICTURE_SLICE * self.normalised.space.shape[2] // catalog.SIDE

    @property
    def window(self) -> tuple[int, int] | None:
        """Window level and width in whole HU, as the published program tells them.

        The width is 1 at least, so that pictures can be shown in it.
        """
        found = self.enhancement
        if found is None:
            return None
        return round(found.window_level), max(1, round(found.window_width))

    @property
    def preview_note(self) -> str:
        """What a coarser grid means, in so many words; empty at the published grid."""
        if not self.preview:
            return ""
        return f"PREVIEW on a {self.side} grid: not the published result."

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each mask."""
        ml = self.normalised.space.voxel_ml
        return {name: count * ml for name, count in self.voxels.items()}

    @property
    def lesion_shares(self) -> dict[str, float | None]:
        """Share of the lungs that each lesion mask covers; None without lungs."""
        lung = self.voxels["lung"]
        return {name: n / lung if lung else None for name, n in self.lesion_voxels.items()}

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        return {
            "status": self.status,
            "flags": list(self.flags),
            "study": self.source,
            "cohort": self.cohort,
            "preview": self.preview,
            "preview_note": self.preview_note or None,
            **self._window_report(),
            "volumes_ml": {name: _rounded(ml, 3) for name, ml in self.volumes_ml.items()},
            "voxels": dict(self.voxels),
            "lesions": self._lesions_report(),
            "normalised_space": self._space_report(),
            "picture_slice": self.picture_slice,
            "options": dict(self.options),
            "counts": dict(self.counts),
            "passes_share": self._passes_share(),
            "timings_s": {stage: _rounded(s, 4) for stage, s in self.timings.items()},
            "notes": list(self.notes),
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `--save-arrays` keeps, in normalised space [x, y, z]."""
        kept = dict(self.masks)
        if self.enhancement is not None:
            kept["enhanced"] = self.enhancement.volume
        return {name: to_host(array) for name, array in kept.items()}

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        shares = {k: s for k, s in self.lesion_shares.items() if s is not None}
        level, width = ("–", "–") if self.window is None else map(str, self.window)
        return {
            "level HU": level.replace("-", "−"),
            "width HU": width,
            "lungs ml": f"{self.volumes_ml['lung']:.0f}",
            "lesions of the lungs": ", ".join(
                f"{name.replace('_', '-')} {share:.1%}" for name, share in shares.items()
            ),
            "status": self.status + (f" (preview {self.side})" if self.preview else ""),
        }

    def write_files(self, folder: Path, name: str) -> list[str]:
        """Write enhanced volume and masks as NIfTI and the series in its window as PNG.

        Raises
        ------
        OutputError
            When a file cannot be written.
        """
        from .dlpe_files import write_files

        return write_files(self, folder, name)

    def write_pictures(self, folder: Path, name: str, note: str) -> list[str]:
        """Write panels and montages; `note` says whose weights these are.

        Raises
        ------
        OutputError
            When a picture cannot be written.
        """
        from .dlpe_files import write_pictures

        return write_pictures(self, folder, name, note)

    def _window_report(self) -> dict[str, Any]:
        found = self.enhancement
        if found is None or self.window is None:
            keys = ("window_level", "window_width", "window", "baseline", "std_hu", "ring_voxels")
            return dict.fromkeys(keys)
        level, width = self.window
        outside = found.outside_lung
        return {
            "window_level": _rounded(found.window_level, 4),
            "window_width": _rounded(found.window_width, 4),
            "window": {"level": level, "width": width},
            "baseline": _rounded(found.baseline, 9),
            "std_hu": _rounded(found.std * catalog.HU_SCALE, 4),
            "ring_voxels": found.ring_voxels,
            "ring_outside_lung": outside,
            "ring_outside_lung_share": _rounded(outside / max(1, found.ring_voxels), 6),
            "baseline_fallback": found.fallback,
        }

    def _lesions_report(self) -> dict[str, Any]:
        ml = self.normalised.space.voxel_ml
        return {
            name: {
                "volume_ml": _rounded(self.volumes_ml[name], 3),
                "in_lungs_ml": _rounded(self.lesion_voxels[name] * ml, 3),
                "share_of_lungs": None if share is None else _rounded(share, 6),
            }
            for name, share in self.lesion_shares.items()
        }

    def _space_report(self) -> dict[str, Any]:
        space = self.normalised.space
        return {
            "shape": list(space.shape),
            "voxel_mm": [_rounded(mm, 6) for mm in space.voxel_mm],
            "field_mm": [_rounded(mm, 4) for mm in space.field_mm],
            "source_shape": list(space.source_shape),
            "source_spacing_mm": [_rounded(mm, 6) for mm in space.spacing],
            "tilt_degrees": _rounded(self.normalised.geometry.tilt, 3),
            "declared_450_mm": space.shortened,
        }

    def _passes_share(self) -> float | None:
        done, published = (self.counts.get(k) for k in ("passes", "published_passes"))
        return None if done is None or not published else _rounded(done / published, 4)


def _count(mask: Array, within: Array | None = None) -> int:
    """Voxels of a mask, and of another one; plane by plane, for little memory."""
    if within is None:
        return sum(int(np.count_nonzero(plane)) for plane in mask)
    pairs = zip(mask, within, strict=True)
    return sum(int(np.count_nonzero(np.logical_and(a, b))) for a, b in pairs)


def _rounded(value: float, digits: int) -> float | None:
    """A number for JSON, which has neither infinity nor NaN."""
    return round(float(value), digits) if math.isfinite(value) else None
