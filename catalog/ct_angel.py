"""CT-Angel: COVID-19 lesions on chest CT slices, and a decision for the patient.

Chen et al., Sci Rep 10 (2020), doi 10.1038/s41598-020-76282-0.

One 8-bit slice → valid region and lesions (two networks of one architecture) → boxes inside the
valid region → quadrants → positive when the same quadrant is flagged on three consecutive slices.
Left and right are those *of the image*: in the usual axial display the image's left is the
patient's right.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from .terms import Window
from .types import Call, Ensemble, Figure, Network, System, Tensor

SIZE = 512
"""Side of the networks' input in pixels; a multiple of 32."""

THRESHOLD = 128 / 255
"""A pixel is foreground at this probability and above: the published ``uint8(255 p) > 127``."""


WINDOWS = MappingProxyType({"doc": Window(1200, -700), "sample": Window(1500, -750)})
"""Presets: the published recipe, and what the published sample slice was made with."""

DEFAULT_WINDOW = "doc"

JPEG_QUALITY = 95
"""Of the published program's intermediate files; for the optional round trip."""

MIN_BOX_AREA = 25
"""A lesion box counts when its area in pixels is strictly greater."""

SizeMode = Literal["box", "mask"]
"""What the size rule measures: the area of the box, or the foreground pixels inside."""

PARITY_BOXES = 3
"""Boxes a slice keeps in the published program, those with the most contour vertices."""

MIN_VALID_SHARE = 0.01
"""Share of the slice under which the largest valid component is no valid region."""

ValidMode = Literal["centroid", "overlap", "off"]
"""How a box is tested against the valid rectangle: centroid inside, half its pixels, not at all."""

VALID_OVERLAP = 0.5
"""Share of a lesion's pixels that must lie in the valid rectangle in mode ``overlap``."""

QUADRANTS = ("upper-left", "upper-right", "lower-left", "lower-right")
"""Quadrants 0 to 3, sides of the image: what reports hold."""

PATIENT_QUADRANTS = ("right front", "left front", "right back", "left back")
"""The same of the patient, where column 0 is on the patient's right and row 0 anterior."""

QuadrantMode = Literal["pixels", "centroid"]
"""Which quadrants a lesion flags: all that hold one of its pixels, or that of its centroid."""

RUN_LENGTH = 3
"""Consecutive slices with a lesion in the same quadrant that make a patient positive."""

WIDE_SPACING_MM = 2.5
"""Slice spacing above which the patient rule spans a length that it was not made for."""

_IMAGE = Tensor("image", "UINT8", ("S", "S"), "one windowed slice, grey")
_THRESHOLD = Tensor("threshold", "FP32", (1,), "a pixel at this probability or above is foreground")
_PROBABILITY = Tensor("probability", "FP16", ("S", "S"), "probability of lesion")
_MASK = Tensor("mask", "UINT8", ("S", "S"), "probability ≥ threshold, 0 or 1")


def _network(name: str, title: str, what: str, published: tuple[Figure, ...] = ()) -> Network:
    return Network(
        name=name,
        model=f"ct_angel_{name}",
        title=title,
        inputs=(_IMAGE, _THRESHOLD),
        outputs=(
            Tensor("probability", "FP16", ("S", "S"), f"probability of {what}"),
            _MASK,
        ),
        sizes={"S": SIZE},
        max_batch=8,
        published=published,
        streamed=True,
    )


_README = "README of endo-angel/ct-angel"
_RETROSPECTIVE = "42 patients, retrospective"
_PROSPECTIVE = "27 patients, prospective"
_IMAGES = "10 005 images"
_EXTERNAL = "patients of another hospital"
_ARTICLE = "abstract of the article"
_REPORTED = "commonly reported, not verified"

LESION = _network("lesion", "Lesions (U-Net++, pre-activation ResNet-50)", "lesion")
VALID = _network(
    "valid",
    "Valid region (U-Net++, pre-activation ResNet-50)",
    "valid region",
    (Figure("success on 600 test images", 100.0, "%", "", _README),),
)

ENSEMBLE = Ensemble(
    model="ct_angel",
    title="Lesions and valid region of one slice",
    inputs=(
        _IMAGE,
        _THRESHOLD,
        Tensor("valid_threshold", "FP32", (1,), "the same for the valid region"),
    ),
    outputs=(
        _PROBABILITY,
        _MASK,
        Tensor("valid", "UINT8", ("S", "S"), "valid region, 0 or 1"),
    ),
    max_batch=8,
    calls=(
        Call(
            LESION,
            {"image": "image", "threshold": "threshold"},
            {"probability": "probability", "mask": "mask"},
        ),
        Call(VALID, {"image": "image", "threshold": "valid_threshold"}, {"mask": "valid"}),
    ),
)

SYSTEM = System(
    name="ct-angel",
    title="Lesion boxes and patient decision on chest CT",
    summary="chest CT slices → valid region, lesion boxes → patient decision",
    paper="Chen et al., Sci Rep 10 (2020), doi 10.1038/s41598-020-76282-0",
    networks=(LESION, VALID),
    steps=(),
    ensembles=(ENSEMBLE,),
    published=(
        Figure("sensitivity per patient", 100.0, "%", _RETROSPECTIVE, _README),
        Figure("specificity per patient", 93.55, "%", _RETROSPECTIVE, _README),
        Figure("accuracy per patient", 95.24, "%", _RETROSPECTIVE, _README),
        Figure("positive predictive value per patient", 84.62, "%", _RETROSPECTIVE, _README),
        Figure("negative predictive value per patient", 100.0, "%", _RETROSPECTIVE, _README),
        Figure("sensitivity per image", 94.34, "%", _IMAGES, _README),
        Figure("specificity per image", 99.16, "%", _IMAGES, _README),
        Figure("accuracy per image", 98.85, "%", _IMAGES, _README),
        Figure("positive predictive value per image", 88.37, "%", _IMAGES, _README),
        Figure("negative predictive value per image", 99.61, "%", _IMAGES, _README),
        Figure("sensitivity per patient", 100.0, "%", _PROSPECTIVE, _README),
        Figure("specificity per patient", 81.82, "%", _PROSPECTIVE, _README),
        Figure("accuracy per patient", 92.59, "%", _PROSPECTIVE, _README),
        Figure("positive predictive value per patient", 88.89, "%", _PROSPECTIVE, _README),
        Figure("negative predictive value per patient", 100.0, "%", _PROSPECTIVE, _README),
        Figure("sensitivity per patient", 98.0, "%", _EXTERNAL, _REPORTED),
        Figure("specificity per patient", 94.0, "%", _EXTERNAL, _REPORTED),
        Figure("accuracy per patient", 96.0, "%", _EXTERNAL, _ARTICLE),
        Figure("positive predictive value per patient", 94.23, "%", _EXTERNAL, _REPORTED),
        Figure("negative predictive value per patient", 97.92, "%", _EXTERNAL, _REPORTED),
        Figure("reading time saved by assistance", 65.0, "%", "", _ARTICLE),
    ),
    published_cases={_RETROSPECTIVE: 42, _IMAGES: 10_005, _PROSPECTIVE: 27},
)
