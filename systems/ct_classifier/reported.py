"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import Any, TypedDict


class SliceReport(TypedDict):
    """One slice."""

    index: int
    """From 0, the lowest."""
    slice_from_head: int | None
    """From 1, the highest; None for a picture."""
    number: int | None
    """InstanceNumber of a DICOM file."""
    file_order: int | None
    """The same, else the place in the file."""
    position_mm: float | None
    """Along the slices' normal, towards the head."""
    probability: float
    """0 to 1: see `question` of the report."""
    logit: float
    """The same before the sigmoid."""
    positive: bool
    """The probability is at the threshold or above."""
    cam_empty: bool
    """Nowhere does the map speak for disease: there is no heat."""
    lung_share: float | None
    """Share of the slice that is lung, 0 to 1."""
    laterality: dict[str, Any] | None
    """How the heat is spread over the lungs, as in the report."""


class Report(TypedDict):
    """What the report holds of a study by the slice classifier, beside the fields of all."""

    status: str
    """``ok``, or the worst of the flags."""
    flags: list[str]
    """What is unusual."""
    question: str
    """What a probability is about."""
    profile: str
    """``raw_hu`` or ``masked``: which generation of weights."""
    threshold: float
    """A slice from this probability on is positive."""
    summary: dict[str, Any]
    """``slices``, ``positive``, ``fraction``, ``maximum``, ``maximum_at`` (index),
    ``longest_run`` with ``first``, ``last``, ``slices``, ``length_mm``."""
    laterality: dict[str, Any] | None
    """Heat of the positive slices by lung: ``dominance``, ``q_right``, ``q_left``,
    ``share_right``, ``quarters_right``, ``quarters_left``. None where lungs are not known."""
    lungs_from: str | None
    """Where the lungs come from: ``series``, ``slice``, or None."""
    patient: dict[str, Any] | None
    """``positive`` and its ``rule``; None unless a verdict was asked for."""
    notes: list[str]
    """What is unusual, in words."""
    slices: list[SliceReport]
    """One for each slice, from the feet to the head: see `SliceReport`."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
