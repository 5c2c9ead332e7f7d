"""The enhanced volume in float32 as a parametric map (PS3.3 A.75); few viewers show it."""

from __future__ import annotations

import numpy as np
from highdicom.content import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping

from . import codes
from .content import Enhanced, Provenance
from .equipment import STATEMENT, concept, contribution, described, maker
from .identity import SERIES_NUMBERS, Identity
from .source import Source


def parametric_map(
    enhanced: Enhanced, *, source: Source, identity: Identity, provenance: Provenance
) -> ParametricMap:
    """All slices in one object, on the source's rows, columns and slices."""
    voxels = np.ascontiguousarray(enhanced.voxels, np.float32)
    window = VOILUTTransformation(
        window_center=float(enhanced.window.level), window_width=float(enhanced.window.width)
    )
    mapping = RealWorldValueMapping(
        lut_label="ENHANCED",
        lut_explanation=f"{enhanced.title}, above the baseline"[:64],
        unit=concept(codes.HU),
        value_range=(float(voxels.min()), float(voxels.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept(codes.ENHANCED),
    )
    made = ParametricMap(
        source_images=list(source.images),
        pixel_array=voxels,
        series_instance_uid=identity.uid("parametric", "series"),
        series_number=SERIES_NUMBERS["parametric"],
        sop_instance_uid=identity.uid("parametric"),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label="ENHANCED",
        content_description=STATEMENT,
        series_description=described("parametric map"),
        contributing_equipment=contribution(provenance),
        **maker(provenance),
    )
    identity.settle(made, "parametric")
    return made
