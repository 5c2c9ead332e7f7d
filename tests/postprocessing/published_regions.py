"""How the published program judges regions: soft outlines, disks, discovery (spec §9.1–9.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hilum.postprocessing.dlpe.components import parts, ranked
from hilum.postprocessing.dlpe.rims import outer_rim


def soft_binary(values: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Where the weighted sum over a voxel and its 26 neighbours exceeds a share of its maximum.

    A neighbour weighs 1/6, 1/12 or 1/18 as it differs along one, two or three axes.
    """
    apart = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0)
    weights = np.array([1, 1 / 6, 1 / 12, 1 / 18])[apart]
    total = ndimage.convolve(np.asarray(values, np.float64), weights, mode="constant")
    return total > share * total.max()


def like_disk(mask: NDArray[np.bool_]) -> bool:
    """Whether a plane's mask is one region without holes: so is the rim around it."""
    padded = np.pad(mask, 1)
    if len(parts(padded).sizes) != 1:
        return False
    return len(parts(outer_rim(padded, axes=(0, 1))).sizes) == 1


def region_discovery(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """Share of regions, of both masks and plane by plane, that the other mask hits.

    Regions are 4-connected in the planes across axis 2; None without any, where the published
    program divides by zero.
    """
    hit = regions = 0
    for z in range(found.shape[2]):
        for one, other in ((found, truth), (truth, found)):
            numbers = ranked(one[:, :, z], corners=False)
            regions += int(numbers.max(initial=0))
            hit += len(np.unique(numbers[(numbers > 0) & other[:, :, z]]))
    return hit / regions if regions else None


def overlap(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], beta: float = 1.0
) -> tuple[float | None, float | None, float | None]:
    """F-beta (Dice for 1), precision and recall; None where there is nothing to divide by."""
    both, one, other = (int(np.count_nonzero(m)) for m in (found & truth, found, truth))
    precision, recall = both / one if one else None, both / other if other else None
    whole = beta**2 * other + one
    return (1 + beta**2) * both / whole if whole else None, precision, recall
