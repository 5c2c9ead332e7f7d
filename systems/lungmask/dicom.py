"""A lung segmentation in terms of DICOM objects: both lungs and their volumes."""

from __future__ import annotations

from hilum.catalog import lungmask as catalog
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content

from ..dicom_terms import lung_segments, volume_finding
from .result import LungmaskResult


def content(result: LungmaskResult) -> Content:
    """Segments and volumes."""
    segments = lung_segments(result.lung, result.series, catalog.R231.model)
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.CT_CHEST,
        frames=result.series.frames,
        anatomy=segments,
        findings=[volume_finding(s, ml) for s, ml in zip(segments, result.volumes_ml, strict=True)],
    )
