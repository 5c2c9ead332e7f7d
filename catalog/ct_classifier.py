"""Classifier of chest CT slices: probability of COVID-19, and where it comes from.

Ledesma, Cebeiro, Morvidone, SABI 2022; repository Javiercbr/Covid19_DL.

There are two generations of weights with two kinds of input, the *profiles*. They must never be
mixed: ``raw_hu`` takes the slice in HU as it is, ``masked`` an 8-bit image of the lungs alone. Both
give one probability for a slice and the class activation map, an 8 × 8 map that is Grad-CAM up to a
positive factor. Sides are those of the *patient*.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from . import lungmask
from .types import Call, Counts, Ensemble, Figure, Network, PythonStep, System, Tensor

SIZE = 256
"""Side of the network's input in pixels."""

SLICE = 512
"""Side of a CT slice in pixels."""

CAM = 8
"""Side of the class activation map."""

THRESHOLD = 0.5
"""A slice is positive at this probability and above."""

STD_OFFSET = 1e-6
"""Added to the standard deviation of a slice before dividing by it."""

BILATERAL_SHARE = 0.05
"""Both lungs count as equally affected when their sums differ by less than this share."""

LOW_LUNG_SHARE = 0.01
"""Share of the slice under which its lung mask is too small to be trusted."""

OVERLAY_ALPHA = 0.4
"""Opacity of the heat map over the slice."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One generation of weights, with the input that it was trained on.

    Attributes
    ----------
    resize_phase
        Slices of 512 are halved by taking every second pixel, from this one on.
    sha256
        Digest of the published file.
    """

    name: str
    title: str
    resize_phase: int
    sha256: str
    bytes: int
    date: str


RAW_HU = "raw_hu"
MASKED = "masked"

PROFILES = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                RAW_HU,
                "HU of the whole slice, no normalisation (generation 2)",
                0,
                "9bfe337eefa45f37387b43bc13b55e632bbe7e8753f12db03e050d0e55c7df5a",
                29_300_784,
                "2021-08-09",
            ),
            Profile(
                MASKED,
                "8-bit image of the lungs, standardised per slice (generation 1)",
                1,
                "520042a86cc0013ee1033b4616d770ae6c8d7274b60517ffd38e69e84da19fac",
                85_835_408,
                "2021-06-12",
            ),
        )
    }
)
"""The profiles by name, which is also that of their network."""

DEFAULT_PROFILE = RAW_HU

_OUTPUTS = (
    Tensor("probability", "FP32", (1,), "probability of COVID-19 against normal"),
    Tensor("logit", "FP32", (1,), "the same before the sigmoid"),
    Tensor(
        "cam",
        "FP32",
        ("C", "C"),
        "class activation map, signed: max(cam, 0) is Grad-CAM up to a positive factor, and "
        "its mean plus the head's bias is the logit",
    ),
)
_HU = Tensor("hu", "INT16", ("H", "H"), "one slice in HU; row 0 anterior, column 0 patient right")
_LABEL = Tensor("label", "UINT8", ("R", "R"), "lung labels of the crop")
_BOX = Tensor("box", "INT32", (4,), "body box y0, x0, y1, x1; y1 and x1 excluded")
_LUNG = Tensor("lung", "UINT8", ("H", "H"), "lungs of the slice: 0, 1 right lung, 2 left lung")

_TOLERANCE = 1e-4
"""Of logits and heat maps; probabilities differ by a quarter of that at most."""

_SOURCE = "README of Javiercbr/Covid19_DL, 2021-08-17, false positives and negatives put right"
_TEST = "752 test slices; not tied to the published weights"
_EXAMPLES = "comment in the README of Javiercbr/Covid19_DL, June 2021"

RAW_HU_NETWORK = Network(
    name=RAW_HU,
    model="ct_densenet",
    title="COVID-19 on a CT slice, from raw HU (DenseNet121)",
    inputs=(
        Tensor(
            "hu", "INT16", ("S", "S"), "slice in HU, every second pixel from the first", wide=True
        ),
    ),
    outputs=_OUTPUTS,
    sizes={"S": SIZE, "C": CAM},
    max_batch=32,
    tolerance=_TOLERANCE,
    streamed=True,
)

MASKED_NETWORK = Network(
    name=MASKED,
    model="ct_densenet_masked",
    title="COVID-19 on a CT slice, from the masked lungs (DenseNet121)",
    inputs=(Tensor("image", "UINT8", ("S", "S"), "HU × lung mask, scaled by its range to 8 bits"),),
    outputs=_OUTPUTS,
    sizes={"S": SIZE, "C": CAM},
    max_batch=32,
    tolerance=_TOLERANCE,
    streamed=True,
)

PREPARE = PythonStep(
    model="ct_classifier_prepare",
    title="Crop the body for the lung network",
    function="hilum.postprocessing.lungmask:prepare_step",
    inputs=(_HU,),
    outputs=(Tensor("crop", "INT16", ("R", "R"), "body crop, resampled; HU", wide=True), _BOX),
    sizes={"H": SLICE, "R": lungmask.SIZE},
    max_batch=32,
)

MASK_SLICE = PythonStep(
    model="ct_classifier_mask",
    title="Clean the lungs and cut them out of the slice",
    function="hilum.postprocessing.lungmask:masked_slice_step",
    inputs=(_HU, _LABEL, _BOX),
    outputs=(
        Tensor("image", "UINT8", ("S", "S"), "HU × lung mask, scaled by its range to 8 bits"),
        _LUNG,
    ),
    sizes={"H": SLICE, "R": lungmask.SIZE, "S": SIZE},
    max_batch=32,
)

MASKED_ENSEMBLE = Ensemble(
    model="ct_classifier_masked",
    title="Classify a slice by its lungs alone",
    inputs=(_HU,),
    outputs=(*_OUTPUTS, _LUNG),
    max_batch=32,
    calls=(
        Call(PREPARE, {"hu": "hu"}, {"crop": "crop", "box": "box"}),
        Call(lungmask.R231, {"hu": "crop"}, {"label": "label"}),
        Call(
            MASK_SLICE,
            {"hu": "hu", "label": "label", "box": "box"},
            {"image": "image", "lung": "lung"},
        ),
        Call(MASKED_NETWORK, {"image": "image"}, {t.name: t.name for t in _OUTPUTS}),
    ),
)

SYSTEM = System(
    name="ct-classifier",
    title="COVID-19 probability and heat map on chest CT slices",
    summary="chest CT slices → lung mask → COVID probability and Grad-CAM",
    paper="Ledesma, Cebeiro, Morvidone, SABI (2022)",
    networks=(RAW_HU_NETWORK, MASKED_NETWORK, lungmask.R231),
    steps=(PREPARE, MASK_SLICE),
    ensembles=(MASKED_ENSEMBLE,),
    published=(
        Figure("sensitivity per slice", 0.990, "", _TEST, _SOURCE),
        Figure("specificity per slice", 0.814, "", _TEST, _SOURCE),
        Figure("accuracy per slice", 0.908, "", _TEST, _SOURCE),
        Figure("positive predictive value per slice", 0.860, "", _TEST, _SOURCE),
        Figure("negative predictive value per slice", 0.986, "", _TEST, _SOURCE),
        Figure("loss", 0.21, "", _TEST, _SOURCE),
        Figure("area under the ROC curve", 0.99, "", _TEST, _SOURCE),
        Figure("probability of slice IM0044", 0.9993, "", "generation 1", _EXAMPLES),
        Figure("probability of slice IM0635", 0.0260, "", "generation 1", _EXAMPLES),
    ),
    published_cases={_TEST: Counts(tp=399, fn=4, fp=65, tn=284)},
)
