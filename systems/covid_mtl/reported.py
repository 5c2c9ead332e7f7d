"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import Any, TypedDict


class Report(TypedDict):
    """What the report holds of one chest CT by COVID-MTL, beside the fields of every system."""

    status: str
    """``ok``, or the worst of the flags."""
    flags: list[str]
    """What casts doubt on the answers, the worst first."""
    study: str
    """Size and spacing of the scan in words; no identifiers."""
    mode: str
    """``parity`` or ``corrected``."""
    network: str
    """Name of the network: ``dual``, ``volume`` and others."""
    placement: str
    """Where the features were computed: ``client`` or ``server``; ``none`` for a network
    without."""
    p_ct: dict[str, Any]
    """Probability of each class: of the CT, of the nucleic-acid test, of the severity.
    Those that the network answers."""
    p_nat: dict[str, Any]
    """Probability of each class: of the CT, of the nucleic-acid test, of the severity.
    Those that the network answers."""
    p_severity: dict[str, Any]
    """Probability of each class: of the CT, of the nucleic-acid test, of the severity.
    Those that the network answers."""
    classes: dict[str, Any]
    """The most probable class of each."""
    consistent: bool | None
    """Nucleic-acid test and severity agree; None for a network with one answer."""
    lung_ml: float
    """Volume of the lungs in ml."""
    share_in_box: float
    """Share of the lungs in the common box, 0 to 1."""
    share_in_window: float
    """Share of that in the window of the networks, 0 to 1."""
    shape: list[int]
    """Of the scan as [z, y, x] in voxels of 1 mm."""
    spacing_mm: list[float]
    """Of its voxels before, as z, y, x."""
    features: dict[str, Any] | None
    """The 375 features by their published names, as computed; None where one cannot be computed."""
    replaced: list[str] | None
    """Features for which the mean of the published cases stood in."""
    clipped: list[str] | None
    """Features that were limited."""
    timings_s: dict[str, Any]
    """Seconds by stage: ``read``, ``resample``, ``lungs``, ``box``, ``features``,
    ``network``, ``total``. Features from the server are part of ``network``."""
    notes: list[str]
    """What is unusual, in words."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
