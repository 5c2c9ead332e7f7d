"""A classified series in terms of DICOM objects: lungs, probabilities, the verdict if asked for."""

from __future__ import annotations

from hilum.catalog import ct_classifier as catalog
from hilum.catalog.lungmask import R231
from hilum.preprocessing.reading.series import Series
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Evaluation, Finding, Quantity

from ..dicom_terms import lung_segments
from .result import CtClassifierResult

HIGHEST = codes.hilum("covid-highest", "Highest probability of COVID-19 of a slice")
SHARE = codes.hilum("positive-slices", "Share of positive slices")


def content(result: CtClassifierResult) -> Content:
    """Probabilities of the series in a few numbers, as in the report."""
    series = result.study if isinstance(result.study, Series) else None
    lungs = []
    if series is not None and result.lung is not None:
        lungs = lung_segments(result.lung, series, R231.model)
    summary, decision = result.summary, result.patient_positive
    answers = []
    if decision is not None:
        answers = [Evaluation(codes.DECISION, codes.POSITIVE if decision else codes.NEGATIVE)]
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.CT_CHEST,
        anatomy=lungs,
        findings=[
            Finding(
                name="series",
                type=codes.STUDY,
                site=codes.CHEST,
                quantities=[
                    Quantity(HIGHEST, summary.maximum, codes.ONE),
                    Quantity(SHARE, summary.fraction, codes.ONE),
                ],
                evaluations=answers,
            )
        ],
    )
