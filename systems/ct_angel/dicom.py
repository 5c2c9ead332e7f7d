"""CT-Angel's lesions in terms of DICOM objects: boxes on their slices, the patient's decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_angel as catalog
from hilum.results.canvas import RED
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Evaluation, Finding, Quantity, Segment

from ..ct_slices import SeriesSlices
from ..dicom_terms import stored_box
from .result import CtAngelResult, LesionBox

SLICES = codes.hilum("slices-positive", "Slices with a lesion")
MEAN = codes.hilum("lesion-prob", "Mean probability of the pixels of a lesion")


def content(result: CtAngelResult) -> Content:
    """Every box that counts, and the decision."""
    decision = {True: codes.POSITIVE, False: codes.NEGATIVE}.get(result.positive)  # type: ignore[arg-type]
    answers = [] if decision is None else [Evaluation(codes.DECISION, decision)]
    count = Quantity(SLICES, len(result.positive_slices), codes.COUNT)
    study = Finding(
        name="study", type=codes.STUDY, site=codes.CHEST, quantities=[count], evaluations=answers
    )
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.CT_CHEST,
        frames=_frames(result),
        lesions=_lesions(result),
        findings=[study, *_boxes(result)],
    )


def _lesions(result: CtAngelResult) -> list[Segment]:
    """Pixels of lesions with their probability; none where these were not kept (`heat`)."""
    if not isinstance(result.source, SeriesSlices):
        return []
    series = result.source.series
    heat = np.zeros(series.geometry.shape, np.uint8)
    for one in result.positive_slices:
        if one.heat is not None:
            heat[one.index] = _within_boxes(_on_slice(one.heat, one.shape), one.boxes)
    stored = series.reorientation.undo(heat)
    return [
        Segment(
            name="lesions",
            mask=(stored >= np.rint(255 * result.options.threshold)) & (stored > 0),
            category=codes.ABNORMAL,
            type=codes.LESION,
            region=codes.LUNG,
            colour=RED,
            model=catalog.LESION.model,
            probability=stored,
        )
    ]


def _frames(result: CtAngelResult) -> tuple[int, ...]:
    source = result.source
    return source.series.frames if isinstance(source, SeriesSlices) else ()


def _on_slice(heat: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A heat map on the slice, which was padded to a square on its right or lower side."""
    side, (height, width) = max(shape), shape
    whole = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole[:height, :width], np.uint8)


def _within_boxes(heat: NDArray[np.uint8], boxes: Sequence[LesionBox]) -> NDArray[np.uint8]:
    """A slice with nothing but the lesions that count."""
    kept = np.zeros_like(heat)
    for lesion in boxes:
        left, top, width, height = lesion.box_original
        area = np.s_[
            math.floor(top) : math.ceil(top + height), math.floor(left) : math.ceil(left + width)
        ]
        kept[area] = heat[area]
    return kept


def _boxes(result: CtAngelResult) -> list[Finding]:
    if not isinstance(result.source, SeriesSlices):
        return []
    series, found = result.source.series, []
    for one in result.positive_slices:
        for number, lesion in enumerate(one.boxes, 1):
            quantities = [
                Quantity(codes.AREA, lesion.area, codes.PIXELS),
                Quantity(MEAN, lesion.mean_probability, codes.ONE),
            ]
            found.append(
                Finding(
                    name=f"slice {one.index + 1} box {number}",
                    type=codes.LESION,
                    site=codes.LUNG,
                    box=stored_box(series, one.index, *lesion.box_original),
                    quantities=quantities,
                )
            )
    return found
