"""COVID-MTL's answers in terms of DICOM objects: the lungs and a probability for each class."""

from __future__ import annotations

import numpy as np

from hilum.catalog import covid_mtl as catalog
from hilum.preprocessing.covid_mtl.resample import to_grid
from hilum.results.canvas import CYAN
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Evaluation, Finding, Quantity, Segment

from ..dicom_terms import volume_finding
from .result import CovidMtlResult


def content(result: CovidMtlResult) -> Content:
    """Lungs with their volume, and each head that was answered."""
    lungs = _lungs(result)
    findings = [volume_finding(s, result.lung_ml) for s in lungs]
    for head, values in result.probabilities.items():
        findings.append(_answer(head, values, result.classes[head]))
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.CT_CHEST,
        anatomy=lungs,
        findings=findings,
        frames=() if result.series is None else result.series.frames,
    )


def _lungs(result: CovidMtlResult) -> list[Segment]:
    series, geometry = result.series, result.prepared.geometry
    if series is None or geometry is None:
        return []
    mask = to_grid(result.prepared.lungs.mask, geometry, series.stored_geometry)
    return [
        Segment(
            name="lungs", mask=mask, category=codes.ANATOMY, type=codes.LUNG, colour=CYAN, model=""
        )
    ]


def _answer(head: str, values: np.ndarray, predicted: str) -> Finding:
    """One question with the probability of each class."""
    classes = catalog.HEADS[head].classes
    quantities = [
        Quantity(codes.hilum(_word(f"{head} {name}"), f"Probability: {name}"), value, codes.ONE)
        for name, value in zip(classes, values.tolist(), strict=True)
    ]
    answer = codes.hilum(_word(f"class {predicted}"), predicted)
    return Finding(
        name=f"answer {head}",
        type=codes.STUDY,
        site=codes.CHEST,
        quantities=quantities,
        evaluations=[Evaluation(codes.PREDICTED, answer)],
    )


def _word(text: str) -> str:
    """A code value of at most 16 characters, as the standard asks for."""
    return "-".join(text.lower().replace("/", " ").split())[:16].rstrip("-")
