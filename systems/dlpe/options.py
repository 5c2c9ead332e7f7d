"""What can be chosen for a run of DLPE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hilum.catalog import dlpe as catalog
from hilum.catalog.dlpe import Cohort
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode
from hilum.client.device import CPU, Device
from hilum.postprocessing.dlpe.enhancement import Variant as Sampling
from hilum.postprocessing.dlpe.ranks import LIMITS, Limits
from hilum.preprocessing.dlpe.grid import check_side
from hilum.results.meshes import check_meshes

from ..base import Place, filled_from, option
from ..studies import ACQUISITION_HELP
from .views import How

Branching = Literal["corrected", "parity", "none"]
"""Which branching maps are made."""

Preset = Literal["none", "follow-up-set"]
"""Whose settings a run has."""

_CHOICES = {
    "mode": get_args(Mode),
    "cohort": get_args(Cohort),
    "sampling": get_args(Sampling),
    "branching": get_args(Branching),
    "preset": get_args(Preset),
}

MAX_SLAB_SLICES = 64
"""Longer slabs gain nothing, and 512 × 512 × 74 voxels are 78 MB."""

MAX_IN_FLIGHT = 64
"""Beyond this, slabs only wait."""

COHORT_TASKS: dict[str, tuple[str, ...]] = {
    "in-patient": ("in_patient",),
    "follow-up": ("follow_up",),
    "both": ("follow_up", "in_patient"),
    "earlier": ("lesion",),
    "none": (),
}
"""Lesion networks that run on the enhanced volume, by cohort."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Mode ``parity`` is the published program with its faults; its lesion masks from the enhanced
    volume are not restricted to the lungs. In mode ``corrected`` they are, airways and vessels left
    out, and normalisation and enhancement do what was meant (spec dlpe §2, §3, §7, §8).

    Raises
    ------
    InputError
        For a value that makes no sense.
    """

    mode: Mode = option("parity", "parity: the published program, faults included; or corrected.")
    cohort: Cohort = option(
        "both",
        "Whose lesion network runs on the enhanced volume: in-patient, follow-up, both, earlier "
        "(the network before these), none.",
    )
    visible: bool = option(True, "Also find visible lesions.")
    preset: Preset = option(
        "none",
        "follow-up-set: masks, enhanced array and semantic map as the script for the published "
        "follow-up data set makes them.",
    )
    roots: bool = option(False, "Also find the heart and the roots of arteries and veins.")
    refine: bool = option(False, "Keep only the largest connected parts of lungs and trees.")
    grid: int = option(
        catalog.SIDE, "Voxels along each side; below 512 a preview on a coarser grid."
    )
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    acquisition: int | None = option(None, ACQUISITION_HELP)
    slice: int | None = option(None, "Slice of the picture, from 0 at the feet.")
    airway_ratio: float = option(
        catalog.AIRWAY.ratio, "Airways as a share of the lung volume; 0: where the sum exceeds 2."
    )
    vessel_ratio: float = option(
        catalog.VESSEL.ratio, "Vessels as a share of the lung volume; 0: where the sum exceeds 2."
    )
    sampling: Sampling = option(
        "general", "Where parenchyma is sampled: general, or upper-frontal (upper frontal lung)."
    )
    fill_hu: float = option(catalog.FILL_HU, "HU around the scan in normalised space.")
    lung_only_trees: bool = option(
        False,
        "Stage two only where there is lung: faster, the same enhanced volume; airways and vessels "
        "outside the box of the lungs are then missing.",
    )
    quantities: bool = option(
        True, "Measure lesions: severity, distances, zones, the vessel branching map."
    )
    branching: Branching = option(
        "corrected",
        "The vessel branching map: corrected; parity, the published one beside it; or none.",
    )
    seed: int = option(0, "Of the random choice in the published branching map.")
    meshes: bool = option(
        False, "Also write surfaces (STL, GLB) of lungs, airways, vessels and lesions."
    )
    slab_slices: int = option(0, "Slices sent at once; 0: by their size.", changes_result=False)
    slabs_in_flight: int = option(
        0,
        "Slabs of one study at once; 0: 4, or 2 for each of the server's GPUs.",
        changes_result=False,
    )
    skip: bool = option(True, "Leave out work that cannot change the result.", changes_result=False)
    device: Device = filled_from("device", CPU)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", Device.of(self.device))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise BadOption(f"no {name} {getattr(self, name)!r}; choose {', '.join(known)}")
        if self.follow_up_set:
            self._take_preset()
        if self.meshes:
            check_meshes()
        check_side(self.grid)
        for name in ("airway_ratio", "vessel_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise BadOption(f"{name} {getattr(self, name)} is not a share: give 0 to 1")
        limits = {
            "slab_slices": (0, MAX_SLAB_SLICES),
            "slabs_in_flight": (0, MAX_IN_FLIGHT),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise BadOption(f"{name} {getattr(self, name)}: give {low} to {high}")
        if not -1024 <= self.fill_hu <= 3071:
            raise BadOption(f"fill_hu {self.fill_hu} is not in the range of a CT, −1024 to 3071")
        if self.lung_only_trees and (self.refine or self.roots):
            raise BadOption(
                "lung_only_trees leaves out airways and vessels that refine and roots count on; "
                "choose one"
            )
        if self.slice is not None and self.slice < 0:
            raise BadOption(f"slice {self.slice}: slices count from 0 at the feet")

    def _take_preset(self) -> None:
        """Ratios, refinement and slice of the published script, where nothing else was chosen."""
        if not self.visible:
            raise BadOption("preset follow-up-set takes visible lesions out; leave --visible on")
        if self.airway_ratio == catalog.AIRWAY.ratio:
            object.__setattr__(self, "airway_ratio", catalog.AIRWAY.default_ratio)
        if self.vessel_ratio == catalog.VESSEL.ratio:
            object.__setattr__(self, "vessel_ratio", catalog.VESSEL.default_ratio)
        object.__setattr__(self, "refine", True)

    @property
    def follow_up_set(self) -> bool:
        """Whether the run reproduces the published follow-up data set."""
        return self.preset == "follow-up-set"

    @property
    def how(self) -> How:
        """How slabs are sent."""
        return How(self.slab_slices, self.slabs_in_flight, self.skip)

    @property
    def lesions(self) -> tuple[str, ...]:
        """Lesion networks that run on the enhanced volume."""
        return COHORT_TASKS[self.cohort]

    def limits(self, side: int) -> Limits:
        """Limits of the box in which scores are ranked, for a grid that the client has made.

        The published indices belong to 512 voxels; a preview's lie at the same place in the body.
        """
        low, high = (round(limit * side / catalog.SIDE) for limit in LIMITS)
        return low, high


class Keywords(Place, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    mode: Mode
    cohort: Cohort
    visible: bool
    roots: bool
    refine: bool
    grid: int
    series: str | None
    acquisition: int | None
    slice: int | None
    airway_ratio: float
    vessel_ratio: float
    sampling: Sampling
    fill_hu: float
    lung_only_trees: bool
    preset: Preset
    quantities: bool
    branching: Branching
    seed: int
    meshes: bool
    slab_slices: int
    slabs_in_flight: int
    skip: bool
    device: Device | str
