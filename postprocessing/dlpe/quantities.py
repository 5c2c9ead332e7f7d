"""Everything that is measured in one scan after its masks are known (spec dlpe_quantification)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import (
    HEIGHT_PARTS,
    LEVEL_EDGES,
    PERIPHERAL_LEVEL,
    PLEURA_EDGES_MM,
    TUBE_EDGES_MM,
)
from hilum.preprocessing.arrays import Array, namespace, to_host

from . import distances
from .branching import Branching, branching
from .chest import Chest, Crop, Triple, flattened
from .components import Parts, parts
from .distribution import Distribution, counts
from .lesion_table import Lesion, Maps, lesion_table
from .lesions import Radiomics, core, radiomics, severity_counts
from .sides import Sides, find_sides, zone_table

ENHANCED_SETS = ("follow_up", "in_patient", "lesion")
"""Masks of lesions on the enhanced volume."""

EDGES: Mapping[str, tuple[float, ...]] = {
    "pleura": PLEURA_EDGES_MM,
    "vessel": TUBE_EDGES_MM,
    "airway": TUBE_EDGES_MM,
    "branching": LEVEL_EDGES,
}
"""Bins of the distribution, by map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """What was measured in one scan.

    Attributes
    ----------
    crop
        The box of normalised space in which `sides` and the branching map lie.
    min_voxels
        Voxels of the smallest lesion that is counted.
    sets
        By lesion set: as segmented, then ``sub_visual`` (found on the enhanced volume and not
        visible) and ``all``; each within parenchyma.
    zones
        By set, see `zone_table`.
    distributions
        By set and map.
    lesions
        The lesion table, of ``all``.
    shares_above_9
        Share of each set, and of ``parenchyma``, with a branching level above 9.
    severity_counts
        Voxels by severity in ``lesions`` (all of them) and in the other ``parenchyma``.
    flags
        What is unusual, by spec §11.
    """

    crop: Crop
    voxel_mm: Triple
    baseline_hu: float
    lung_voxels: int
    parenchyma_voxels: int
    min_voxels: int
    sides: Sides = field(repr=False)
    lung_density_hu: float
    branching: Branching = field(repr=False)
    sets: Mapping[str, Radiomics]
    zones: Mapping[str, Mapping[str, Any]]
    distributions: Mapping[str, Mapping[str, Distribution]]
    lesions: tuple[Lesion, ...]
    shares_above_9: Mapping[str, float | None]
    severity_counts: Mapping[str, NDArray[np.int64]]
    flags: tuple[str, ...]

    @property
    def lung_ml(self) -> dict[str, float]:
        """Volume of the right and the left lung."""
        right, left = self.sides.voxels
        return {"right": right * self.voxel_ml, "left": left * self.voxel_ml}

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return math.prod(self.voxel_mm) / 1000

    def on_host(self) -> Quantities:
        """The same with its arrays on the host."""
        level = self.branching.level
        return dataclasses.replace(
            self,
            sides=dataclasses.replace(self.sides, labels=to_host(self.sides.labels)),
            branching=dataclasses.replace(
                self.branching, level=None if level is None else to_host(level)
            ),
        )

    def report(self) -> dict[str, Any]:
        """The fields of the report beside those of the lesion sets (spec §11), for JSON."""
        return {
            "severity_reference_hu": self.baseline_hu,
            "sides": {
                "flag": self.sides.flag,
                **{f"{side}_ml": ml for side, ml in self.lung_ml.items()},
            },
            "lung_density_hu": self.lung_density_hu,
            "parenchyma_ml": self.parenchyma_voxels * self.voxel_ml,
            "zones": {name: dict(zones) for name, zones in self.zones.items()},
            "distribution": {
                name: {key: one.report() for key, one in maps.items()}
                for name, maps in self.distributions.items()
            },
            "branching": {
                **self.branching.report(),
                "share_level_above_9": dict(self.shares_above_9),
            },
            "lesion_table": {"rows": len(self.lesions), "min_voxels": self.min_voxels},
            "quantification_flags": list(self.flags),
        }

    def sets_report(self) -> dict[str, dict[str, Any]]:
        """Fields of each lesion set (spec §3.1)."""
        return {name: dataclasses.asdict(one) for name, one in self.sets.items()}


def quantify(
    chest: Chest,
    masks: Mapping[str, Array],
    *,
    lps_affine: NDArray[np.float64] | None = None,
    r1_mm: float | None = None,
    with_branching: bool = True,
) -> Quantities:
    """Measure a scan.

    Parameters
    ----------
    chest
        The lungs of the scan.
    masks
        uint8 or bool [x, y, z] by name, of the whole volume: ``vessel``, and lesions (``visible``,
        and some of `ENHANCED_SETS`).
    lps_affine
        float64 [4, 4] from an index of normalised space to the patient's mm (LPS), if known.
    r1_mm
        Radius at branching level 1, of another scan of the patient; None: of this one.
    with_branching
        Make the branching map, which takes most of the time.
    """
    sides = find_sides(chest)
    vessel, airway = (
        None if not bool(namespace(mask).any(mask)) else measure(chest)
        for mask, measure in (
            (chest.vessel, distances.vessel_mm),
            (chest.airway, distances.airway_mm),
        )
    )
    tree = _branching(chest, masks.get("vessel"), r1_mm) if with_branching else _SKIPPED
    maps = Maps(distances.pleura_mm(chest), vessel, airway, tree.level)
    sets = lesion_sets(chest, masks)
    found = {name: parts(mask) for name, mask in sets.items()}
    inner = core(chest)
    background = _background(chest, maps, sides)
    distributions = {n: _distributions(chest, maps, sides, p, background) for n, p in found.items()}
    everything = found.get("all")
    return Quantities(
        crop=chest.crop,
        voxel_mm=chest.voxel_mm,
        baseline_hu=chest.baseline_hu,
        lung_voxels=chest.lung_voxels,
        parenchyma_voxels=chest.parenchyma_voxels,
        min_voxels=chest.min_voxels,
        sides=sides,
        lung_density_hu=chest.mean_hu(),
        branching=tree,
        sets={name: radiomics(chest, one, inner) for name, one in found.items()},
        zones={
            name: zone_table(sides, _places(chest, sides, one), chest.voxel_ml)
            for name, one in found.items()
        },
        distributions=distributions,
        lesions=()
        if everything is None
        else lesion_table(chest, everything, sides, maps, sets, lps_affine),
        shares_above_9=_above_nine(chest, maps, found),
        severity_counts=_severities(chest, sets.get("all"), everything),
        flags=_flags(sides, tree, everything, vessel, airway),
    )  # fmt: skip


def lesion_sets(chest: Chest, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Lesion masks as boxes within parenchyma, and the sets that follow from them (spec §2).

    With networks of two cohorts, ``sub_visual`` and ``all`` take what either of them found.
    """
    sets = {n: chest.lesions(masks[n]) for n in ("visible", *ENHANCED_SETS) if n in masks}
    enhanced = [sets[name] for name in ENHANCED_SETS if name in sets]
    if not sets:
        return {}
    everything = list(sets.values())
    sets["all"] = _united(everything)
    if enhanced:
        found = _united(enhanced)
        sets["sub_visual"] = found & ~sets["visible"] if "visible" in sets else found
    return sets


_SKIPPED = Branching(None, "not_made")


def _united(masks: list[Array]) -> Array:
    united = masks[0] | masks[0]
    for mask in masks[1:]:
        united |= mask
    return united


def _branching(chest: Chest, vessel: Array | None, r1_mm: float | None) -> Branching:
    return Branching(None, "no_vessel") if vessel is None else branching(chest, vessel, r1_mm)


def _places(chest: Chest, sides: Sides, found: Parts) -> tuple[Array, Array, Array]:
    """Side, x and z of each voxel of a set."""
    xp = namespace(chest.ct)
    _, width, height = chest.crop.shape
    side = xp.take(flattened(sides.labels), found.flat)
    return side, found.flat // (width * height), found.flat % height


def _background(chest: Chest, maps: Maps, sides: Sides) -> dict[str, NDArray[np.int64]]:
    """Voxels of parenchyma in each bin of each map."""
    present = {n: m for n in EDGES if (m := getattr(maps, n)) is not None}
    found = {name: counts(box[chest.parenchyma], EDGES[name]) for name, box in present.items()}
    planes = chest.along(chest.parenchyma, 2)
    tenths = sides.tenth(np.arange(len(planes)))
    height = np.bincount(tenths, weights=planes, minlength=HEIGHT_PARTS)
    return {**found, "height": height.astype(np.int64)}


def _distributions(
    chest: Chest, maps: Maps, sides: Sides, found: Parts, background: Mapping[str, Any]
) -> dict[str, Distribution]:
    xp = namespace(chest.ct)
    share = len(found.flat) / chest.parenchyma_voxels if chest.parenchyma_voxels else None
    result = {}
    for name, parenchyma in background.items():
        if name == "height":
            planes = to_host(found.flat % chest.crop.shape[2])
            lesion = np.bincount(sides.tenth(planes), minlength=HEIGHT_PARTS)
            edges = tuple(k / HEIGHT_PARTS for k in range(HEIGHT_PARTS + 1))
        else:
            values = xp.take(flattened(getattr(maps, name)), found.flat)
            lesion, edges = counts(values, EDGES[name]), EDGES[name]
        result[name] = Distribution(
            edges, tuple(lesion.tolist()), tuple(parenchyma.tolist()), share
        )
    return result


def _above_nine(chest: Chest, maps: Maps, found: Mapping[str, Parts]) -> dict[str, float | None]:
    """Share of each set, and of parenchyma, at the finest vessels (spec §4.4)."""
    level = maps.branching
    if level is None:
        return dict.fromkeys((*found, "parenchyma"))
    xp = namespace(level)
    values = {name: xp.take(flattened(level), one.flat) for name, one in found.items()}
    values["parenchyma"] = level[chest.parenchyma]
    return {
        name: float(xp.count_nonzero(v > PERIPHERAL_LEVEL)) / len(v) if len(v) else None
        for name, v in values.items()
    }


def _severities(
    chest: Chest, lesions: Array | None, found: Parts | None
) -> dict[str, NDArray[np.int64]]:
    """Histograms of severity inside and outside of lesions, in blocks for little memory."""
    xp = namespace(chest.ct)
    outside = chest.parenchyma if lesions is None else chest.parenchyma & ~lesions
    flat = xp.nonzero(flattened(outside))[0]
    step = 1 << 22
    pieces = (chest.severity(flat[a : a + step]) for a in range(0, len(flat), step))
    inside = [] if found is None else [chest.severity(found.flat)]
    return {"lesions": severity_counts(inside), "parenchyma": severity_counts(pieces)}


def _flags(
    sides: Sides, tree: Branching, lesions: Parts | None,
    vessel: Array | None, airway: Array | None,
) -> tuple[str, ...]:  # fmt: skip
    known = {
        "no_lesions": lesions is None or not len(lesions.flat),
        sides.flag: sides.flag != "ok",
        "no_vessel": vessel is None,
        "no_airway": airway is None,
        "vessels_too_small": tree.flag == "vessels_too_small",
    }
    return tuple(flag for flag, given in known.items() if given)
