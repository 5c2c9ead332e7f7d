"""Severity of an X-ray in terms of DICOM objects: lungs, disease, zones, score."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from hilum.catalog import cxr_severity as catalog
from hilum.preprocessing.reading.dicom_xray import as_stored
from hilum.preprocessing.reading.parsing import quiet
from hilum.results.canvas import CYAN, RED
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Finding, Quantity, Segment

from .result import CxrResult


def content(result: CxrResult, file: Path) -> Content:
    """Masks on the rows and columns of the file, and the numbers of the report."""
    with quiet():
        header = dcmread(file, stop_before_pixels=True, specific_tags=["PatientOrientation"])
    disease = catalog.SYSTEM.network(result.network).model
    lungs = Segment(
        name="lungs",
        mask=as_stored(_whole(result, result.lung), header),
        category=codes.ANATOMY,
        type=codes.LUNG,
        colour=CYAN,
        model=catalog.LUNG.model,
    )
    lesions = Segment(
        name="disease",
        mask=as_stored(_cropped(result, result.disease512), header),
        category=codes.ABNORMAL,
        type=codes.LESION,
        region=codes.LUNG,
        colour=RED,
        model=disease,
    )
    quantities = [Quantity(codes.PROBABILITY, result.disease_probability, codes.ONE)]
    if result.score is not None:
        quantities.insert(0, Quantity(codes.SEVERITY, result.score, codes.SCORE))
    findings = [Finding(name="study", type=codes.STUDY, site=codes.CHEST, quantities=quantities)]
    for zone, share in zip(catalog.ZONES, result.fractions, strict=True):
        if share is not None:
            shares = [Quantity(codes.ZONE_SHARE, share, codes.ONE)]
            name = f"zone {zone.replace('_', ' ')}"
            findings.append(
                Finding(name=name, type=codes.OPACITY, site=codes.LUNG, quantities=shares)
            )
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.XR_CHEST,
        anatomy=[lungs],
        lesions=[lesions],
        findings=findings,
    )


def _whole(result: CxrResult, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask of the whole image on its rows and columns."""
    height, width = result.xray.size
    return np.asarray(
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
    )


def _cropped(result: CxrResult, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask of the crop frame on the rows and columns of the image."""
    height, width = result.xray.size
    left, top, right, bottom = result.box_original
    rows, row_of = _within(height, top, bottom, mask.shape[0])
    columns, column_of = _within(width, left, right, mask.shape[1])
    placed = np.zeros((height, width), np.uint8)
    placed[np.ix_(rows, columns)] = mask[np.ix_(row_of, column_of)]
    return placed


def _within(
    count: int, low: float, high: float, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels whose centre lies between two edges, and the cell of the crop frame of each."""
    cell = np.floor((np.arange(count) + 0.5 - low) / (high - low) * cells).astype(np.intp)
    inside = np.flatnonzero((cell >= 0) & (cell < cells))
    return inside, cell[inside]
