"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Report(TypedDict):
    """What the report holds of one chest CT by DLPE, beside the fields of every system."""

    status: str
    """``ok``, or the worst of the flags."""
    flags: list[str]
    """What is unusual, the worst first."""
    study: str
    """Size and spacing of the scan in words; no identifiers."""
    cohort: str
    """Whose lesion networks ran on the enhanced volume."""
    preview: bool
    """The grid is coarser than the published one: not the published result."""
    preview_note: str | None
    """The same in words."""
    window_level: float | None
    """The window that suits the scan, in HU. None without lungs, as all fields down to
    `ring_voxels`."""
    window_width: float | None
    """The window that suits the scan, in HU. None without lungs, as all fields down to
    `ring_voxels`."""
    window: dict[str, Any] | None
    """``level`` and ``width`` in whole HU, as pictures use them; the width is 1 at least."""
    baseline: float | None
    """Density of healthy parenchyma, normalised: the level is −600 + 1600 × baseline."""
    std_hu: float | None
    """Standard deviation of the samples in HU."""
    ring_voxels: int | None
    """Samples of parenchyma."""
    ring_outside_lung: NotRequired[int]
    """Those of them that lie outside the lungs."""
    ring_outside_lung_share: NotRequired[float]
    """Their share. Above 0.05 the window of mode ``parity`` is not to be trusted."""
    baseline_fallback: NotRequired[bool]
    """There were too few samples, and the lungs without structures served instead."""
    volumes_ml: dict[str, Any]
    """Volume of each mask in ml, in normalised space."""
    voxels: dict[str, Any]
    """Voxels of each mask in normalised space."""
    lesions: dict[str, Any]
    """By set of lesions, a table of its own: see `Radiomics`."""
    severity_reference_hu: float | None
    """The baseline in HU: severity is HU above it."""
    sides: dict[str, Any] | None
    """``right_ml``, ``left_ml``, and ``flag``: ``ok``, ``single_lung``, or ``merged_lungs``."""
    lung_density_hu: float | None
    """Median density of the lungs in HU."""
    parenchyma_ml: float | None
    """Lungs without airways and vessels, in ml."""
    zones: dict[str, Any]
    """By set of lesions: six zones by height and two halves by depth, each with volume,
    share and score; ``score_0_24`` is the usual visual scale, computed by volume."""
    distribution: dict[str, Any]
    """By set and map (``pleura``, ``vessel``, ``airway``, ``branching``, ``height``):
    voxels of lesions and of parenchyma by bins, their ``ratio`` and ``enrichment``."""
    branching: dict[str, Any] | None
    """The vessel branching map: ``r1_mm``, ``r10_mm``, ``alpha``, ``share_level_above_9``,
    ``flag``."""
    lesion_table: dict[str, Any] | None
    """``file``, ``rows``, and ``min_voxels`` of a lesion that is listed."""
    quantification_flags: list[str]
    """``no_lesions``, ``single_lung``, ``merged_lungs``, ``no_vessel``, ``no_airway``,
    ``vessels_too_small``, ``preview_grid``, ``baseline_fallback``."""
    surfaces: list[dict[str, Any]] | None
    """Each surface's ``name``, ``vertices``, ``triangles``, ``area_mm2``, ``volume_ml``,
    ``closed``; None unless `--meshes` asks for them."""
    published_branching: dict[str, Any] | None
    """Numbers of the published map; None unless ``--branching parity`` asks for it."""
    normalised_space: dict[str, Any]
    """``shape``, ``voxel_mm``, ``field_mm`` as [x, y, z]; ``source_shape`` and
    ``source_spacing_mm`` as rows, columns, slices; ``tilt_degrees``; ``declared_450_mm``."""
    picture_slice: int
    """Slice of the three panels in normalised space, from 0 at the feet."""
    picture_slice_from_head: int
    """The same, from 1 at the head."""
    options: dict[str, Any]
    """What was chosen beside mode and cohort."""
    counts: dict[str, Any]
    """``passes`` of the networks out of ``published_passes``, ``slabs``,
    ``most_in_flight``, ``bytes_sent``, ``bytes_received``."""
    passes_share: float | None
    """Share of the published passes that were needed."""
    timings_s: dict[str, Any]
    """Seconds by stage."""
    notes: list[str]
    """What is unusual, in words."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
