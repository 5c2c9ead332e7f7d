"""What a set of lesions weighs: volume, and severity relative to the scan's own baseline (§3)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import ENHANCED_HU, SEVERITY_BIN_HU, SEVERITY_HU
from hilum.preprocessing.arrays import Array, namespace, to_host

from .chest import Chest, flattened
from .components import Parts
from .rims import dilated, eroded


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiomics:
    """A set of lesions in numbers; severities are None for an empty set.

    Attributes
    ----------
    voxels
        Of the set within parenchyma.
    volume_ml
        Their volume.
    share_of_lungs, share_of_parenchyma
        0 to 1; None where there is nothing that it could be a share of.
    median_severity_hu, mean_severity_hu, std_severity_hu, p10_severity_hu, p90_severity_hu
        HU above the baseline: median, mean, population standard deviation, 10th and 90th
        percentile.
    median_severity_core_hu
        Of the set away from pleura, vessels and airways, whose rims shine by partial volume.
    median_severity_enhanced_hu
        The median on the enhanced volume, which is clipped.
    total_severity_hu_ml
        Sum of severities times the voxel's volume.
    excess_mass_g
        The same as mass: 1 HU is about 1 mg/ml.
    severity_index_hu
        How much denser the set makes the lungs on average.
    lesion_count, small_lesion_count
        Connected parts of at least, and of less than, the smallest volume that counts.
    """

    voxels: int
    volume_ml: float
    share_of_lungs: float | None
    share_of_parenchyma: float | None
    median_severity_hu: float | None
    mean_severity_hu: float | None
    std_severity_hu: float | None
    p10_severity_hu: float | None
    p90_severity_hu: float | None
    median_severity_core_hu: float | None
    median_severity_enhanced_hu: float | None
    total_severity_hu_ml: float
    excess_mass_g: float
    severity_index_hu: float | None
    lesion_count: int
    small_lesion_count: int


def core(chest: Chest) -> Array:
    """The lungs away from their surface, vessels and airways, a box (spec §3.1)."""
    structures = chest.airway | chest.vessel
    return eroded(chest.lung) & ~dilated(structures)


def radiomics(chest: Chest, found: Parts, inner: Array) -> Radiomics:
    """Measure a set of lesions.

    Parameters
    ----------
    found
        Its connected parts, in parenchyma.
    inner
        What `core` returns.
    """
    xp = namespace(chest.ct)
    severity = xp.sort(chest.severity(found.flat))
    count = int(severity.shape[0])
    total = float(xp.sum(severity))
    in_core = chest.severity(found.flat[xp.take(flattened(inner), found.flat)])
    low, high = ENHANCED_HU
    return Radiomics(
        voxels=count,
        volume_ml=count * chest.voxel_ml,
        share_of_lungs=_share(count, chest.lung_voxels),
        share_of_parenchyma=_share(count, chest.parenchyma_voxels),
        median_severity_hu=percentile(severity, 50),
        mean_severity_hu=total / count if count else None,
        std_severity_hu=float(xp.std(severity)) if count else None,
        p10_severity_hu=percentile(severity, 10),
        p90_severity_hu=percentile(severity, 90),
        median_severity_core_hu=percentile(xp.sort(in_core), 50),
        median_severity_enhanced_hu=percentile(xp.clip(severity, low, high), 50),
        total_severity_hu_ml=chest.voxel_ml * total,
        excess_mass_g=chest.voxel_ml * total / 1000,
        severity_index_hu=_share(total, chest.lung_voxels),
        lesion_count=int((found.sizes >= chest.min_voxels).sum()),
        small_lesion_count=int((found.sizes < chest.min_voxels).sum()),
    )


def percentile(ascending: Array, percent: float) -> float | None:
    """A percentile of values in ascending order, between two of them linearly; None of nothing."""
    count = int(ascending.shape[0])
    if not count:
        return None
    place = (count - 1) * percent / 100
    below = math.floor(place)
    low, high = float(ascending[below]), float(ascending[min(below + 1, count - 1)])
    return low + (high - low) * (place - below)


def severity_edges() -> NDArray[np.float64]:
    """Limits of the bins of `severity_counts` in HU above the baseline."""
    low, high = SEVERITY_HU
    return np.arange(low, high + SEVERITY_BIN_HU, SEVERITY_BIN_HU)


def severity_counts(severities: Iterable[Array]) -> NDArray[np.int64]:
    """Voxels in each bin of severity, over several arrays; host."""
    low, high = SEVERITY_HU
    bins = len(severity_edges()) - 1
    counts = np.zeros(bins, np.int64)
    for severity in severities:
        values = to_host(severity)
        counts += np.histogram(values, bins, (low, high))[0]
    return counts


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
