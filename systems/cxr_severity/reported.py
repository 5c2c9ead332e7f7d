"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import TypedDict


class Report(TypedDict):
    """What the report holds of one chest X-ray, beside the fields of every system."""

    status: str
    """``ok``, the worst of the flags, or ``network_finds_nothing``."""
    flags: list[str]
    """What is unusual about the lung mask."""
    score: int | None
    """0 to 6; None where there are no lungs to score (mode corrected)."""
    zones: list[str]
    """Names of the six zones, in the order of the fractions. Sides are those of the image."""
    fractions: list[float | None]
    """Diseased share of each zone, 0 to 1; None for a zone of a lung that is not there."""
    fractions_ungated: list[float | None]
    """The same, had the network's image-level gate not been applied."""
    zone_threshold: float
    """A zone above this share adds one point."""
    disease_probability: float
    """Image-level probability of disease, 0 to 1."""
    gated: bool
    """The gate silenced the disease mask: the probability is at most 0.5."""
    box: list[int]
    """Crop of the lungs: left, top, right, bottom in the network's frame; the last two are
    outside."""
    box_original: list[float]
    """The same in pixels of the X-ray."""
    lung_components: int
    """Connected parts of the lung mask."""
    lung_area_px: int
    """Pixels of the lung mask in the network's frame."""
    network: str
    """The stage II network."""
    decode: list[str]
    """How the file was decoded, step by step."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
