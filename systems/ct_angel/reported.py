"""The fields of the report: names, types, units."""

from __future__ import annotations

from typing import Any, TypedDict


class BoxReport(TypedDict):
    """One lesion on one slice."""

    box: list[int]
    """x, y, width, height in the network's frame."""
    box_original: list[int]
    """The same in pixels of the slice."""
    box_area: int
    """Width times height in the network's frame."""
    mask_area: int
    """Pixels of the lesion there."""
    mean_probability: float
    """Over its pixels, 0 to 1."""
    max_probability: float
    """Over its pixels, 0 to 1."""
    centroid: list[float]
    """x and y in the network's frame."""
    quadrants: list[str]
    """What it flags."""


class SliceReport(TypedDict):
    """One slice."""

    slice: int
    """From 1, the lowest."""
    slice_from_head: int | None
    """From 1, the highest; None for pictures."""
    file_order: int | None
    """InstanceNumber, else the place in the file."""
    instance_number: int | None
    """InstanceNumber of a DICOM file."""
    position_mm: float | None
    """Along the slices' normal, towards the head."""
    size: list[int]
    """Width and height in pixels."""
    positive: bool
    """At least one lesion counts."""
    quadrants: list[str]
    """Quadrants that its lesions flag."""
    boxes: list[BoxReport]
    """One for each lesion that counts: see `BoxReport`."""
    outside_valid_region: int
    """Lesions that do not count."""
    valid_region: list[int] | None
    """Its rectangle: x, y, width, height in the network's frame."""
    valid_region_missing: bool
    """It was looked for and not found."""


class Report(TypedDict):
    """What the report holds of one study by CT-Angel, beside the fields of every system."""

    status: str
    """``ok``, or the worst of the flags."""
    flags: list[str]
    """What is unusual."""
    positive: bool | None
    """The patient rule's decision; None for pictures, and for fewer slices than a run has."""
    runs: list[dict[str, Any]]
    """Slices in a row that flag the same quadrant: ``quadrant``, ``first`` and ``last``
    (from 1 at the feet), ``from_head``, ``slices``, ``length_mm``."""
    slice_count: int
    """Slices of the study."""
    positive_slices: int
    """Those with a lesion that counts."""
    study: str
    """Size and spacing in words; no identifiers."""
    window: dict[str, Any]
    """``preset`` (None for one of your own), ``width`` and ``level`` in HU."""
    jpeg: bool
    """Slices went through a JPEG, as in the published program."""
    threshold: float
    """A pixel from this probability on belongs to a lesion."""
    valid_filter: str
    """How the valid region filters lesions: ``centroid``, ``overlap``, or ``off``."""
    valid_threshold: float | None
    """Of the valid region's probability; None where it does not filter."""
    size_mode: str | None
    """What is measured for the smallest size: ``box`` or ``mask``; None in mode ``parity``."""
    max_boxes: int | None
    """Most boxes on a slice; None for all."""
    quadrant_mode: str
    """A lesion flags the quadrants of its ``pixels``, or that of its ``centroid``."""
    run_length: int
    """Slices in a row that make a patient positive."""
    notes: list[str]
    """What is unusual, in words."""
    transport: str
    """How tensors reached the server: ``grpc``, ``shm`` or ``cuda``."""
    slices: list[SliceReport]
    """One for each slice: see `SliceReport`."""
