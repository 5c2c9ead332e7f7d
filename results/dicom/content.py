"""What a system has to say about a study, in terms that DICOM objects are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.terms import Window

from .codes import Code

if TYPE_CHECKING:
    from ..meshes import Surface

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One structure that was segmented.

    Attributes
    ----------
    name
        In lower case, unique in the study: ``right lung``.
    mask
        Not 0 where the structure is: [slices, rows, columns] in the file's own order, or
        [rows, columns] of an X-ray.
    category, type
        Coded, for instance (91723000, SCT, Anatomical Structure) and (39607008, SCT, Lung).
    modifier
        Laterality of the type, or its cause.
    region
        Where it lies, when the type does not say it.
    colour
        The one of the pictures.
    model
        Triton model that found it, a key of `Provenance.weights`; several are joined by a comma.
    probability
        255 × probability of each voxel, shaped as the mask, where the system has it.
    """

    name: str
    mask: NDArray[Any]
    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    colour: Rgb
    model: str = ""
    probability: NDArray[np.uint8] | None = None

    @property
    def empty(self) -> bool:
        """Nothing was found: such a segment is left out, since viewers fail on it."""
        return not self.mask.any()


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number with its unit."""

    name: Code
    value: float
    unit: Code


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One answer that is no number."""

    name: Code
    value: Code


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on one source slice.

    Attributes
    ----------
    slice
        Place of the slice in the file's own order.
    left, top, right, bottom
        Columns and rows of the file, right and bottom not included.
    """

    slice: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A group of measurements.

    Attributes
    ----------
    name
        In lower case, unique in the study; that of its segment where it measures one.
    type
        What was found or measured, coded.
    segment
        Name of the segment that is measured.
    box
        Rectangle on a slice that is measured, instead.
    within
        Names of segments that it is a part of; what lies in no segment that was written has none.
    site, side
        Where in the body, and on which side.
    """

    name: str
    type: Code
    segment: str | None = None
    box: Box | None = None
    within: Sequence[str] = ()
    site: Code | None = None
    side: Code | None = None
    quantities: Sequence[Quantity] = ()
    evaluations: Sequence[Evaluation] = ()


@dataclass(frozen=True, slots=True)
class Enhanced:
    """A volume computed from a CT series.

    Attributes
    ----------
    voxels
        float32 [slices, rows, columns] in the file's own order, of a finite range.
    window
        How it is shown at first, in the units of `voxels`.
    title
        For the description of the series.
    """

    voxels: NDArray[np.float32]
    window: Window
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything about one study.

    Attributes
    ----------
    anatomy, lesions
        Segments of two objects, so that a reader may switch the lesions off.
    window
        The window that suits the scan, in HU.
    pictures
        uint8 [rows, columns, 3] RGB with the disclaimer in them, by title.
    surfaces
        In the patient's mm, on the series' frame of reference.
    frames
        Which frame of its file each slice is, from 0; of use where one file holds several.
    """

    system: str
    procedure: Code
    anatomy: Sequence[Segment] = ()
    lesions: Sequence[Segment] = ()
    findings: Sequence[Finding] = ()
    window: Window | None = None
    enhanced: Enhanced | None = None
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    surfaces: Sequence[Surface] = ()
    frames: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a result comes from.

    Attributes
    ----------
    key
        Key of the study folder: hash of content, options and weights. UIDs follow from it.
    mode
        ``parity`` or ``corrected``.
    version
        Of Hilum.
    weights
        sha256 of each Triton model's weights, by its name.
    weights_note
        Whose weights these are when they are not the published ones; else empty.
    """

    key: str
    mode: str
    version: str
    weights: Mapping[str, str] = field(default_factory=dict)
    weights_note: str = ""
