"""COVID-MTL: diagnosis and severity of COVID-19 from one chest CT scan, three answers at once.

Bao et al., Pattern Recognition 124 (2022) 108499, doi 10.1016/j.patcog.2021.108499.

CT series → 1 mm voxels → lungs by thresholds and active contours → common box of 340 × 390 × 390
voxels → a window of it for a 3-D network, and 375 radiomic features of all of it for a small
feed-forward one → probabilities against the radiologist's reading and against the nucleic-acid
test, and of the severity.

Volumes are [z, y, x]: z to the head, y to the back, x to the patient's left. Their *stored values*
are S = HU + 1024; S = 0 is air and whatever is not lung. Names of features and what they are: see
`covid_mtl_features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .covid_mtl_features import FEATURES
from .types import Call, Ensemble, Figure, Network, PythonStep, System, Tensor

HU_OFFSET = 1024
"""Stored value of a voxel of 0 HU."""

STORED_MAX = 4095
"""Largest stored value that a scan is read with; cubic resampling may overshoot it."""

PADDING = -2000
"""Value of pixels outside the scanner's field in files of some makers."""

MIN_SLICES = 3
"""Fewer slices are no volume."""

SPACING_MM = (0.3, 10.0)
"""Voxel sizes outside these limits are refused."""

UNEVEN = 0.10
"""Distances of slices that differ from their median by more than this share are uneven."""

PUBLISHED_NIFTI_STEP_MM = 2.0
"""What the published program takes for the slice distance of every NIfTI file."""

VOXEL_MM = 1.0
"""Edge of a voxel after resampling, along all axes."""

AIR = 604
"""A voxel is air when its stored value is strictly lower (−420 HU)."""

SMALL_LUNG = 15_000
"""A slice with fewer lung pixels than these (mm²) is refined without active contours."""

PLAIN_CLOSING = 5
"""Radius of the disk that closes such a slice."""

OUTLINE_CLOSING, OUTLINE_LEVEL = 10, 0.8
"""Radius of the disk that closes a lung before its outline is taken, and the level of that."""

LAST_EROSION, LAST_CLOSING = 2, 10
"""Radii of the disks that smooth each refined lung."""


@dataclass(frozen=True, slots=True)
class Snake:
    """Parameters of an active contour, by the names that scikit-image has for them."""

    alpha: float
    beta: float
    w_line: float
    w_edge: float
    gamma: float
    max_px_move: float
    max_num_iter: int
    convergence: float


SNAKE = Snake(0.02, 20, 0, 1, 0.01, 1.0, 20, 0.1)
"""The active contour that refines each lung of a slice; its ends are joined."""

SECOND_LUNG = 0.20
"""Share of the largest component above which the second largest is the other lung when it lies
across the sagittal midline; mode ``corrected``."""

LUNG_LITRES = (0.3, 8.0)
"""Lung volumes outside these limits are implausible."""

CROP = (340, 390, 390)
"""The common box around the centre of the resampled scan, in voxels."""

WINDOW_START, WINDOW = (70, 70, 70), (200, 250, 250)
"""The 3-D networks see this part of the box."""

CLIP = 2000
"""Stored values above this are lowered to it for the 3-D networks."""

MEAN, STD = 16.71, 85.17
"""Normalised value = (S − mean) / std; averages over the whole boxes of the published cases."""


@dataclass(frozen=True, slots=True)
class Head:
    """One of the three questions.

    Attributes
    ----------
    name
        Also that of the single-task network; the output is ``p_<name>``.
    classes
        By label.
    """

    name: str
    title: str
    classes: tuple[str, ...]

    @property
    def output(self) -> str:
        """Name of the output with its probabilities."""
        return f"p_{self.name}"

    @property
    def tensor(self) -> Tensor:
        """The output with its probabilities."""
        return Tensor(
            self.output, "FP32", (len(self.classes),), f"{self.title}: probabilities", self.classes
        )


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        head.name: head
        for head in (
            Head("ct", "Diagnosis against the radiologist's reading", ("negative", "positive")),
            Head("nat", "Diagnosis against the nucleic-acid test", ("negative", "positive")),
            Head(
                "severity",
                "Severity",
                ("control or suspected", "mild or regular", "severe or critically ill"),
            ),
        )
    }
)
"""The questions by name, in the order of the published outputs.

In the published cases the severity is 0 exactly when the nucleic-acid test is negative, so answers
of these two that differ in that contradict each other."""

DECOVNET_PLANE = (224, 336)
"""Height and width of DeCoVNet's input."""

DECOVNET_EXAMPLE = 64
"""Slices of a small valid input of DeCoVNet."""

MAX_BATCH = 4

_TOLERANCE = 1e-4
"""Of class scores; their probabilities differ less."""

VOLUME = Tensor(
    "volume", "FP16", WINDOW, "stored values of the window, 0…2000 and whole, 0 where no lung is"
)
"""What the 3-D networks take: whole numbers up to 2048 are exact in FP16."""

RADIOMICS = Tensor("radiomics", "FP32", (len(FEATURES),), "features by the published scaling")
CROPPED = Tensor("crop", "UINT16", CROP, "stored values of the common box, 0 where no lung is")
RAW_FEATURES = Tensor("features", "FP64", (len(FEATURES),), "features as they were computed")
REPLACED = Tensor(
    "replaced", "INT32", (1,), "features that could not be computed; stand-ins took their places"
)

ANSWERS = tuple(head.tensor for head in HEADS.values())
"""The outputs of the three heads."""

_TABLE = "scikit-learn's split of the published table, 399 test cases"
_ARTICLE, _ABSTRACT = "399 test cases", "abstract, arXiv 2012.05509"


def _network(
    name: str,
    title: str,
    outputs: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...] = (VOLUME,),
    published: tuple[Figure, ...] = (),
) -> Network:
    return Network(
        name=name,
        model=f"covid_mtl_{name}",
        title=title,
        inputs=inputs,
        outputs=outputs,
        max_batch=MAX_BATCH,
        tolerance=_TOLERANCE,
        published=published,
    )


DUAL = _network(
    "dual",
    "All three answers from volume and features (ShiftNet3D and a feed-forward branch)",
    ANSWERS,
    (VOLUME, RADIOMICS),
    (
        Figure("AUC, CT", 0.939, "", _ARTICLE, _ABSTRACT),
        Figure("accuracy, CT", 90.23, "%", _ARTICLE, _ABSTRACT),
        Figure("AUC, nucleic-acid test", 0.846, "", _ARTICLE, _ABSTRACT),
        Figure("accuracy, nucleic-acid test", 79.20, "%", _ARTICLE, _ABSTRACT),
        Figure("mean AUC, severity", 0.800, "± 0.020", _ARTICLE, _ABSTRACT),
        Figure("mean AUC, severity, transfer learning", 0.813, "± 0.021", _ARTICLE, _ABSTRACT),
        *(
            Figure(f"AUC, {name}, transfer learning", value, "", _ARTICLE, "article")
            for name, value in zip(HEADS["severity"].classes, (0.841, 0.808, 0.789), strict=True)
        ),
    ),
)

VOLUME_ONLY = _network("volume", "All three answers from the volume alone (ShiftNet3D)", ANSWERS)

SINGLE: Mapping[str, Network] = MappingProxyType(
    {
        h.name: _network(h.name, f"{h.title} from the volume (ShiftNet3D)", (h.tensor,))
        for h in HEADS.values()
    }
)
"""One question each, by head: SqueezeNet3D, which ShiftNet3D is when it is not trained."""

RESNET: Mapping[str, Network] = MappingProxyType(
    {
        h.name: _network(
            f"resnet_{h.name}", f"{h.title} from the volume (ResNet3D-34)", (h.tensor,)
        )
        for h in HEADS.values()
    }
)
"""One question each, by head: the comparator ResNet3D-34."""

_DECOVNET_SOURCE = "Wang et al., IEEE Trans Med Imaging 39 (2020)"
_DECOVNET_TEST = "131 test volumes of another hospital"

P_COVID = Tensor("p_covid", "FP32", (2,), "COVID-19: probabilities", ("negative", "positive"))


def _decovnet(name: str, title: str, published: tuple[Figure, ...] = ()) -> Network:
    height, width = DECOVNET_PLANE
    return Network(
        name=name,
        model=f"covid_mtl_{name}",
        title=title,
        inputs=(
            Tensor(
                "study",
                "FP32",
                (2, -1, height, width),
                "windowed CT on a scale of 0…1, and lung mask 0 or 1, in slices of 1 mm",
                half=True,
            ),
        ),
        outputs=(P_COVID,),
        max_batch=MAX_BATCH,
        tolerance=_TOLERANCE,
        published=published,
        example={"study": (2, DECOVNET_EXAMPLE, height, width)},
    )


DECOVNET = _decovnet(
    "decovnet",
    "COVID-19 from CT and lung mask (DeCoVNet)",
    (
        Figure("AUC", 0.959, "", _DECOVNET_TEST, _DECOVNET_SOURCE),
        Figure("area under the precision-recall curve", 0.976, "", "", _DECOVNET_SOURCE),
        Figure("accuracy", 0.901, "", _DECOVNET_TEST, _DECOVNET_SOURCE),
        Figure("time per volume", 1.93, "s", "one GPU", _DECOVNET_SOURCE),
    ),
)

DECOVNET_PARITY = _decovnet(
    "decovnet_parity",
    "DeCoVNet as its test script ran it, normalised by each volume's own statistics",
)

RADIOMICS_STEP = PythonStep(
    model="covid_mtl_radiomics",
    title="The 375 radiomic features of a scan",
    function="hilum.preprocessing.covid_mtl.radiomics:radiomics_step",
    inputs=(CROPPED,),
    outputs=(
        RAW_FEATURES,
        Tensor("scaled", "FP32", (len(FEATURES),), "the same by the published scaling"),
        REPLACED,
    ),
    max_batch=1,
)

WINDOW_STEP = PythonStep(
    model="covid_mtl_window",
    title="Cut the networks' window out of the common box",
    function="hilum.preprocessing.covid_mtl.pipeline:window_step",
    inputs=(CROPPED,),
    outputs=(VOLUME,),
    max_batch=1,
)

_ANSWER_NAMES = {t.name: t.name for t in ANSWERS}

ENSEMBLE = Ensemble(
    model="covid_mtl",
    title="All three answers from volume and features",
    inputs=(VOLUME, RADIOMICS),
    outputs=ANSWERS,
    max_batch=MAX_BATCH,
    calls=(Call(DUAL, {"volume": "volume", "radiomics": "radiomics"}, _ANSWER_NAMES),),
)

SERVER_ENSEMBLE = Ensemble(
    model="covid_mtl_server",
    title="All three answers from the common box, features computed on the server",
    inputs=(CROPPED,),
    outputs=(*ANSWERS, RAW_FEATURES, REPLACED),
    max_batch=1,
    calls=(
        Call(WINDOW_STEP, {"crop": "crop"}, {"volume": "volume"}),
        Call(
            RADIOMICS_STEP,
            {"crop": "crop"},
            {"features": "features", "scaled": "radiomics", "replaced": "replaced"},
        ),
        Call(DUAL, {"volume": "volume", "radiomics": "radiomics"}, _ANSWER_NAMES),
    ),
)

SYSTEM = System(
    name="covid-mtl",
    title="Diagnosis and severity of COVID-19 from a chest CT scan",
    summary="chest CT → lungs, 375 radiomic features, 3-D network → diagnosis and severity",
    paper="Bao et al., Pattern Recognition 124 (2022) 108499",
    networks=(
        DUAL,
        VOLUME_ONLY,
        *SINGLE.values(),
        *RESNET.values(),
        DECOVNET,
        DECOVNET_PARITY,
    ),
    steps=(WINDOW_STEP, RADIOMICS_STEP),
    ensembles=(ENSEMBLE, SERVER_ENSEMBLE),
    published=(
        Figure("accuracy of the largest class, CT", 74.4, "%", _TABLE, "published labels"),
        Figure("accuracy of the largest class, nucleic-acid test", 57.1, "%", _TABLE, "the same"),
        Figure("accuracy of the largest class, severity", 42.9, "%", _TABLE, "the same"),
    ),
)
