"""What CT-Angel finds: on one slice, and in a whole study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_angel as ct
from hilum.postprocessing.ct_angel.boxes import Lesion, Rectangle, SliceFinding, scale_rectangle
from hilum.postprocessing.ct_angel.patient_rule import PatientDecision, Run, decide
from hilum.preprocessing.windows import doubts_about_hu

from ..ct_slices import Slices, WindowedSlice
from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook
from .options import Options

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class LesionBox:
    """One lesion on one slice.

    Attributes
    ----------
    box, box_original
        x, y, width, height in the network's frame and in pixels of the slice.
    area
        Its pixels in the network's frame.
    centroid
        x and y in the network's frame.
    mean_probability, max_probability
        Over its pixels.
    quadrants
        What it flags, see `catalog.ct_angel.QUADRANTS`.
    """

    box: Rectangle
    box_original: Rectangle
    area: int
    centroid: tuple[float, float]
    mean_probability: float
    max_probability: float
    quadrants: tuple[int, ...]

    def report(self) -> dict[str, Any]:
        """The fields of the report."""
        return {
            "box": list(self.box),
            "box_original": list(self.box_original),
            "box_area": self.box[2] * self.box[3],
            "mask_area": self.area,
            "mean_probability": round(self.mean_probability, 4),
            "max_probability": round(self.max_probability, 4),
            "centroid": [round(c, 2) for c in self.centroid],
            "quadrants": [ct.QUADRANTS[q] for q in self.quadrants],
        }


@dataclass(frozen=True, slots=True)
class SliceResult:
    """What one slice shows.

    Attributes
    ----------
    index
        From 0, the lowest.
    shown
        Its number as people count: from the head, slices that are no series in their own order.
    number, position
        InstanceNumber, and mm along the slices' normal; None where it is not known.
    file_order
        Its number in the file's own order.
    boxes
        Lesions that count.
    dropped
        Lesions outside the valid region.
    valid, valid_original
        The valid region's rectangle in the network's frame and in pixels of the slice; None when
        it was not looked for or not found.
    valid_missing
        It was looked for and not found, so that nothing counts.
    shape
        Height and width of the slice.
    range_hu
        Lowest and highest HU; None for a picture.
    notes
        What is unusual, in words.
    transport
        How tensors reached the server.
    heat
        uint8 [S, S], 255 × probability; only for positive slices, and when
        heat maps or DICOM objects are asked for (`keep_heat`).
    """

    index: int
    shown: int
    number: int | None
    file_order: int | None
    position: float | None
    boxes: tuple[LesionBox, ...]
    dropped: int
    valid: Rectangle | None
    valid_original: Rectangle | None
    valid_missing: bool
    shape: tuple[int, int]
    range_hu: tuple[int, int] | None
    notes: tuple[str, ...]
    transport: str
    heat: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def positive(self) -> bool:
        """At least one lesion counts."""
        return bool(self.boxes)

    @property
    def quadrants(self) -> tuple[int, ...]:
        """Quadrants flagged by any lesion, ascending."""
        return tuple(sorted({q for box in self.boxes for q in box.quadrants}))

    def report(self) -> dict[str, Any]:
        """The fields of the report."""
        return {
            "slice": self.index + 1,
            "slice_from_head": self.shown if self.position is not None else None,
            "file_order": self.file_order,
            "instance_number": self.number,
            "position_mm": None if self.position is None else round(self.position, 3),
            "size": [self.shape[1], self.shape[0]],
            "positive": self.positive,
            "quadrants": [ct.QUADRANTS[q] for q in self.quadrants],
            "boxes": [box.report() for box in self.boxes],
            "outside_valid_region": self.dropped,
            "valid_region": None if self.valid is None else list(self.valid),
            "valid_region_missing": self.valid_missing,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CtAngelResult(DicomResult, ShownInNotebook):
    """Lesions in one CT study, and the decision for the patient.

    Attributes
    ----------
    positive
        The patient rule's decision; None where it cannot be applied: pictures, whose order is not
        known, and fewer slices than it asks for.
    runs
        Consecutive slices that flag the same quadrant, at least `run_length` of them.
    slices
        One for each slice, from the lowest.
    status
        "ok", or the worst of the flags.
    flags
        What is unusual: doubtful_hu, independent_slices, too_few_slices, gaps, no_valid_region,
        wide_spacing, and those of `preprocessing.reading.notes`.
    notes
        The same and more, human-readable; free of identifiers.
    description
        Size and spacing of the study in words.
    options
        Of the run.
    kept
        float16 `probability` and uint8 `mask` [z, S, S]; empty unless asked for.
    source
        Reads slices again, for pictures.
    """

    system: ClassVar[str] = "ct-angel"

    positive: bool | None
    runs: tuple[Run, ...]
    slices: tuple[SliceResult, ...]
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    description: str
    options: Options
    kept: Arrays = field(repr=False, compare=False)
    source: Slices = field(repr=False, compare=False)

    @property
    def quadrant_names(self) -> tuple[str, str, str, str]:
        """Names of the quadrants for people: sides of the patient where they are known."""
        return ct.PATIENT_QUADRANTS if self.source.sides_known else ct.QUADRANTS

    @property
    def status(self) -> str:
        """Status of the study."""
        return self.flags[0] if self.flags else "ok"

    @property
    def positive_slices(self) -> tuple[SliceResult, ...]:
        """Slices with a lesion that counts."""
        return tuple(s for s in self.slices if s.positive)

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        window, options = self.options.grey.window, self.options
        parity = options.mode == "parity"
        return {
            "status": self.status,
            "flags": list(self.flags),
            "positive": self.positive,
            "runs": [_run(run, len(self.slices)) for run in self.runs],
            "slice_count": len(self.slices),
            "positive_slices": len(self.positive_slices),
            "study": self.description,
            "window": {
                "preset": options.window if options.window in ct.WINDOWS else None,
                "width": window.width,
                "level": window.level,
            },
            "jpeg": options.grey.jpeg,
            "threshold": options.threshold,
            "valid_filter": options.valid_filter,
            "valid_threshold": None if options.valid_filter == "off" else options.valid_threshold,
            "size_mode": None if parity else options.size_mode,
            "max_boxes": ct.PARITY_BOXES if parity else options.max_boxes or None,
            "quadrant_mode": options.quadrant_mode,
            "run_length": options.run_length,
            "notes": list(self.notes),
            "transport": self.slices[0].transport,
            "slices": [s.report() for s in self.slices],
        }

    def arrays(self) -> Arrays:
        """What `--save-arrays` keeps."""
        return self.kept

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        count = len(self.slices)
        runs = [f"{ct.QUADRANTS[r.quadrant]} {count - r.last}–{count - r.first}" for r in self.runs]
        return {
            "patient": {True: "POSITIVE", False: "negative", None: "–"}[self.positive],
            "positive slices": f"{len(self.positive_slices)} of {len(self.slices)}",
            "runs": ", ".join(runs[:4]) + (" …" if len(runs) > 4 else ""),
            "status": self.status,
        }


def slice_result(
    index: int,
    slices: Slices,
    windowed: WindowedSlice,
    finding: SliceFinding,
    cap: int,
    *,
    side: int,
    heat: NDArray[np.uint8] | None,
    transport: str,
) -> SliceResult:
    """Keep of one slice what the study needs, and no masks.

    Parameters
    ----------
    cap
        Largest number of boxes; 0: all.
    side
        Of the network's frame.
    """
    height, width = windowed.pixels.shape
    shape = (height, width)
    lesions = finding.lesions[:cap] if cap else finding.lesions
    valid = finding.valid
    return SliceResult(
        index=index,
        shown=len(slices) - index if slices.ordered else index + 1,
        number=slices.numbers[index],
        file_order=slices.file_order[index],
        position=None if slices.positions is None else slices.positions[index],
        boxes=tuple(_box(lesion, side, shape) for lesion in lesions),
        dropped=finding.dropped,
        valid=valid,
        valid_original=None if valid is None else scale_rectangle(valid, side, shape),
        valid_missing=finding.valid_missing,
        shape=shape,
        range_hu=windowed.range_hu,
        notes=windowed.notes,
        transport=transport,
        heat=heat,
    )


def study_result(
    slices: Slices, found: Sequence[SliceResult], options: Options, arrays: Arrays
) -> CtAngelResult:
    """Decide for the patient and say what limits the decision."""
    applies = slices.ordered and len(found) >= options.run_length
    decision = PatientDecision(())
    if slices.ordered:
        decision = decide(
            [s.quadrants for s in found],
            positions=slices.positions,
            breaks=slices.breaks,
            length=options.run_length,
        )
    doubt = _doubt(found)
    lost = options.valid_filter != "off" and all(s.valid_missing for s in found)
    flags = {
        "doubtful_hu": doubt is not None,
        "independent_slices": not slices.ordered,
        "too_few_slices": slices.ordered and not applies,
        "gaps": bool(slices.breaks),
        "no_valid_region": lost,
        "wide_spacing": decision.wide_spacing,
        **dict.fromkeys(slices.flags, True),
    }
    notes = [
        *slices.notes,
        *dict.fromkeys(note for s in found for note in s.notes),
        *([doubt] if doubt else []),
        *decision.notes,
        *_notes_on_rules(slices, options, lost),
    ]
    return CtAngelResult(
        positive=decision.positive if applies else None,
        runs=decision.runs,
        slices=tuple(found),
        flags=tuple(name for name, is_set in flags.items() if is_set),
        notes=tuple(notes),
        description=slices.description,
        options=options,
        kept=arrays,
        source=slices,
    )


def _box(lesion: Lesion, side: int, shape: tuple[int, int]) -> LesionBox:
    return LesionBox(
        lesion.box, scale_rectangle(lesion.box, side, shape), lesion.area, lesion.centroid,
        lesion.mean_probability, lesion.max_probability, lesion.quadrants,
    )  # fmt: skip


def _run(run: Run, count: int) -> dict[str, Any]:
    return {
        "quadrant": ct.QUADRANTS[run.quadrant],
        "first": run.first + 1,
        "last": run.last + 1,
        "from_head": [count - run.last, count - run.first],
        "slices": run.slices,
        "length_mm": None if run.length_mm is None else round(run.length_mm, 3),
    }


def _doubt(found: Sequence[SliceResult]) -> str | None:
    ranges = [s.range_hu for s in found if s.range_hu is not None]
    if not ranges:
        return None
    return doubts_about_hu(min(low for low, _ in ranges), max(high for _, high in ranges))


def _notes_on_rules(slices: Slices, options: Options, lost: bool) -> list[str]:
    notes = []
    if not slices.ordered:
        notes.append("no patient decision: it takes the slices of one series, in order")
    if options.mode == "parity":
        notes.append(
            "boxes as in the published program; it has no patient rule, the article's is applied"
        )
    elif options.valid_filter == "off":
        notes.append("no valid-region filter: what looks like a lesion outside the lungs counts")
    if lost:
        notes.append("no slice has a valid region, so nothing counts")
    return notes
