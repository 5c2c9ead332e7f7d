"""Two scans of one patient: what changed, and which lesions went, stayed or came (spec §6).

The scans are not registered. Lesions of the earlier scan are pulled onto the later one lung by
lung, through the boxes around the lungs, so that fates are approximate: look at both scans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import INFLATION, SAME_LESION_MM

from .chest import Triple
from .components import parts
from .distances import distance_mm
from .extent import extent
from .sides import LEFT, RIGHT

Fate = Literal["new", "persisting", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lungs:
    """Lungs and lesions of one scan, on the host.

    Attributes
    ----------
    sides
        uint8 [x, y, z]: 1 right, 2 left, 0 outside of the lungs.
    lesions
        bool [x, y, z], within the lungs.
    min_voxels
        Voxels of the smallest lesion that has a fate.
    """

    sides: NDArray[np.uint8]
    lesions: NDArray[np.bool_]
    voxel_mm: Triple
    min_voxels: int


@dataclass(frozen=True, slots=True)
class Fated:
    """A lesion of one of the scans, and what became of it.

    Attributes
    ----------
    lesion_id
        Its rank in its own scan, from 1.
    distance_mm
        To the lesions of the other scan, in the later scan; None without any.
    """

    scan: Literal["earlier", "later"]
    lesion_id: int
    voxels: int
    fate: Fate
    distance_mm: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a comparison needs to know of one scan.

    Attributes
    ----------
    values
        Of a lesion set: ``volume_ml``, ``share_of_lungs``, ``median_severity_hu``,
        ``total_severity_hu_ml``.
    """

    baseline_hu: float
    lung_ml: float
    values: Mapping[str, float | None]


def changes(earlier: Measured, later: Measured) -> dict[str, Any]:
    """How a lesion set and its scan changed; later minus earlier, ratios later to earlier."""
    ratio = later.lung_ml / earlier.lung_ml if earlier.lung_ml else None
    before, after = earlier.values.get("volume_ml"), later.values.get("volume_ml")
    return {
        "baseline_shift_hu": later.baseline_hu - earlier.baseline_hu,
        "lung_volume_ratio": ratio,
        "volume_change_ml": _less(after, before),
        "lesion_ratio_remaining": after / before if before and after is not None else None,
        "share_change": _change(earlier, later, "share_of_lungs"),
        "median_severity_change_hu": _change(earlier, later, "median_severity_hu"),
        "total_severity_change_hu_ml": _change(earlier, later, "total_severity_hu_ml"),
        "flags": ["different_inflation"] if ratio and abs(ratio - 1) > INFLATION else [],
    }


def fates(earlier: Lungs, later: Lungs, within_mm: float = SAME_LESION_MM) -> tuple[Fated, ...]:
    """Say of each lesion whether it is new, persists, or is resolved.

    Parameters
    ----------
    within_mm
        How close a lesion must come to those of the other scan to persist.

    Returns
    -------
    The lesions of the earlier scan that are resolved, then all of the later one, largest first.
    """
    box = extent(later.sides)
    if box is None:
        return tuple(_gone(earlier))
    before = parts(earlier.lesions)
    ranks = np.zeros(earlier.lesions.size, np.int32)
    ranks[before.flat] = before.rank + 1
    pulled = pull(ranks.reshape(earlier.lesions.shape), earlier.sides, later.sides)[box]
    lungs, now = later.sides[box] > 0, later.lesions[box]
    to_earlier = distance_mm(pulled > 0, later.voxel_mm, lungs)
    to_later = distance_mm(now, later.voxel_mm, lungs)
    found = list[Fated]()
    for rank in range(int((before.sizes >= earlier.min_voxels).sum())):
        image = to_later[pulled == rank + 1]
        nearest = float(image.min()) if len(image) else np.inf
        if nearest > within_mm:
            size = int(before.sizes[rank])
            found.append(Fated("earlier", rank + 1, size, "resolved", _finite(nearest)))
    after = parts(now)
    order, starts = after.by_component()
    distances = to_earlier.ravel()[after.flat][order]
    for rank in range(int((after.sizes >= later.min_voxels).sum())):
        nearest = float(distances[starts[rank] : starts[rank + 1]].min())
        fate: Fate = "persisting" if nearest <= within_mm else "new"
        found.append(Fated("later", rank + 1, int(after.sizes[rank]), fate, _finite(nearest)))
    return tuple(found)


def pull(
    values: NDArray[Any], earlier: NDArray[np.uint8], later: NDArray[np.uint8]
) -> NDArray[Any]:
    """Values of the earlier scan at the places of the later one, lung by lung.

    Parameters
    ----------
    values
        [x, y, z] of the earlier scan.
    earlier, later
        uint8 [x, y, z]: 1 right, 2 left.

    Returns
    -------
    Of the shape of `later`; 0 outside of its lungs, and in a lung that the earlier scan lacks.
    """
    pulled = np.zeros(later.shape, values.dtype)
    for side in (RIGHT, LEFT):
        source, target = extent(earlier == side), extent(later == side)
        if source is None or target is None:
            continue
        places = np.ix_(*(_mapped(s, t) for s, t in zip(source, target, strict=True)))
        inside = later[target] == side
        pulled[target][inside] = values[places][inside]
    return pulled


def _mapped(source: slice, target: slice) -> NDArray[np.int64]:
    """Index in the earlier lung's box of each index of the later one's, along one axis."""
    width, other = source.stop - source.start, target.stop - target.start
    places = source.start + (np.arange(other) + 0.5) * width / other - 0.5
    return np.clip(np.floor(places + 0.5), source.start, source.stop - 1).astype(np.int64)


def _gone(earlier: Lungs) -> list[Fated]:
    sizes = parts(earlier.lesions).sizes
    kept = sizes[sizes >= earlier.min_voxels]
    return [Fated("earlier", k + 1, int(n), "resolved", None) for k, n in enumerate(kept)]


def _change(earlier: Measured, later: Measured, name: str) -> float | None:
    return _less(later.values.get(name), earlier.values.get(name))


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
