"""What lesions weigh, and the table of them, in terms of a DICOM report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hilum.postprocessing.dlpe.lesion_table import Lesion
from hilum.results.dicom import codes
from hilum.results.dicom.codes import Code
from hilum.results.dicom.content import Finding, Quantity

from .dicom_lungs import SIDE_CODES, zone_of
from .result import DlpeResult

LISTED = 100
"""Lesions of the table that are listed in the report, the largest; `lesions.csv` has all."""


def severity_of(result: DlpeResult, title: str) -> list[Quantity]:
    """Severity of a set of lesions within parenchyma; nothing where it was not measured."""
    key = title.removesuffix(" lesions").replace("-", "_")
    found = None if result.quantities is None else result.quantities.sets.get(key)
    if found is None or not found.voxels:
        return []
    return _numbers(
        (codes.SEVERITY_MEDIAN, found.median_severity_hu, codes.HU),
        (codes.SEVERITY_MEAN, found.mean_severity_hu, codes.HU),
        (codes.SEVERITY_P90, found.p90_severity_hu, codes.HU),
        (codes.SEVERITY_TOTAL, found.total_severity_hu_ml, codes.HU_ML),
        (codes.SEVERITY_INDEX, found.severity_index_hu, codes.HU),
        (codes.EXCESS_MASS, found.excess_mass_g, codes.GRAM),
        (codes.LESION_COUNT, found.lesion_count, codes.COUNT),
    )


def table_rows(result: DlpeResult, title: Callable[[str], str]) -> list[Finding]:
    """The largest lesions, one finding each, by their number in `lesions.csv`.

    A row is a part of segments, that of its lung and those of the networks that found it.

    Parameters
    ----------
    title
        Name of the segment of a lesion set.
    """
    lesions = () if result.quantities is None else result.quantities.lesions[:LISTED]
    return [_row(lesion, [title(name) for name in lesion.sets]) for lesion in lesions]


def _row(lesion: Lesion, within: Sequence[str]) -> Finding:
    centre = zip(codes.CENTRE, lesion.centroid_mm, strict=True)
    return Finding(
        name=f"lesion {lesion.lesion_id}",
        type=codes.LESION,
        site=codes.LUNG,
        side=SIDE_CODES.get(lesion.side),
        within=[f"{lesion.side} lung", *within],
        quantities=_numbers(
            (codes.VOLUME, lesion.volume_ml, codes.ML),
            (codes.LONG_AXIS, lesion.axial_diameter_mm, codes.MM),
            (codes.SEVERITY_MEDIAN, lesion.median_severity_hu, codes.HU),
            (codes.SEVERITY_P90, lesion.p90_severity_hu, codes.HU),
            (codes.SEVERITY_TOTAL, lesion.total_severity_hu_ml, codes.HU_ML),
            (codes.PLEURA_DISTANCE, lesion.pleura_min_mm, codes.MM),
            *((code, mm, codes.MM) for code, mm in centre),
        ),
        evaluations=[zone_of(lesion.zone)],
    )


def _numbers(*given: tuple[Code, float | None, Code]) -> list[Quantity]:
    """Those that were measured."""
    return [Quantity(name, value, unit) for name, value, unit in given if value is not None]
