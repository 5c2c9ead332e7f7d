"""What structured reports say, read with pydicom: numbers, answers and references by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

TRACKING = "112039"


@dataclass
class Group:
    """One group of measurements.

    Attributes
    ----------
    numbers
        By the value of their code.
    units
        Of the same.
    answers
        Meaning of each coded answer, by the value of its question's code.
    segments
        SOPInstanceUID and number of segments that are referred to.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    segments: list[tuple[str, int]] = field(default_factory=list)


def walk(dataset: Any) -> Iterator[Any]:
    """A dataset and those of its sequences, at every depth."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from walk(item)


def groups(report: Path) -> dict[str, Group]:
    """The groups of a report by their tracking identifier."""
    found: dict[str, Group] = {}
    for item in walk(dcmread(report)):
        children = item.get("ContentSequence", [])
        names = [c.TextValue for c in children if _code(c) == TRACKING]
        if names:
            assert str(names[0]) not in found
            found[str(names[0])] = _group(children)
    return found


def _group(children: Any) -> Group:
    group = Group()
    for child in children:
        if child.ValueType == "NUM":
            (value,) = child.MeasuredValueSequence
            assert _code(child) not in group.numbers
            group.numbers[_code(child)] = float(value.NumericValue)
            group.units[_code(child)] = value.MeasurementUnitsCodeSequence[0].CodeValue
        elif child.ValueType == "CODE":
            group.answers[_code(child)] = str(child.ConceptCodeSequence[0].CodeMeaning)
        for one in child.get("ReferencedSOPSequence", []):
            if "ReferencedSegmentNumber" in one:
                place = str(one.ReferencedSOPInstanceUID), int(one.ReferencedSegmentNumber)
                group.segments.append(place)
    return group


def _code(item: Any) -> str:
    return (
        str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
    )
