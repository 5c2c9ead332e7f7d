"""DLPE: parenchyma enhancement, scan-optimal window and sub-visual lesions on chest CT.

Zhou et al., Nat Mach Intell 4 (2022), doi 10.1038/s42256-022-00483-7.

CT → 512³ voxels of (334/512, 334/512, 1) mm → lungs, airways, blood vessels (2.5-D U-Nets in three
directions, two stages for airways and vessels) → baseline of healthy parenchyma → enhanced volume,
window level and width → visible and sub-visual lesions.

Arrays in *normalised space* are [x, y, z]: axis 0 grows from anterior to posterior, axis 1 from the
patient's right to left, axis 2 to the head. A *slab* is a stack of consecutive slices along one
axis with `margin` further slices on both ends; a voxel travels once for all networks that see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from .types import Call, Ensemble, Figure, Network, System, Tensor

SIDE = 512
"""Voxels along each axis of normalised space."""

FIELD_MM = (334.0, 334.0, 512.0)
"""Length of normalised space along each axis."""

MULTIPLE = 16
"""The networks halve a slice four times: its height and width are multiples of this."""

HU_OFFSET, HU_SCALE = -600.0, 1600.0
"""Normalised value = (HU − offset) / scale; no clipping."""

FILL_HU = 0.0
"""Around the scan in normalised space: what the published networks were given."""

LONGEST_MM = 450.0
"""A longer stack is declared to be this long in mode ``parity``."""

DIRECTIONS = ("x", "y", "z")
"""Axes along which the networks see slices; their probabilities are added in this order."""

Direction = Literal["x", "y", "z"]

IMAGE_AXES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"x": (1, 2), "y": (0, 2), "z": (0, 1)}
)
"""Axes of normalised space that are a slice's height and width."""

PLANES = (128, 256, 512)
"""Sides of slices by which the length of a slab is chosen: a slice counts as the next larger one.
So few shapes are all that engines are built for."""

W3, W5 = (-1, 0, 1), (-5, -2, 0, 2, 5)
"""Windows: offsets in voxels of the slices that a network sees besides its own."""

POSITIVE = 2.0
"""A voxel is foreground when the sum of its three probabilities is strictly greater."""

HEART_POSITIVE = 2.3
"""The same for the heart."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How a tubular structure is found in two stages.

    Attributes
    ----------
    high_recall, high_precision
        Voxels of the stage-one masks that enter stage two, as shares of the lung volume.
    ratio
        Voxels of the final mask as a share of the lung volume, in the main program.
    default_ratio
        The published function's default for the same.
    keep, lowest_ratio
        Connectivity refinement: components kept, and the least share of the largest one.
    """

    high_recall: float
    high_precision: float
    ratio: float
    default_ratio: float
    keep: int
    lowest_ratio: float


AIRWAY = Tree(0.023, 0.0066, ratio=0.02, default_ratio=0.016, keep=7, lowest_ratio=0.001)
VESSEL = Tree(0.108, 0.043, ratio=0.1, default_ratio=0.08, keep=2, lowest_ratio=0.4)

LUNG_KEEP, HEART_KEEP, LOWEST_RATIO = 2, 1, 0.001
"""Connectivity refinement of lungs and heart."""

ARTERY_RATIO, VEIN_RATIO = 0.087928414, 0.094912276
"""Voxels of artery and vein roots as shares of the heart volume."""

RANK_LOW, RANK_HIGH = 10, 500
"""The box in which scores are ranked lies within these indices of 512."""

RING_RATIOS, RING_CAPS = (1.1, 1.1 + 0.1), (50, 55)  # the published sum exceeds 1.2 by a bit
"""Parenchyma is sampled between a structure's outlines enlarged by these ratios of its diameter;
diameters in voxels are capped."""

RING_LEAST = 10_000
"""Fewer samples at 512³ are too few for a baseline in mode ``corrected``."""

ENHANCED_RANGE = (-0.05, 0.25)
"""The enhanced volume is clipped to this range around the baseline (−80…+400 HU)."""

WIDTH_FACTOR = 1.5
"""Window width in standard deviations of healthy parenchyma."""

PICTURE_SLICE = 250
"""Slice of 512 that the published program draws."""

Cohort = Literal["in-patient", "follow-up", "both", "earlier", "none"]
"""Whose lesion network runs on the enhanced volume; earlier: the network that came before both."""


@dataclass(frozen=True, slots=True)
class Task:
    """One published model: three networks, one for each direction.

    Attributes
    ----------
    name
        The networks are called ``<name>_x``, ``<name>_y``, ``<name>_z``.
    folder
        Folder of the published checkpoints.
    window
        Offsets of the slices that it sees.
    enhance
        Names of its further 8-bit channels.
    outputs
        Names of the classes after the background.
    margin
        Slices on both ends of its slabs; all networks of a stage have that of the widest.
    volume
        What its slabs are cut from.
    """

    name: str
    title: str
    folder: str
    window: tuple[int, ...]
    margin: int
    enhance: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("probability",)
    volume: Literal["ct", "enhanced"] = "ct"

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.window) + len(self.enhance)

    def network(self, direction: str) -> Network:
        """The served network of one direction."""
        return _NETWORKS[self.name, direction]


_TREE_CHANNELS = ("high_recall", "high_precision")

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("lung", "Lungs", "lung_seg", W5, 5),
            Task("airway1", "Airways, stage one", "air_way_seg_stage_one", W3, 5),
            Task("airway2", "Airways, stage two", "air_way_seg_stage_two", W3, 1, _TREE_CHANNELS),
            Task("vessel1", "Blood vessels, stage one", "blood_vessel_seg_stage_one", W3, 5),
            Task(
                "vessel2",
                "Blood vessels, stage two",
                "blood_vessel_seg_stage_two",
                W3,
                1,
                _TREE_CHANNELS,
            ),
            Task("visible", "Visible lesions", "infection_COVID-19", W5, 5),
            Task(
                "follow_up",
                "Lesions of survivors, on the enhanced volume",
                "invisible_COVID-19_lesion_follow_up_only",
                W3,
                1,
                volume="enhanced",
            ),
            Task(
                "in_patient",
                "Lesions of in-patients, on the enhanced volume",
                "invisible_COVID-19_lesion_final",
                W3,
                1,
                volume="enhanced",
            ),
            Task(
                "lesion",
                "Lesions on the enhanced volume, earlier network",
                "invisible_COVID-19_lesion",
                W3,
                1,
                volume="enhanced",
            ),
            Task("heart", "Heart", "heart_seg", W3, 5),
            Task(
                "root",
                "Roots of the arteries and veins",
                "blood_vessel_root",
                W5,
                5,
                ("lung", "outer_vessel"),
                ("artery", "vein"),
            ),
        )
    }
)
"""The published models by name."""

_SLAB = Tensor("slab", "FP32", (-1, -1, -1), "slices [S + 2·margin, H, W], normalised", half=True)


def _channel(name: str) -> Tensor:
    return Tensor(name, "UINT8", (-1, -1, -1), "mask of the S slices in the middle, 0 or 1")


def _probability(name: str) -> Tensor:
    # Never FP16: its numbers near 1 are so far apart that voxels of airways and vessels, which are
    # found by their rank, would tie by thousands.
    return Tensor(name, "FP32", (-1, -1, -1), "probability of the S slices in the middle")


def _network(task: Task, direction: str) -> Network:
    # Not `streamed`: the networks of a stage run side by side already, each in its own memory.
    return Network(
        name=f"{task.name}_{direction}",
        model=f"dlpe_{task.name}_{direction}",
        title=f"{task.title}, direction {direction.upper()} (2.5-D U-Net)",
        inputs=(_SLAB, *(_channel(name) for name in task.enhance)),
        outputs=tuple(_probability(name) for name in task.outputs),
        max_batch=0,
        tolerance=1e-4,  # of logits, which are no probabilities; and of their probabilities
        example={
            "slab": (2 * task.margin + 1, MULTIPLE, MULTIPLE),
            **dict.fromkeys(task.enhance, (1, MULTIPLE, MULTIPLE)),
        },
    )


_NETWORKS = {(t.name, d): _network(t, d) for t in TASKS.values() for d in DIRECTIONS}


def _ensemble(
    stage: str, title: str, direction: str, tasks: Mapping[str, Mapping[str, str]]
) -> Ensemble:
    """One slab for several networks; `tasks`: by task, the ensemble's name of each channel."""
    calls, channels, outputs = [], dict[str, Tensor](), []
    for name, given in tasks.items():
        network = _NETWORKS[name, direction]
        channels.update({outer: _channel(outer) for outer in given.values()})
        out = TASKS[name].outputs
        names = {inner: name if len(out) == 1 else inner for inner in out}
        outputs += [_probability(outer) for outer in names.values()]
        calls.append(Call(network, {"slab": "slab", **given}, names))
    return Ensemble(
        model=f"dlpe_{stage}_{direction}",
        title=f"{title}, direction {direction.upper()}",
        inputs=(_SLAB, *channels.values()),
        outputs=tuple(outputs),
        calls=tuple(calls),
        max_batch=0,
    )


_STAGES: Mapping[str, tuple[str, Mapping[str, Mapping[str, str]]]] = {
    "stage1": (
        "Lungs, airways, vessels and visible lesions of a slab",
        {"lung": {}, "airway1": {}, "vessel1": {}, "visible": {}},
    ),
    "stage1_heart": (
        "Lungs, airways, vessels, visible lesions and heart of a slab",
        {"lung": {}, "airway1": {}, "vessel1": {}, "visible": {}, "heart": {}},
    ),
    "stage2": (
        "Airways and vessels of a slab with the masks of stage one",
        {
            "airway2": {c: f"airway_{c}" for c in _TREE_CHANNELS},
            "vessel2": {c: f"vessel_{c}" for c in _TREE_CHANNELS},
        },
    ),
    "enhanced": (
        "Lesions of survivors and of in-patients on a slab of the enhanced volume",
        {"follow_up": {}, "in_patient": {}},
    ),
}

ENSEMBLES: Mapping[tuple[str, str], Ensemble] = MappingProxyType(
    {
        (stage, direction): _ensemble(stage, title, direction, tasks)
        for stage, (title, tasks) in _STAGES.items()
        for direction in DIRECTIONS
    }
)
"""By stage and direction. Only the networks run whose outputs a request asks for."""

_PAGE, _CODE = "project page", "comment of the main program"
_COMMENTS = "comments of the code"
_FIGURE, _V100 = "results figure of the article", "one V100"

SYSTEM = System(
    name="dlpe",
    title="Parenchyma enhancement and sub-visual lesions on chest CT",
    summary=(
        "chest CT → lungs, airways, vessels → scan-optimal window, enhanced volume, visible and "
        "sub-visual lesions"
    ),
    paper="Zhou et al., Nat Mach Intell 4 (2022), doi 10.1038/s42256-022-00483-7",
    networks=tuple(_NETWORKS.values()),
    steps=(),
    ensembles=tuple(ENSEMBLES.values()),
    published=(
        Figure("time per scan", 2.0, "min", _V100, _PAGE),
        Figure("time per scan", 1.0, "min", _V100, _CODE),
        Figure("GPU memory, at least", 6.0, "GB", "", f"earlier {_PAGE}"),
        Figure("GPU memory, at least", 4.0, "GB", "", f"later {_PAGE}"),
        Figure("GPU memory in batches of 4, about", 3.0, "GB", "", _COMMENTS),
        Figure("CPU memory, at least", 24.0, "GB", "", _PAGE),
        Figure("connectivity refinement of lungs, about", 5.0, "min", "", _COMMENTS),
        Figure("connectivity refinement of airways, about", 30.0, "s", "", _COMMENTS),
        Figure("connectivity refinement of vessels, at most", 60.0, "s", "", _COMMENTS),
        Figure("Dice of sub-visual lesions, original CT", 0.612, "± 0.165", "", _FIGURE),
        Figure("Dice of sub-visual lesions, enhanced CT", 0.886, "± 0.117", "", _FIGURE),
        Figure("Dice of a 2-D U-Net, original CT", 0.588, "± 0.181", "", _FIGURE),
        Figure("Dice of a 2-D U-Net, enhanced CT", 0.819, "± 0.144", "", _FIGURE),
        Figure("Dice of MPUnet, original CT", 0.601, "± 0.177", "", _FIGURE),
        Figure("Dice of MPUnet, enhanced CT", 0.869, "± 0.139", "", _FIGURE),
        Figure("Dice of a 3-D U-Net, original CT", 0.598, "± 0.153", "", _FIGURE),
        Figure("Dice of a 3-D U-Net, enhanced CT", 0.830, "± 0.168", "", _FIGURE),
    ),
)
