"""Lessons of X-ray severity scoring: `lung` and `pspnet` in the published architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hilum.catalog import cxr_severity as catalog
from hilum.export.systems.cxr_severity import network as cxr

from .loop import Lesson, Phase
from .losses import mask_loss
from .xrays import DISEASE, LUNG, UNKNOWN, Xrays, varied

NETWORKS = ("lung", "pspnet")
REAL = 0.6
"""Share of public X-rays among those that the lung network sees, when there are any."""

LUNG_PHASES = (Phase(128, 8, 900), Phase(256, 4, 1000), Phase(512, 2, 150))
DISEASE_PHASES = (Phase(192, 12, 160), Phase(384, 8, 100))

GATE_WEIGHT = 0.3
"""Of the gate's loss beside the mask's."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is learnt from: synthetic X-rays, and public ones without disease masks or none."""

    synthetic: Xrays
    public: Xrays | None = None


def lesson(name: str, material: Material, phases: tuple[Phase, ...] | None = None) -> Lesson:
    """The lesson of `lung` or `pspnet`."""
    if name == catalog.LUNG.name:
        return Lesson(
            name,
            lambda: _build(name),
            lambda rng, side, count: _lungs(material, rng, side, count),
            lambda out, truth: mask_loss(out[0] * truth[1], truth[0]),
            phases or LUNG_PHASES,
        )
    return Lesson(
        name,
        lambda: _build(name),
        lambda rng, side, count: _diseases(material, name, rng, side, count),
        _disease_loss,
        phases or DISEASE_PHASES,
        rate=2e-3,
    )


def _disease_loss(out: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Tensor:
    gate = functional.binary_cross_entropy(out[1].clamp(1e-6, 1 - 1e-6), truth[1])
    return mask_loss(out[0], truth[0]) + GATE_WEIGHT * gate


def _build(name: str) -> nn.Module:
    """The published network without what drops activations: too slow for so few steps."""
    core = cxr.build(name)
    for module in core.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "_drop_connect_rate"):
            setattr(module, "_drop_connect_rate", 0.0)  # noqa: B010 - a number, not a module
    return core


def _lungs(
    material: Material, rng: np.random.Generator, side: int, count: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Images, masks of lungs, and where these are known."""
    images, masks, known = [], [], []
    for _ in range(count):
        public = material.public is not None and rng.random() < REAL
        pool = material.public if public and material.public is not None else material.synthetic
        k = int(rng.integers(len(pool)))
        pixels, labels = varied(pool.pixels[k], pool.labels[k], rng, side=side)
        images.append(normalised(np.repeat(pixels[..., None], 3, 2), catalog.MEAN, catalog.STD))
        masks.append(_plane(labels & LUNG))
        known.append(1 - _plane(labels & UNKNOWN))
    return torch.stack(images), (torch.stack(masks), torch.stack(known))


def _diseases(
    material: Material, name: str, rng: np.random.Generator, side: int, count: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Lungs cut out by masks that are a little wrong, as those of stage I are."""
    facts, pool = catalog.DISEASE[name], material.synthetic
    images, masks, gates = [], [], []
    for _ in range(count):
        k = int(rng.integers(len(pool)))
        pixels, labels = varied(pool.pixels[k], pool.labels[k], rng, strength=0.7)
        lung = _imprecise((labels & LUNG > 0).astype(np.uint8), rng)
        if not lung.any():
            lung[:] = 1
        rows, columns = (np.flatnonzero(lung.any(axis=a)) for a in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        large = cv2.resize((pixels * lung)[box], (side, side), interpolation=cv2.INTER_CUBIC)
        crop = np.asarray(large, np.uint8)
        disease = (labels & DISEASE > 0).astype(np.uint8) * lung
        target = cv2.resize(disease[box], (side, side), interpolation=cv2.INTER_NEAREST)
        images.append(normalised(np.repeat(crop[..., None], 3, 2), facts.mean, facts.std))
        masks.append(_plane(target))
        gates.append(float(target.any()))
    return torch.stack(images), (torch.stack(masks), torch.tensor(gates)[:, None])


def _imprecise(lung: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[Any]:
    size = int(rng.integers(-9, 10))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(size) + 1,) * 2)
    return (cv2.dilate if size > 0 else cv2.erode)(lung, kernel)


def normalised(
    pixels: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Pixels uint8 [H, W, 3] as a network takes them: float32 [3, H, W]."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def _plane(mask: NDArray[Any]) -> Tensor:
    return torch.from_numpy((mask > 0).astype(np.float32))[None]
