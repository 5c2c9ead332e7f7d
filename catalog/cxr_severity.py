"""COVID-19 severity scoring on chest X-rays: two stages, a score from 0 to 6.

Danilov et al., Sci Rep 12:12791 (2022), doi 10.1038/s41598-022-15013-z.

One frontal X-ray → lung mask (stage I) → disease mask inside the lungs (stage II, nine networks to
choose from) → diseased fraction of six zones → one point for each zone above the threshold.
Left and right are those *of the image* throughout: the image's left is the patient's right in the
usual display.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType

from .types import Call, Ensemble, Figure, Network, PythonStep, System, Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of every network but the DPN-98 one, in R, G, B order, on a 0…1 scale."""

DPN_MEAN = (124 / 255, 117 / 255, 104 / 255)
DPN_STD = (1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255))
"""Normalisation of the network with the DPN-98 encoder."""

LUNG_SIZE = 512
"""Side of the stage I input in pixels."""

FRAME = 512
"""Side of the crop frame, in which zones are cut and scored."""

MASK_THRESHOLD = 0.5
"""A pixel belongs to a mask when its probability is strictly greater."""

MIN_CONTOUR_AREA = 6000.0
"""Contours of a smaller polygon area, in pixels at 512 × 512, are erased from the lung mask."""

MIN_SIDE = 256
"""Shorter side, in pixels, below which an image is not a chest X-ray that can be scored."""

LOW_LUNG_AREA = 0.05
"""Share of the stage I frame under which the lungs are flagged as implausibly small."""

ZONES = (
    "image-left lower",
    "image-left middle",
    "image-left upper",
    "image-right lower",
    "image-right middle",
    "image-right upper",
)
"""The six zones in the published order; bottom first."""

PARITY, CORRECTED = 0, 1
"""Values of the input `mode`: the published program with its faults, or without."""

MODES = MappingProxyType({"parity": PARITY, "corrected": CORRECTED})
"""The modes by their names on the command line."""

NO_SCORE = -1
"""Value of the output `score` for an image that has none."""


class Flag(IntFlag):
    """What is unusual about a lung mask; bits of the output `flags`, worst first."""

    NO_LUNG = 1
    LOW_LUNG_AREA = 2
    ONE_COMPONENT = 4
    EXTRA_COMPONENTS = 8
    LUNG_TOUCHES_BORDER = 16


@dataclass(frozen=True, slots=True)
class DiseaseFacts:
    """What is particular to one stage II network.

    Attributes
    ----------
    architecture, encoder
        Their published names, also the first two parts of the checkpoint's folder name.
    size
        Side of the network's input in pixels.
    zone_threshold
        Diseased share above which a zone counts, as published (chosen on all images, the test
        set included).
    corrected_threshold
        The same chosen without the test set; None for the network that always answers "nothing".
    images_per_second, parameters_m, macs_g
        Of both stages together, as published. The multiplications are those that the authors'
        counter found, which misses some layers (spec cxr §12.4).
    seconds
        Mean per image, as stored with the published predictions.
    """

    name: str
    title: str
    architecture: str
    encoder: str
    size: int
    zone_threshold: float
    corrected_threshold: float | None
    mae: float
    images_per_second: float
    seconds: float
    parameters_m: float
    macs_g: float
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


DISEASE = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            DiseaseFacts(
                "unet", "U-Net, DPN-98", "Unet", "dpn98",
                544, 0.30, 0.32, 0.33, 6.5, 0.186, 78.7, 118.0, DPN_MEAN, DPN_STD,
            ),
            DiseaseFacts(
                "unetplusplus", "U-Net++, RegNetY-3.2GF", "Unet++", "timm-regnety_032",
                480, 0.33, 0.33, 0.40, 8.9, 0.197, 34.6, 56.7,
            ),
            DiseaseFacts(
                "deeplabv3", "DeepLabV3, EfficientNet-B2", "DeepLabV3", "efficientnet-b2",
                480, 0.50, None, 1.47, 8.9, 0.094, 18.6, 14.9,
            ),
            DiseaseFacts(
                "deeplabv3plus", "DeepLabV3+, RegNetX-3.2GF", "DeepLabV3+", "timm-regnetx_032",
                480, 0.30, 0.31, 0.36, 10.2, 0.077, 23.5, 22.3,
            ),
            DiseaseFacts(
                "fpn", "FPN, EfficientNet-B0", "FPN", "efficientnet-b0",
                384, 0.26, 0.27, 0.36, 9.4, 0.075, 13.2, 6.7,
            ),
            DiseaseFacts(
                "linknet", "Linknet, EfficientNet-B0", "Linknet", "efficientnet-b0",
                416, 0.15, 0.18, 0.38, 11.2, 0.075, 11.6, 2.7,
            ),
            DiseaseFacts(
                "pspnet", "PSPNet, EfficientNet-B0", "PSPNet", "efficientnet-b0",
                384, 0.38, 0.39, 0.38, 12.5, 0.093, 11.5, 2.3,
            ),
            DiseaseFacts(
                "pan", "PAN, SE-ResNet50", "PAN", "se_resnet50",
                416, 0.40, 0.39, 0.53, 9.8, 0.082, 34.2, 24.7,
            ),
            DiseaseFacts(
                "manet", "MA-Net, RegNetX-6.4GF", "MAnet", "timm-regnetx_064",
                544, 0.31, 0.30, 0.30, 7.9, 0.106, 111.3, 81.9,
            ),
        )
    }
)  # fmt: skip
"""The nine stage II networks by their names on the command line."""

DEFAULT_NETWORK = "manet"
"""The network with the smallest published error."""

PUBLISHED_HARDWARE = "RTX 2080 Ti 11 GB, PyTorch"

_TABLE, _PREDICTIONS = "table of the article", "stored with the published predictions"
_BOTH = f"{_TABLE}, stages I and II together"

_IMAGE = Tensor(
    "image", "UINT8", ("L", "L", 3), "the X-ray, whole, resized without regard to its aspect ratio"
)
_MODE = Tensor("mode", "UINT8", (1,), "0 parity, 1 corrected")
_CLEANED = Tensor("lung", "UINT8", ("L", "L"), "cleaned lung mask, 0 or 1")
_BOX = Tensor("box", "INT32", (4,), "crop: left, top, right, bottom; right and bottom excluded")
_COMPONENTS = Tensor("lung_components", "INT32", (1,), "8-connected parts of the cleaned lung mask")
_DISEASE = Tensor(
    "disease", "UINT8", (FRAME, FRAME), "disease mask in the crop frame, 0 or 1, after the gate"
)
_UNGATED = Tensor("ungated", "UINT8", (FRAME, FRAME), "the same before the gate")
_PROBABILITY = Tensor("probability", "FP32", (1,), "image-level probability of disease")
_THRESHOLD = Tensor("zone_threshold", "FP64", (1,), "a zone above this diseased share counts")
_SCORES = (
    Tensor("score", "INT32", (1,), "0 to 6, or -1: no score"),
    Tensor("fractions", "FP64", (6,), "diseased share of each zone; NaN: no such zone", ZONES),
    Tensor("fractions_ungated", "FP64", (6,), "the same before the gate", ZONES),
    Tensor("lung512", "UINT8", (FRAME, FRAME), "lung mask in the crop frame, 0 or 1"),
    Tensor("gated", "BOOL", (1,), "the gate silenced the disease mask"),
    Tensor("flags", "UINT8", (1,), "what is unusual: bits of catalog.cxr_severity.Flag"),
    Tensor("lung_area", "INT32", (1,), "pixels of the cleaned lung mask"),
)

_TOLERANCE = 1e-4
"""Of probabilities. Trained networks are steep: PyTorch in FP32 is itself some 2e-5 from FP64, so
two exact programs differ by as much."""

LUNG = Network(
    name="lung",
    model="cxr_lung",
    title="Stage I: lungs (DeepLabV3+, EfficientNet-B1)",
    inputs=(_IMAGE,),
    outputs=(
        Tensor("mask", "FP32", (1, "L", "L"), "probability of lung"),
        Tensor("lung", "UINT8", ("L", "L"), "probability > 0.5, 0 or 1"),
    ),
    sizes={"L": LUNG_SIZE},
    max_batch=8,
    tolerance=_TOLERANCE,
)

LUNG_ARCHITECTURE, LUNG_ENCODER = "DeepLabV3+", "efficientnet-b1"

CLEAN = PythonStep(
    model="cxr_clean",
    title="Clean the lung mask and find its box",
    function="hilum.postprocessing.cxr_severity.lungs:clean_step",
    inputs=(Tensor("raw", "UINT8", ("L", "L"), "lung mask as the network gave it, 0 or 1"), _MODE),
    outputs=(_CLEANED, _BOX, _COMPONENTS),
    sizes={"L": LUNG_SIZE},
    max_batch=8,
)

ZONE_STEP = PythonStep(
    model="cxr_zones",
    title="Cut the lungs into six zones and score them",
    function="hilum.postprocessing.cxr_severity.zones:zones_step",
    inputs=(_CLEANED, _BOX, _DISEASE, _UNGATED, _PROBABILITY, _THRESHOLD, _MODE),
    outputs=_SCORES,
    sizes={"L": LUNG_SIZE},
    max_batch=8,
)


def _disease_network(facts: DiseaseFacts) -> Network:
    return Network(
        name=facts.name,
        model=f"cxr_{facts.name}",
        title=f"Stage II: disease ({facts.title})",
        inputs=(_IMAGE, _CLEANED, _BOX),
        outputs=(
            Tensor("mask", "FP32", (1, "S", "S"), "probability of disease in the crop, gated"),
            _DISEASE,
            _UNGATED,
            _PROBABILITY,
        ),
        sizes={"L": LUNG_SIZE, "S": facts.size},
        max_batch=8,
        tolerance=_TOLERANCE,
        published=(
            Figure("MAE on the 135 test images", facts.mae, "points", PUBLISHED_HARDWARE, _TABLE),
            Figure("throughput", facts.images_per_second, "images/s", PUBLISHED_HARDWARE, _TABLE),
            Figure("parameters", facts.parameters_m, "M", "", _BOTH),
            Figure("MACs", facts.macs_g, "G", "", _BOTH),
            Figure("time per image", facts.seconds, "s", "", _PREDICTIONS),
        ),
    )


def _ensemble(network: Network) -> Ensemble:
    return Ensemble(
        model=f"cxr_severity_{network.name}",
        title=f"Severity scoring with {DISEASE[network.name].title}",
        inputs=(_IMAGE, _MODE, _THRESHOLD),
        outputs=(*_SCORES, _CLEANED, _BOX, _COMPONENTS, _DISEASE, _PROBABILITY),
        max_batch=8,
        calls=(
            Call(LUNG, {"image": "image"}, {"lung": "raw"}),
            Call(
                CLEAN,
                {"raw": "raw", "mode": "mode"},
                {n: n for n in ("lung", "box", "lung_components")},
            ),
            Call(
                network,
                {n: n for n in ("image", "lung", "box")},
                {n: n for n in ("disease", "ungated", "probability")},
            ),
            Call(
                ZONE_STEP,
                {t.name: t.name for t in ZONE_STEP.inputs},
                {t.name: t.name for t in _SCORES},
            ),
        ),
    )


DISEASE_NETWORKS = tuple(_disease_network(facts) for facts in DISEASE.values())
ENSEMBLES = MappingProxyType({n.name: _ensemble(n) for n in DISEASE_NETWORKS})
"""One ensemble for each stage II network, by the network's name."""

SYSTEM = System(
    name="cxr-severity",
    title="Severity scoring on chest X-rays",
    summary="chest X-ray → lung and disease masks → severity 0–6",
    paper="Danilov et al., Sci Rep 12:12791 (2022), doi 10.1038/s41598-022-15013-z",
    networks=(LUNG, *DISEASE_NETWORKS),
    steps=(CLEAN, ZONE_STEP),
    ensembles=tuple(ENSEMBLES.values()),
    published=(
        Figure("MAE of COVID-Net-S", 1.83, "points", PUBLISHED_HARDWARE, _TABLE),
        Figure("MAE of BS-net", 2.52, "points", PUBLISHED_HARDWARE, _TABLE),
        Figure("throughput of COVID-Net-S", 0.6, "images/s", PUBLISHED_HARDWARE, _TABLE),
        Figure("throughput of BS-net", 0.7, "images/s", PUBLISHED_HARDWARE, _TABLE),
        Figure("time per image of COVID-Net-S", 1.594, "s", "", _PREDICTIONS),
        Figure("time per image of BS-net", 1.380, "s", "", _PREDICTIONS),
    ),
)
