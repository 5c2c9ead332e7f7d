"""Masks as DICOM Segmentation objects (PS3.3 A.51).

Masks are given in the file's own order of slices, rows and columns with the headers in that same
order, so that geometry is copied and never computed: turned masks are the commonest fault of such
objects. Frames without a segment are kept, since older viewers misplace the others; segments
without a voxel are left out, since some viewers never finish loading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from .content import Provenance, Segment
from .equipment import STATEMENT, algorithm, concept, contribution, described, maker
from .identity import SERIES_NUMBERS, Identity
from .source import Source

Encoding = Literal["binary", "labelmap"]


def segmentation(
    segments: Sequence[Segment],
    *,
    product: str,
    system: str,
    source: Source,
    identity: Identity,
    provenance: Provenance,
    encoding: Encoding = "binary",
) -> Segmentation | None:
    """One object of several segments.

    Parameters
    ----------
    product
        ``anatomy`` or ``lesions``.
    encoding
        ``binary``: one bit for each voxel and segment, which every reader knows. ``labelmap``: one
        number for each voxel, smaller, for readers of 2024 and later; segments that overlap, as
        lesions of several networks do, are binary all the same.

    Returns
    -------
    None where no segment has a voxel.
    """
    found = [s for s in segments if not s.empty]
    if not found:
        return None
    labels = _labels(found)
    if labels is None:
        encoding = "binary"
    descriptions = [
        _description(number, segment, identity, algorithm(provenance, system, segment.model))
        for number, segment in enumerate(found, 1)
    ]
    made = Segmentation(
        source_images=list(source.images),
        pixel_array=_stacked(found) if labels is None else labels,
        segmentation_type=encoding.upper(),
        segment_descriptions=descriptions,
        series_instance_uid=identity.uid("seg", product, encoding, "series"),
        series_number=SERIES_NUMBERS[product],
        sop_instance_uid=identity.uid("seg", product, encoding),
        instance_number=1,
        omit_empty_frames=False,
        content_label=product.upper(),
        content_description=STATEMENT,
        series_description=described(product),
        contributing_equipment=contribution(provenance),
        **maker(provenance),
    )
    identity.settle(made, f"seg {product}")
    return made


def probabilities(
    segments: Sequence[Segment],
    *,
    system: str,
    source: Source,
    identity: Identity,
    provenance: Provenance,
) -> Segmentation | None:
    """The probabilities of segments as one fractional object; None where there are none.

    They are kept in 1/255 and compressed without loss, since most of them are 0.
    """  # fmt: skip
    found = [s for s in segments if s.probability is not None and s.probability.any()]
    if not found:
        return None
    layers = [np.asarray(s.probability, np.uint8) for s in found]
    stacked = np.stack([a if a.ndim == 3 else a[None] for a in layers], axis=-1)
    made = Segmentation(
        source_images=list(source.images),
        pixel_array=stacked.astype(np.float32) / 255,
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        max_fractional_value=255,
        transfer_syntax_uid=RLELossless,
        segment_descriptions=[
            _description(n, s, identity, algorithm(provenance, system, s.model))
            for n, s in enumerate(found, 1)
        ],
        series_instance_uid=identity.uid("seg", "probability", "series"),
        series_number=SERIES_NUMBERS["probability"],
        sop_instance_uid=identity.uid("seg", "probability"),
        instance_number=1,
        omit_empty_frames=True,
        content_label="PROBABILITY",
        content_description=STATEMENT,
        series_description=described("probability"),
        contributing_equipment=contribution(provenance),
        **maker(provenance),
    )
    identity.settle(made, "seg probability")
    return made


def numbers(segments: Sequence[Segment]) -> dict[str, int]:
    """Number of each segment in the object, by its name; without the empty ones."""
    return {s.name: n for n, s in enumerate((s for s in segments if not s.empty), 1)}


def tracking_uid(identity: Identity, name: str) -> str:
    """Identifies a structure in the segmentation and in the report alike."""
    return identity.uid("tracking", name)


def _description(
    number: int, segment: Segment, identity: Identity, by: object
) -> SegmentDescription:
    made = SegmentDescription(
        segment_number=number,
        segment_label=segment.name.capitalize(),
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=by,  # type: ignore[arg-type]
        tracking_uid=tracking_uid(identity, segment.name),
        tracking_id=segment.name,
        anatomic_regions=None if segment.region is None else [concept(segment.region)],
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.modifier is not None:  # highdicom has no argument for it
        kind = made.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(segment.modifier)]
    return made


def _labels(segments: Sequence[Segment]) -> NDArray[np.uint8] | None:
    """The number of the segment at each voxel [z, y, x]; None where two of them overlap."""
    labels = np.zeros(_planes(segments[0].mask).shape, np.uint8)
    for number, segment in enumerate(segments, 1):
        for labelled, plane in zip(labels, _planes(segment.mask), strict=True):
            inside = plane != 0
            if labelled[inside].any():
                return None
            labelled[inside] = number
    return labels


class _Layers(np.ndarray):
    """Masks that are summed in a byte: highdicom counts overlaps, in eight bytes a voxel else."""

    def sum(self, axis: Any = None, **_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """How many of the masks have each voxel."""
        return np.add.reduce(self.view(np.ndarray), axis=axis, dtype=np.uint8)


def _stacked(segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Masks that overlap as highdicom takes them: 0 or 1 [z, y, x, n].

    Each segment lies in one piece of memory: highdicom sums over them, ten times as slowly else.
    """
    planes = [_planes(s.mask) for s in segments]
    stacked = np.zeros((len(planes), *planes[0].shape), np.uint8)
    for layer, plane in zip(stacked, planes, strict=True):
        np.not_equal(plane, 0, out=layer, casting="unsafe")
    return np.moveaxis(stacked, 0, -1).view(_Layers)


def _planes(mask: NDArray[Any]) -> NDArray[Any]:
    return mask if mask.ndim == 3 else mask[None]
