"""The scan-optimal window as a presentation state on the original series; no pixels are copied."""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.content import ModalityLUTTransformation
from highdicom.pr import GrayscaleSoftcopyPresentationState, SoftcopyVOILUTTransformation
from pydicom.dataset import Dataset

from hilum.catalog.terms import Window

from .content import Provenance
from .equipment import STATEMENT, contribution, described, maker
from .identity import SERIES_NUMBERS, Identity
from .source import Source


def window_state(
    window: Window, *, source: Source, identity: Identity, provenance: Provenance
) -> GrayscaleSoftcopyPresentationState | None:
    """The series shown in a window (PS3.3 A.33.1).

    None where slices do not become HU in one and the same way: a state has but one such rule.

    Parameters
    ----------
    window
        In HU; a width of 1 at least.
    """
    rules = set(_rescaling(source))
    if len(rules) != 1:
        return None
    slope, intercept = rules.pop()
    made = GrayscaleSoftcopyPresentationState(
        referenced_images=list(source.images),
        series_instance_uid=identity.uid("window", "series"),
        series_number=SERIES_NUMBERS["window"],
        sop_instance_uid=identity.uid("window"),
        instance_number=1,
        content_label="OPTIMAL_WINDOW",
        content_description=STATEMENT,
        voi_lut_transformations=[
            SoftcopyVOILUTTransformation(
                window_center=float(window.level),
                window_width=float(max(1, window.width)),
                window_explanation="scan-optimal",
            )
        ],
        modality_lut_transformation=ModalityLUTTransformation(
            rescale_intercept=intercept, rescale_slope=slope, rescale_type="HU"
        ),
        series_description=described("window"),
        contributing_equipment=contribution(provenance),
        **maker(provenance),
    )
    identity.settle(made, "window")
    return made


def _rescaling(source: Source) -> Iterator[tuple[float, float]]:
    """Slope and intercept of each slice, wherever a file of several frames keeps them."""
    for image in source.images:
        shared = image.get("SharedFunctionalGroupsSequence", [])
        groups: list[Dataset] = [*shared, *image.get("PerFrameFunctionalGroupsSequence", [])]
        kept = [g.PixelValueTransformationSequence[0] for g in groups if _TRANSFORMED in g]
        for one in kept or [image]:
            yield float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))


_TRANSFORMED = "PixelValueTransformationSequence"
