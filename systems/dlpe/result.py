"""What DLPE finds in one chest CT: window, enhanced volume, masks, and how they came about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import dlpe as catalog
from hilum.catalog.terms import Mode
from hilum.preprocessing.arrays import Array, to_host

from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook
from .quantities import EMPTY, TABLE

if TYPE_CHECKING:
    from hilum.postprocessing.dlpe.branching_published import PublishedBranching
    from hilum.postprocessing.dlpe.enhancement import Enhancement
    from hilum.postprocessing.dlpe.quantities import Quantities
    from hilum.preprocessing.dlpe.space import Normalised
    from hilum.preprocessing.reading.series import Series
    from hilum.results.meshes import Surface

SHORTENED = "declared_450_mm"
"""Flag: mode ``parity`` took a longer stack for 450 mm: lengths and volumes are too small."""

NOT_TRUSTED = "window_not_trusted"

RING_OUTSIDE = 0.05
"""Share of samples outside the lungs, which count as −600 HU in mode parity, from which on the
baseline is more theirs than that of parenchyma."""

LESIONS = ("visible", "follow_up", "in_patient", "lesion")
"""Masks of lesions: on the CT; on the enhanced volume, by the cohort of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DlpeResult(DicomResult, ShownInNotebook):
    """Parenchyma of one chest CT.

    Attributes
    ----------
    source
        What the study is, human-readable: size and spacing; free of identifiers.
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
    quantities
        What was measured in lungs and lesions; None where nothing was.
    surfaces
        Of lungs, trees and lesions; None where they were not asked for.
    published_branching
        The vessel branching map as published; None where it was not asked for.
    timings
        Seconds by stage.
    counts
        Whole numbers by name: ``passes`` (of the networks) of ``published_passes``, ``slabs``,
        ``bytes_sent``, ``bytes_received`` and more.
    flags
        What is unusual, the worst first.
    notes
        The same and more, human-readable and free of identifiers.
    transport
        How tensors reached the server.
    series
        The series on its own grid; None for a volume that came normalised.
    weights_note
        Whose weights these are when they are not the published ones, for headers of files.
    options
        What was chosen beside mode and cohort, for the report.
    """

    system: ClassVar[str] = "dlpe"

    source: str
    mode: Mode
    cohort: catalog.Cohort
    preview: bool
    slice: int | None = None
    normalised: Normalised = field(repr=False)
    masks: Mapping[str, Array] = field(repr=False)
    enhancement: Enhancement | None = field(repr=False)
    quantities: Quantities | None = field(default=None, repr=False)
    surfaces: tuple[Surface, ...] | None = field(default=None, repr=False)
    published_branching: PublishedBranching | None = field(default=None, repr=False)
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
        share = self.ring_outside_share
        if share > RING_OUTSIDE and NOT_TRUSTED not in self.flags:
            note = (
                f"{share:.0%} of the samples of the baseline lie outside the lungs, so the window "
                "is not to be trusted; run with --mode corrected"
            )
            object.__setattr__(self, "flags", (NOT_TRUSTED, *self.flags))
            object.__setattr__(self, "notes", (*self.notes, note))
        if self.normalised.space.shortened and SHORTENED not in self.flags:
            object.__setattr__(self, "flags", (*self.flags, SHORTENED))

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
        """Window level and width in whole HU, as the published program prints them.

        The width is 1 at least, so that pictures can be shown in it.
        """
        found = self.enhancement
        if found is None:
            return None
        return round(found.window_level), max(1, round(found.window_width))

    @property
    def ring_outside_share(self) -> float:
        """Share of the samples of the baseline that lie outside the lungs."""
        found = self.enhancement
        return 0.0 if found is None else found.outside_lung / max(1, found.ring_voxels)

    @property
    def preview_note(self) -> str:
        """What a coarser grid means, human-readable; empty at the published grid."""
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
            **self._quantities_report(),
            "normalised_space": self._space_report(),
            "picture_slice": self.picture_slice,
            "picture_slice_from_head": self.normalised.space.shape[2] - self.picture_slice,
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
        if self.quantities is not None and self.quantities.branching.level is not None:
            kept["branching"] = self.quantities.crop.uncut(self.quantities.branching.level)
        if self.published_branching is not None:
            kept["branching_published"] = self.published_branching.level
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
            "ring_outside_lung_share": _rounded(self.ring_outside_share, 6),
            "baseline_fallback": found.fallback,
        }

    def _quantities_report(self) -> dict[str, Any]:
        found = self.quantities
        published = self.published_branching
        branching = None if published is None else finite(published.report())
        made = None if self.surfaces is None else [finite(s.report()) for s in self.surfaces]
        if found is None:
            return {**EMPTY, "surfaces": made, "published_branching": branching}
        flags = list(found.flags)
        if self.preview:
            flags.append("preview_grid")
        if self.enhancement is not None and self.enhancement.fallback:
            flags.append("baseline_fallback")
        report = found.report()
        listed = {"file": TABLE, **report["lesion_table"]}
        more = {"lesion_table": listed, "quantification_flags": flags}
        return {**finite({**report, **more}), "surfaces": made, "published_branching": branching}

    def _lesions_report(self) -> dict[str, Any]:
        ml = self.normalised.space.voxel_ml
        sets = {} if self.quantities is None else finite(self.quantities.sets_report())
        segmented = {
            name: {
                "volume_ml": _rounded(self.volumes_ml[name], 3),
                "in_lungs_ml": _rounded(self.lesion_voxels[name] * ml, 3),
                "share_of_lungs": None if share is None else _rounded(share, 6),
            }
            for name, share in self.lesion_shares.items()
        }
        # Fields that the mask as it is has already are not overwritten by those within parenchyma.
        return {
            name: {
                "in_parenchyma_ml": sets.get(name, {}).get("volume_ml"),
                **sets.get(name, {}),
                **segmented.get(name, {}),
            }
            for name in dict.fromkeys((*segmented, *sets))
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


def finite(value: Any, digits: int = 6) -> Any:
    """Values for JSON: numbers rounded, None for infinity and NaN; in lists and mappings, too."""
    if isinstance(value, Mapping):
        return {key: finite(one, digits) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one, digits) for one in value]
    return _rounded(value, digits) if isinstance(value, float) else value
