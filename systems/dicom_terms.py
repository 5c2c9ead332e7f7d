"""What several systems say in the same words when results become DICOM objects."""

from __future__ import annotations

from hilum.catalog.lungmask import LEFT, RIGHT
from hilum.preprocessing.reading.series import Series
from hilum.results.dicom import codes
from hilum.results.dicom.content import Box, Evaluation, Finding, Quantity, Segment
from hilum.results.sections import LUNG_COLOURS

_SIDES = {RIGHT: ("right lung", codes.RIGHT), LEFT: ("left lung", codes.LEFT)}


def lung_segments(labels: object, series: Series, model: str) -> list[Segment]:
    """Right and left lung.

    Parameters
    ----------
    labels
        uint8 [z, y, x] in LPS order: 1 right, 2 left.
    """
    stored = series.reorientation.undo(labels)  # type: ignore[arg-type]
    return [
        Segment(
            name=name,
            mask=stored == label,
            category=codes.ANATOMY,
            type=codes.LUNG,
            modifier=side,
            colour=LUNG_COLOURS[label],
            model=model,
        )
        for label, (name, side) in _SIDES.items()
    ]


def volume_finding(segment: Segment, ml: float, *quantities: Quantity) -> Finding:
    """A segment with its volume; one that is not there says so."""
    if segment.empty:
        return Finding(
            name=segment.name,
            type=segment.type,
            site=codes.CHEST,
            evaluations=[Evaluation(codes.PRESENCE, codes.NOT_FOUND)],
        )
    return Finding(
        name=segment.name,
        type=segment.type,
        segment=segment.name,
        quantities=[Quantity(codes.VOLUME, ml, codes.ML), *quantities],
    )


def stored_box(
    series: Series, index: int, left: float, top: float, width: float, height: float
) -> Box:
    """A rectangle of a slice in LPS order, on the slice of the file that it lies on.

    Parameters
    ----------
    index
        Of the slice, from 0, the lowest.
    left, top, width, height
        In pixels of the slice as `Series.slice` gives it.
    """
    turn, shape = series.reorientation, series.geometry.shape
    edges = ((index, index + 1), (top, top + height), (left, left + width))
    stored: list[tuple[float, float]] = [(0.0, 0.0)] * 3
    for axis, (low, high) in enumerate(edges):
        if turn.flips[axis]:
            low, high = shape[axis] - high, shape[axis] - low
        stored[turn.axes[axis]] = (low, high)
    (first, _), (upper, lower), (start, end) = stored
    return Box(int(first), start, upper, end, lower)
