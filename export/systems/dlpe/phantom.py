"""A synthetic chest in DLPE's normalised space, with the truth that its networks should find."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import dlpe as catalog
from hilum.catalog.lungmask import LEFT, RIGHT
from hilum.postprocessing.dlpe.rims import dilated, eroded
from hilum.preprocessing.phantoms.ct import chest_ct

SIDE, LESIONS = 128, 8

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Phantom:
    """Arrays [x, y, z].

    Attributes
    ----------
    volumes
        What slabs are cut from, float32: ``ct`` and ``enhanced``.
    truth
        Foreground by task and output.
    channels
        Masks that tasks take besides, by task and name.
    """

    volumes: Mapping[str, NDArray[np.float32]]
    truth: Mapping[str, Mapping[str, Mask]]
    channels: Mapping[str, Mapping[str, Mask]]
    lung: Mask


@functools.lru_cache(maxsize=2)
def phantom(seed: int, side: int = SIDE) -> Phantom:
    """Make a chest on a grid of `side`³, which covers normalised space; the last two are kept."""
    field = catalog.FIELD_MM
    spacing = (field[2] / side, field[0] / side, field[1] / side)
    made = chest_ct(1000 * seed, slices=side, size=side, spacing=spacing, lesions=LESIONS)
    hu = _normal(made.volume.voxels).astype(np.float32)
    ct = ((hu - catalog.HU_OFFSET) / catalog.HU_SCALE).astype(np.float32)
    airway, vessel, lesion = (_normal(m) > 0 for m in (made.airway, made.vessel, made.lesion))
    labels = _normal(made.lung)
    lung = labels > 0
    heart, artery, vein = _mediastinum(labels, hu)
    truth = {"lung": lung, "visible": lesion, "heart": heart}
    truth |= dict.fromkeys(("airway1", "airway2"), airway)
    truth |= dict.fromkeys(("vessel1", "vessel2"), vessel)
    truth |= dict.fromkeys(("follow_up", "in_patient", "lesion"), lesion)
    return Phantom(
        {"ct": ct, "enhanced": _enhanced(ct, lung, airway | vessel)},
        {
            **{name: {"probability": mask} for name, mask in truth.items()},
            "root": {"artery": artery, "vein": vein},
        },
        {
            "airway2": _two_stages(airway),
            "vessel2": _two_stages(vessel),
            "root": {"lung": lung, "outer_vessel": artery | vein},
        },
        lung,
    )


def _normal(array: NDArray[Any]) -> NDArray[Any]:
    """[z, y, x] in LPS order → [x, y, z] of normalised space."""
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _two_stages(truth: Mask) -> dict[str, Mask]:
    """Roughly what stage one finds: too much, and little of which most is right."""
    return {
        "high_recall": dilated(truth, full=False),
        "high_precision": dilated(eroded(truth, full=False), full=False),
    }


def _enhanced(ct: NDArray[np.float32], lung: Mask, tubes: Mask) -> NDArray[np.float32]:
    """Roughly the enhanced volume: above the median of the lungs, 0 in tubes and outside."""
    tissue = lung & ~tubes
    raised = np.clip(ct - np.median(ct[tissue]), *catalog.ENHANCED_RANGE)
    return np.where(tissue, raised, 0).astype(np.float32)


def _mediastinum(labels: NDArray[Any], hu: NDArray[np.float32]) -> tuple[Mask, Mask, Mask]:
    """Stand-ins for the heart and the roots of arteries and veins: soft tissue between the lungs.

    The lower half, and the front and the back of a third above it.
    """
    behind_right = np.maximum.accumulate(labels == RIGHT, axis=1)
    before_left = np.maximum.accumulate((labels == LEFT)[:, ::-1], axis=1)[:, ::-1]
    between = behind_right & before_left & (labels == 0) & (hu > -100)
    x, z = (np.flatnonzero((labels > 0).any(axis=axes)) for axes in ((1, 2), (0, 1)))
    level = (np.arange(labels.shape[2]) - z[0]) / (z[-1] - z[0])
    front = (np.arange(labels.shape[0]) < x.mean())[:, None, None]
    roots = between & (level > 0.5) & (level < 0.8)
    return between & (level < 0.5), roots & front, roots & ~front
