"""What DLPE measures once its masks are known, for one study; see `postprocessing.dlpe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilum.postprocessing.dlpe.branching_published import (
    PublishedBranching,
    published_branching,
)
from hilum.postprocessing.dlpe.chest import cut_chest
from hilum.postprocessing.dlpe.enhancement import Enhancement
from hilum.postprocessing.dlpe.lesion_table import COLUMNS, csv_text
from hilum.postprocessing.dlpe.quantities import Quantities, quantify
from hilum.preprocessing.arrays import Array, to_host
from hilum.preprocessing.dlpe.placement import patient_affine
from hilum.preprocessing.dlpe.space import Normalised

TABLE = "lesions.csv"
"""The file of the lesion table."""

EMPTY: Mapping[str, Any] = {
    "severity_reference_hu": None,
    "sides": None,
    "lung_density_hu": None,
    "parenchyma_ml": None,
    "zones": {},
    "distribution": {},
    "branching": None,
    "lesion_table": None,
    "quantification_flags": [],
}
"""Fields of the report of a study in which nothing was measured."""


def measure(
    normalised: Normalised,
    masks: Mapping[str, Array],
    enhancement: Enhancement | None,
    *,
    branching: bool,
) -> Quantities | None:
    """Measure a study; None without a baseline, which needs lungs."""
    if enhancement is None:
        return None
    chest = cut_chest(
        normalised.voxels,
        {name: mask for name, mask in masks.items() if name in ("lung", "airway", "vessel")},
        normalised.space.voxel_mm,
        enhancement.window_level,
    )
    if chest is None:
        return None
    affine = patient_affine(normalised)
    return quantify(chest, masks, lps_affine=affine, with_branching=branching).on_host()


def published_map(
    masks: Mapping[str, Array], enhancement: Enhancement | None, seed: int
) -> PublishedBranching | None:
    """The published branching map of a study, on the host; None without lungs."""
    if enhancement is None:
        return None
    lung, vessel = (to_host(masks[name]) for name in ("lung", "vessel"))
    return published_branching(lung, vessel, seed)


def table(found: Quantities) -> str:
    """The lesion table as CSV."""
    return csv_text((lesion.row() for lesion in found.lesions), COLUMNS)
