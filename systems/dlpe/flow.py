"""One study through the stages of DLPE (spec dlpe §1): networks, and what is computed between them.

Arrays are those of the study's own array module; float volumes are given up as soon as their mask
is made, so that at most five are held at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.postprocessing.dlpe import ranks
from hilum.postprocessing.dlpe.connectivity import refine
from hilum.postprocessing.dlpe.enhancement import Enhancement, enhance
from hilum.postprocessing.dlpe.extent import extent
from hilum.postprocessing.dlpe.three_way import clear_outside, positive
from hilum.preprocessing.arrays import Array

from . import stages
from .ledger import Ledger
from .options import Options
from .views import Stage, three_views

T = TypeVar("T")

_TREES = {"airway": catalog.AIRWAY, "vessel": catalog.VESSEL}

NO_LUNG = (
    "no lung was found, so there is nothing to enhance: check that this is a CT of the chest in "
    "Hounsfield units, that the series is the right one, and whose weights the server has"
)

_NO_HEART = (
    "no heart was found, and the roots of arteries and veins are measured by its volume: check "
    "that the scan shows the heart, or run without the roots"
)


@dataclass(slots=True)
class Flow:
    """One study that runs.

    Attributes
    ----------
    ct
        float32 [x, y, z], normalised.
    limits
        Of the box in which scores are ranked.
    masks
        uint8 [x, y, z] by name, as far as they are found.
    enhancement
        None without lungs.
    flags, notes
        What is unusual, for programs and human-readable.
    """

    ct: Array
    options: Options
    limits: ranks.Limits
    ledger: Ledger
    calls: Calls
    masks: dict[str, Array] = field(default_factory=dict)
    enhancement: Enhancement | None = None
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """All stages; without lungs, or with too little of them, it ends after the first."""
        sums = self.stage_one()
        if not self.masks["lung"].any():
            self._note("no_lung", NO_LUNG)
            return
        try:
            channels = self.channels(sums)
            self.trees(channels)
            del channels
            if self.options.follow_up_set:
                self._visible()
            self.enhance()
        except InputError as error:
            self._note("lung_not_usable", str(error))
            return
        self._lesions()
        if self.options.roots:
            self._roots()

    def stage_one(self) -> dict[str, Array]:
        """Lungs, with `Options.roots` the heart, too; gives the sums of airways and vessels."""
        stage = stages.stage_one(self.ct, heart=self.options.roots)
        sums = self._views("stage_one", stage)
        self._timed("masks", lambda: self._organs(sums))
        if not self.options.follow_up_set:  # whose script does not pass the choice on to the lungs
            self._refine("lung", catalog.LUNG_KEEP, catalog.LOWEST_RATIO)
        self._refine("heart", catalog.HEART_KEEP, catalog.LOWEST_RATIO)
        return sums

    def channels(self, sums: dict[str, Array]) -> dict[str, Array]:
        """What stage two sees beside the CT (spec dlpe §6.2); empties the sums of stage one.

        Raises
        ------
        InputError
            Without lungs, or with too little of them.
        """
        return self._timed("ranks", lambda: self._channels(sums))

    def trees(self, channels: dict[str, Array]) -> None:
        """Airways and vessels, by the networks of stage two."""
        lung = self.masks["lung"] if self.options.lung_only_trees else None
        sums = self._views("stage_two", stages.stage_two(self.ct, channels, lung))
        self._timed("masks", lambda: self._tree_masks(sums))
        for name, tree in _TREES.items():
            self._refine(name, tree.keep, tree.lowest_ratio)

    def enhance(self) -> None:
        """Baseline, window and enhanced volume (spec dlpe §7), once trees are found.

        Raises
        ------
        InputError
            When the lungs have too few samples for a baseline.
        """
        self._timed("enhancement", self._enhance)

    def outer_vessel(self) -> Array:
        """Vessels outside the lungs, which the networks of the roots see."""
        return self.masks["vessel"] & (self.masks["lung"] ^ 1)

    def _organs(self, sums: dict[str, Array]) -> None:
        """Lungs and heart (spec dlpe §4.4)."""
        self.masks["lung"] = positive(sums.pop("lung"), catalog.POSITIVE)
        if "heart" in sums:
            self.masks["heart"] = positive(sums.pop("heart"), catalog.HEART_POSITIVE)

    def _channels(self, sums: dict[str, Array]) -> dict[str, Array]:
        channels = {}
        for name, tree in _TREES.items():
            recall, precision = ranks.channels(
                self.masks["lung"], sums.pop(f"{name}1"), tree, self.limits, self.options.mode
            )
            channels |= {f"{name}_high_recall": recall, f"{name}_high_precision": precision}
        return channels

    def _tree_masks(self, sums: dict[str, Array]) -> None:
        """Airways and vessels (spec dlpe §6.3)."""
        lung, options = self.masks["lung"], self.options
        box = extent(lung)
        for name in _TREES:
            total = sums.pop(f"{name}2")
            if options.lung_only_trees and box is not None:
                clear_outside(total, box)
            ratio = {"airway": options.airway_ratio, "vessel": options.vessel_ratio}[name]
            self.masks[name] = ranks.tree_mask(
                lung, total, ratio or None, self.limits, options.mode
            )
        if options.lung_only_trees:
            self.notes.append("airways and vessels outside the box of the lungs were left out")

    def _enhance(self) -> None:
        lung, airway, vessel = (self.masks[name] for name in ("lung", "airway", "vessel"))
        options = self.options
        without = self.masks["visible"] if options.follow_up_set else None
        self.enhancement = enhance(
            self.ct, lung, airway, vessel, options.mode, options.sampling, without
        )
        self.notes += self.enhancement.notes
        if self.enhancement.fallback:
            self.flags.append("few_samples")

    def _lesions(self) -> None:
        """Lesions on the enhanced volume, then visible ones (spec dlpe §8)."""
        if self.enhancement is not None and self.options.lesions:
            within = None
            if self.options.mode == "corrected":
                with span("masks"):
                    within = self._parenchyma()
            stage = stages.lesions(self.enhancement.volume, self.options.lesions, within)
            self._masks_of("lesions", stage)
        if self.options.visible and not self.options.follow_up_set:
            self._visible()

    def _visible(self) -> None:
        stage = stages.visible(self.ct, self.masks["lung"])
        self._masks_of("visible_lesions", stage)

    def _parenchyma(self) -> Array:
        """The lungs without airways and vessels."""
        mask = self.masks["lung"].copy()
        for name in _TREES:
            mask &= self.masks[name] ^ 1
        return mask

    def _masks_of(self, name: str, stage: Stage) -> None:
        sums = self._views(name, stage)

        def decide() -> None:
            for task, threshold in stage.thresholds.items():
                self.masks[task] = positive(sums.pop(task), threshold, within=stage.within)

        self._timed("masks", decide)

    def _roots(self) -> None:
        """Roots of arteries and veins outside the lungs (spec dlpe §4.4)."""
        lung = self.masks["lung"]
        if not self.masks["heart"].any():
            self._note("no_heart", _NO_HEART)
            return
        with span("masks"):
            outer = self.outer_vessel()
        sums = self._views("roots", stages.roots(self.ct, lung, outer))

        def decide() -> None:
            self.masks["artery"], self.masks["vein"] = ranks.root_masks(
                lung, self.masks["heart"], sums["artery"], sums["vein"],
                limits=self.limits, mode=self.options.mode,
            )  # fmt: skip

        try:
            self._timed("masks", decide)
        except InputError as error:
            self._note("roots_not_usable", str(error))

    def _refine(self, name: str, keep: int, lowest_ratio: float) -> None:
        """Keep the largest connected parts of a mask, when asked for (spec dlpe §9)."""
        if not self.options.refine or name not in self.masks:
            return
        mode = self.options.mode
        self.masks[name] = self._timed(
            "refinement", lambda: refine(self.masks[name], keep, lowest_ratio, mode=mode)
        )

    def _views(self, name: str, stage: Stage) -> dict[str, Array]:
        self.ledger.published_passes += stage.passes
        with self.ledger.stage(name, whole=True):
            return three_views(stage, self.options.how, self.ledger, self.calls)

    def _timed(self, name: str, function: Callable[[], T]) -> T:
        with self.ledger.stage(name):
            return function()

    def _note(self, flag: str, note: str) -> None:
        self.flags.append(flag)
        self.notes.append(note)
