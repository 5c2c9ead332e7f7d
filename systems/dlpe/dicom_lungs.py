"""Right and left lung of DLPE, and their zones, in terms of a DICOM report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hilum.catalog.dlpe_quantities import SIDES, ZONES
from hilum.postprocessing.dlpe.sides import LEFT, RIGHT
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.dlpe.space import to_source
from hilum.results.canvas import CYAN
from hilum.results.dicom import codes
from hilum.results.dicom.codes import Code
from hilum.results.dicom.content import Evaluation, Finding, Quantity, Segment

from .result import DlpeResult

SIDE_CODES: dict[str, Code] = {"right": codes.RIGHT, "left": codes.LEFT}


def lungs_apart(result: DlpeResult, model: str) -> Iterator[tuple[Segment, float]]:
    """Each lung with its ml, where they were told apart: that is part of the quantities."""
    found = result.quantities
    if found is None:
        return
    for side, label in zip(SIDES, (RIGHT, LEFT), strict=True):
        mask = found.crop.uncut((to_host(found.sides.labels) == label).astype(np.uint8))
        segment = Segment(
            name=f"{side} lung",
            mask=to_host(to_source(mask, result.normalised.space, "nearest")),
            category=codes.ANATOMY,
            type=codes.LUNG,
            modifier=SIDE_CODES[side],
            colour=CYAN,
            model=model,
        )
        yield segment, found.lung_ml[side]


def zones(result: DlpeResult) -> Iterator[Finding]:
    """Lesions of all sets in each zone, and the score of six zones (spec §4.2)."""
    table = None if result.quantities is None else result.quantities.zones.get("all")
    if table is None:
        return
    score = Quantity(codes.ZONES_SCORE, table["score_0_24"], codes.SCORE)
    yield Finding(name="zones", type=codes.LESION, site=codes.LUNG, quantities=[score])
    for side in SIDES:
        for zone in reversed(ZONES):
            entry = table[f"{side}_{zone}"]
            if entry["share"] is None:
                continue
            yield Finding(
                name=f"{side} {zone} zone",
                type=codes.LESION,
                site=codes.LUNG,
                side=SIDE_CODES[side],
                quantities=[
                    Quantity(codes.VOLUME, entry["lesion_ml"], codes.ML),
                    Quantity(codes.ZONE_SHARE, entry["share"], codes.ONE),
                    Quantity(codes.ZONE_SCORE, entry["score"], codes.SCORE),
                ],
                evaluations=[zone_of(zone)],
            )


def zone_of(zone: str) -> Evaluation:
    """The zone in which something lies."""
    return Evaluation(codes.ZONE, codes.hilum(f"zone-{zone}", f"{zone} zone"))
