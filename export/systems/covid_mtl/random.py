"""Random weights for COVID-MTL's networks, and the synthetic volumes they are made with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog

from ...layers.decovnet import DeCoVNet
from ...layers.random import calibrate, seeded
from . import network as covid_mtl

CALIBRATION = (64, 80, 80)
"""Size of the volumes that BatchNorm statistics are those of: small, for a full one takes 3 s."""

CALIBRATION_STUDY = (24, 96, 144)
"""The same for DeCoVNet."""

HU_LOW, HU_RANGE = -1200, 1800
"""DeCoVNet's grey window."""

GRAIN = 5
"""Edge of the lumps that the synthetic lungs are made of, in voxels."""

VESSEL = 0.92
"""Lumps above this are vessels."""


def synthetic_volume(seed: int, shape: tuple[int, int, int]) -> NDArray[np.float16]:
    """Two ellipsoids of lumpy lung with vessels: stored values [z, y, x], 0 outside."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    across = (np.abs(x) - 0.45) / 0.38
    inside = (z[:, None, None] / 0.9) ** 2 + (y[:, None] / 0.7) ** 2 + across**2 < 1
    lumps = rng.random([-(-n // GRAIN) for n in shape], np.float32)
    for axis, n in enumerate(shape):
        lumps = lumps.repeat(GRAIN, axis).take(range(n), axis)
    values = np.where(lumps > VESSEL, 1000, 60 + 150 * lumps)
    values += 20 * rng.standard_normal(shape, np.float32)
    return (np.clip(values, 1, catalog.CLIP).round() * inside).astype(np.float16)


def synthetic_study(seed: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The same as DeCoVNet takes it: [2, T, H, W], windowed CT on 0…1 and lung mask."""
    stored = synthetic_volume(seed, shape).astype(np.float32)
    grey = np.clip((stored - catalog.HU_OFFSET - HU_LOW) / HU_RANGE, 0, 1)
    return np.stack([np.floor(255 * grey) / 255, stored > 0]).astype(np.float32)


def normalised(stored: NDArray[Any]) -> Tensor:
    """What the 3-D networks see of stored values [N, …]: float32 [N, 1, …] (spec §6)."""
    clipped = np.minimum(stored.astype(np.float32), np.float32(catalog.CLIP))
    values = (clipped - np.float32(catalog.MEAN)) / np.float32(catalog.STD)
    return torch.from_numpy(values)[:, None]


def random_core(network: Network, seed: int) -> tuple[nn.Module, str]:
    """The core of `network` with seeded weights, and what these are in words."""
    with seeded(seed):
        core = covid_mtl.build(network)
    if isinstance(core, DeCoVNet):
        study = synthetic_study(seed, CALIBRATION_STUDY)
        core.normalise_by(per_volume=False)
        calibrate(core, torch.from_numpy(study)[None])
        core.normalise_by(per_volume=network.name == catalog.DECOVNET_PARITY.name)
    else:
        volumes = [synthetic_volume(seed + k, CALIBRATION) for k in range(2)]
        backbone = core.get_submodule(covid_mtl.BACKBONE) if _branched(core) else core
        calibrate(backbone, normalised(np.stack(volumes)))
    return core, f"random (seed {seed}); only BatchNorm is fitted, to synthetic volumes"


def _branched(core: nn.Module) -> bool:
    return isinstance(core, covid_mtl.Dual | covid_mtl.VolumeOnly)
