"""What the slice classifier says about a series: slice by slice, and in a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_classifier as catalog
from hilum.catalog.terms import Mode
from hilum.postprocessing.ct_classifier.gradcam import (
    SHELLS,
    Laterality,
    SeriesSummary,
    grad_cam,
    heat_map,
    laterality,
    normalised,
    summarise,
)
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.slice_pictures import SlicePicture
from hilum.preprocessing.windows import display_window, doubts_about_hu

from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook
from .scores import Labels, LungSource, Scores

QUESTION = "COVID-like against normal; not a differential diagnosis"
"""What a probability is about: no other disease was in the training data."""


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One slice.

    Attributes
    ----------
    index
        From 0, the lowest of the series.
    from_head
        From 1, the highest; None for a picture.
    file_order
        Its number in the file's own order.
    position_mm
        Along the slices' normal, towards the head.
    number
        InstanceNumber.
    probability, logit
        After and before the sigmoid.
    positive
        The probability is at the threshold or above.
    cam_empty
        Nowhere does the map speak for disease: there is no heat.
    lung_share
        Share of the slice that is lung; None when it is not known.
    sides
        How the heat is spread over the lungs; None when they are not known.
    """

    index: int
    from_head: int | None
    file_order: int | None
    position_mm: float | None
    number: int | None
    probability: float
    logit: float
    positive: bool
    cam_empty: bool
    lung_share: float | None
    sides: Laterality | None

    def report(self) -> dict[str, Any]:
        """The slice's entry in the report."""
        return {
            "index": self.index,
            "slice_from_head": self.from_head,
            "number": self.number,
            "file_order": self.file_order,
            "position_mm": None if self.position_mm is None else round(self.position_mm, 4),
            "probability": self.probability,
            "logit": self.logit,
            "positive": self.positive,
            "cam_empty": self.cam_empty,
            "lung_share": None if self.lung_share is None else round(self.lung_share, 5),
            "laterality": None if self.sides is None else _sides(self.sides),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CtClassifierResult(DicomResult, ShownInNotebook):
    """A series slice by slice.

    Attributes
    ----------
    status
        "ok", or the worst of the flags.
    flags
        ``doubtful_hu``, ``cam_mismatch``, ``no_lung``, ``low_lung``, and those of
        `preprocessing.reading.notes`.
    profile, mode, threshold
        Generation of weights; ``parity`` or ``corrected``; a slice is positive from here on.
    slices, summary
        One for each slice, from the feet to the head; and the series in a few numbers.
    longest_run_mm
        Length of the longest run of positive slices; None for a picture.
    sides
        Heat of all positive slices by lung; None when the lungs are not known.
    lung_source, verdict_run
        Where the lungs come from; positive slices in a row that make a verdict. None without.
    notes, transport
        What is unusual, in words; how tensors reached the server.
    cam
        float32 [z, 8, 8], class activation maps, signed.
    lung
        uint8 [z, y, x] in LPS order, or None.
    study
        The series, or the picture.
    """

    system: ClassVar[str] = "ct-classifier"

    status: str
    flags: tuple[str, ...]
    profile: str
    mode: Mode
    threshold: float
    slices: tuple[SliceResult, ...]
    summary: SeriesSummary
    longest_run_mm: float | None
    sides: Laterality | None
    lung_source: LungSource | None
    verdict_run: int | None
    notes: tuple[str, ...]
    transport: str
    cam: NDArray[np.float32] = field(repr=False)
    lung: Labels | None = field(repr=False)
    study: Series | SlicePicture = field(repr=False)

    @property
    def patient_positive(self) -> bool | None:
        """The verdict by `verdict_run`: not a published rule, and None unless asked for."""
        if self.verdict_run is None:
            return None
        return self.summary.longest_run_slices >= self.verdict_run

    @property
    def breaks(self) -> tuple[int, ...]:
        """Slices after which slices are missing."""
        return self.study.breaks if isinstance(self.study, Series) else ()

    def where(self, index: int) -> str:
        """A slice as people look for it: from the head, with its number in the file's own order.

        Parameters
        ----------
        index
            From 0, the lowest of the series.
        """
        if not isinstance(self.study, Series):
            return f"slice {index + 1}"
        return self.study.where(index)

    @property
    def description(self) -> str:
        """Size of the study, human-readable."""
        if isinstance(self.study, Series):
            return self.study.description
        height, width = self.study.pixels.shape
        return f"a picture of {width} × {height}"

    def grey(self, index: int) -> NDArray[np.uint8]:
        """A slice as it is shown, uint8 [H, W]: in the lung window.

        Parameters
        ----------
        index
            From 0, the lowest of the series.
        """
        if isinstance(self.study, Series):
            return display_window(self.study.slice(index))
        return self.study.pixels

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        return {
            "status": self.status,
            "flags": list(self.flags),
            "question": QUESTION,
            "profile": self.profile,
            "threshold": self.threshold,
            "summary": _summary(self.summary, self.longest_run_mm),
            "laterality": None if self.sides is None else _sides(self.sides),
            "lungs_from": self.lung_source,
            "patient": None
            if self.verdict_run is None
            else {
                "positive": self.patient_positive,
                "rule": f"{self.verdict_run} consecutive positive slice(s); not a published rule",
            },
            "notes": list(self.notes),
            "slices": [s.report() for s in self.slices],
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `--save-arrays` keeps."""
        probability = np.array([s.probability for s in self.slices], np.float32)
        lung = {} if self.lung is None else {"lung": self.lung}
        return {"probability": probability, "gradcam": grad_cam(self.cam), **lung}

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        summary = self.summary
        row = {
            "slices": str(summary.slices),
            "positive": f"{summary.positive} ({summary.fraction:.0%})",
            "highest p": f"{summary.maximum:.3f} ({self.where(summary.maximum_at)})",
            "longest run": str(summary.longest_run_slices),
            "side": "–" if self.sides is None else self.sides.dominance,
        }
        if self.verdict_run is not None:
            row["patient"] = "positive" if self.patient_positive else "negative"
        return row | {"status": self.status}


def summarised(
    study: Series | SlicePicture,
    found: Scores,
    *,
    profile: str,
    mode: Mode,
    threshold: float,
    sides: bool,
    verdict_run: int | None,
) -> CtClassifierResult:
    """Put the scores of all slices together.

    Parameters
    ----------
    sides
        Sum the heat over the lungs, where they are known.
    """
    series = study if isinstance(study, Series) else None
    slices = tuple(
        _slice(series, found, index, threshold, profile, sides=sides)
        for index in range(len(found.scores))
    )
    breaks = () if series is None else series.breaks
    summary = summarise([s.probability for s in slices], threshold=threshold, breaks=breaks)
    flags, notes = _flags(series, found, slices, profile)
    return CtClassifierResult(
        status=flags[0] if flags else "ok",
        flags=flags,
        profile=profile,
        mode=mode,
        threshold=threshold,
        slices=slices,
        summary=summary,
        longest_run_mm=_run_mm(series, summary),
        sides=_total([s.sides for s in slices if s.positive and s.sides is not None])
        if sides and found.lung is not None
        else None,
        lung_source=found.lung_source,
        verdict_run=verdict_run,
        notes=notes,
        transport=found.scores[0].transport,
        cam=np.stack([s.cam for s in found.scores]),
        lung=found.lung,
        study=study,
    )


def _slice(
    series: Series | None,
    found: Scores,
    index: int,
    threshold: float,
    profile: str,
    *,
    sides: bool,
) -> SliceResult:
    score = found.scores[index]
    share, spread = None, None
    if found.lung is not None:
        lung = found.lung[index]
        share = float(np.count_nonzero(lung)) / lung.size
        if sides:
            rule = "pillow" if profile == catalog.MASKED else "opencv"
            grid = resize_nearest(lung, (catalog.SIZE, catalog.SIZE), rule)
            spread = laterality(heat_map(score.cam), grid)
    return SliceResult(
        index=index,
        from_head=None if series is None else series.from_head(index),
        file_order=None if series is None else series.file_order[index],
        position_mm=None if series is None else series.positions[index],
        number=None if series is None else series.numbers[index],
        probability=score.probability,
        logit=score.logit,
        positive=score.probability >= threshold,
        cam_empty=normalised(score.cam)[1],
        lung_share=share,
        sides=spread,
    )


def _flags(
    series: Series | None, found: Scores, slices: Sequence[SliceResult], profile: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is unusual: flags, and human-readable notes."""
    flags, notes = [], list(found.notes)
    if series is not None:
        notes[:0] = series.notes
        ranges = [s.hu_range for s in found.scores]
        if doubt := doubts_about_hu(min(r[0] for r in ranges), max(r[1] for r in ranges)):
            flags.append("doubtful_hu")
            notes.append(doubt)
        if missing := series.where_missing():
            flags.append("gaps")
            notes.append(
                f"slices are missing between slices {missing} from the head: runs end there"
            )
    if not found.maps_fit:
        flags.append("cam_mismatch")
        notes.append("the maps do not belong to the logits: the served file is not what it says")
    if found.lung is not None and profile == catalog.MASKED:
        small = [s for s in slices if (s.lung_share or 0) < catalog.LOW_LUNG_SHARE]
        blind = sum(s.positive for s in small)
        if len(small) == len(slices):
            flags.append("no_lung")
        elif blind:
            flags.append("low_lung")
        if small:
            notes.append(
                f"{len(small)} slice(s) with less than {catalog.LOW_LUNG_SHARE:.0%} lung, "
                f"{blind} of them positive: the network saw (next to) nothing there"
            )
    flags += () if series is None else series.flags
    return tuple(flags), tuple(notes)


def _run_mm(series: Series | None, summary: SeriesSummary) -> float | None:
    """Extent of the longest run, one slice spacing for each slice."""
    if series is None or summary.longest_run is None or len(series) < 2:
        return None
    return series.length_mm(*summary.longest_run)


def _total(sides: Sequence[Laterality]) -> Laterality:
    """Heat of several slices."""

    def shells(parts: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(map(sum, zip(*parts, strict=True))) if parts else (0.0,) * len(SHELLS)

    return Laterality(
        sum(s.right for s in sides),
        sum(s.left for s in sides),
        shells([s.shells_right for s in sides]),
        shells([s.shells_left for s in sides]),
    )


def _sides(sides: Laterality) -> dict[str, Any]:
    share = sides.share_right

    def rounded(values: Sequence[float]) -> dict[str, float]:
        return {name: round(v, 3) for name, v in zip(SHELLS, values, strict=True)}

    return {
        "dominance": sides.dominance,
        "q_right": round(sides.right, 3),
        "q_left": round(sides.left, 3),
        "share_right": None if share is None else round(share, 5),
        "quarters_right": rounded(sides.shells_right),
        "quarters_left": rounded(sides.shells_left),
    }


def _summary(summary: SeriesSummary, run_mm: float | None) -> dict[str, Any]:
    run = summary.longest_run
    return {
        "slices": summary.slices,
        "positive": summary.positive,
        "fraction": summary.fraction,
        "maximum": summary.maximum,
        "maximum_at": summary.maximum_at,
        "longest_run": None
        if run is None
        else {
            "first": run[0],
            "last": run[1],
            "slices": summary.longest_run_slices,
            "length_mm": None if run_mm is None else round(run_mm, 3),
        },
    }
