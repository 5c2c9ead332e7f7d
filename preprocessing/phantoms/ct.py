"""Synthetic chest CT: an anatomy of simple solids, for tests, examples and benchmarks.

It has a body, ribs, a spine, a heart, two lungs that differ, trees of airways and vessels that
branch and taper, and ground-glass lesions, all in HU. It looks like a chest but shows nobody; it is
no substitute for clinical images when a network's accuracy is in question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import InputError
from hilum.catalog.lungmask import LEFT, RIGHT

from ..reading.volume import Geometry, Volume

MIN_SIDE, MIN_SLICES = 32, 3

FIELD_MM, HEIGHT_MM = 360.0, 300.0
"""What the default spacing covers: side of a slice, and the whole stack."""

VESSEL, WALL, LUMEN = 1, 2, 3
"""Labels of the trees: vessel, wall and inside of an airway."""

Plane = NDArray[Any]
"""[H, W], float32 or bool."""

Planes = tuple[Plane, Plane, Plane]
"""x [1, W] and y [H, 1] in mm, and the angle of each pixel from the back [H, W]."""


@dataclass(frozen=True, slots=True)
class CtPhantom:
    """A synthetic chest CT with the truth about it.

    Attributes
    ----------
    volume
        Voxels in HU, in LPS order.
    lung
        uint8 [z, y, x]: 0, 1 right lung, 2 left lung; vessels, airways and lesions inside count.
    lesion, airway, vessel
        uint8 [z, y, x], 0 or 1. An airway is its inside.
    """

    volume: Volume
    lung: NDArray[np.uint8]
    lesion: NDArray[np.uint8]
    airway: NDArray[np.uint8]
    vessel: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Trees:
    """How thick and how fine the trees are.

    Attributes
    ----------
    vessel_radius
        Of the twelve vessels that leave the hila, in mm; branches are thinner by Murray's law.
    vessel_generations
        How often they split.
    airway_scale
        Factor on the radii of all airways.
    """

    vessel_radius: float = 4.2
    vessel_generations: int = 4
    airway_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class _Tube:
    """A tapering piece of a tree; points are x, y, z in mm."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: tuple[float, float]
    label: int


@dataclass(frozen=True, slots=True)
class _Lesion:
    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    phase: NDArray[np.float64]
    density: float


@dataclass(frozen=True, slots=True)
class _Body:
    """One patient: sizes in mm; x to the left, y to the back, z from the lowest slice up."""

    girth: float
    fat: float
    base: float
    apex: float
    domes: tuple[float, float]
    heart: NDArray[np.float64]
    heart_radii: NDArray[np.float64]
    spine: float
    tubes: tuple[_Tube, ...]
    lesions: tuple[_Lesion, ...]


def chest_ct(
    seed: int,
    *,
    slices: int = 60,
    size: int | tuple[int, int] = 128,
    spacing: tuple[float, float, float] | None = None,
    lesions: int = 5,
    noise: float = 18.0,
    trees: Trees = Trees(),
) -> CtPhantom:
    """Make a chest CT.

    Parameters
    ----------
    seed
        Patient and noise. The same arguments give the same volume.
    slices, size
        Voxels along z, and along y and x: one number for both, or rows and columns.
    spacing
        Along z, y, x in mm; None: as much as 300 mm of height and slices of 360 mm need.
    lesions
        Ground-glass opacities, 0 or more.
    noise
        Standard deviation in HU.
    trees
        Of airways and vessels.

    Raises
    ------
    InputError
        For a size below 32, fewer than 3 slices, or a spacing or count that is negative.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    if min(rows, columns) < MIN_SIDE or slices < MIN_SLICES:
        raise InputError(
            f"phantom of {slices} slices of {rows} × {columns}: give {MIN_SLICES} slices and "
            f"{MIN_SIDE} pixels or more"
        )
    if spacing is None:
        spacing = (HEIGHT_MM / slices, FIELD_MM / rows, FIELD_MM / columns)
    if min(spacing) <= 0 or lesions < 0 or noise < 0:
        raise InputError("phantom: spacing must be above 0, lesions and noise not below 0")
    rng = np.random.default_rng([seed % 2**64, 20200220])
    height = slices * spacing[0]
    body = _draw_body(rng, height, lesions, trees)
    z = (np.arange(slices) + 0.5) * spacing[0]
    y, x = (
        (np.arange(n) - (n - 1) / 2) * step
        for n, step in zip((rows, columns), spacing[1:], strict=True)
    )
    drawn = np.zeros((slices, rows, columns), np.uint8)
    for tube in body.tubes:
        _draw_tube(drawn, tube, (z, y, x))
    voxels = np.empty(drawn.shape, np.int16)
    lung, lesion = np.zeros_like(drawn), np.zeros_like(drawn)
    across, down = x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]
    planes = across, down, np.abs(np.arctan2(across, down))
    for k, level in enumerate(z):
        voxels[k], lung[k], lesion[k] = _slice(body, planes, float(level), drawn[k], noise, rng)
    geometry = Geometry(
        (slices, rows, columns),
        (float(x[0]), float(y[0]), float(z[0])),
        spacing,
        ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    notes = (f"synthetic chest CT, seed {seed}",)
    airway, vessel = drawn == LUMEN, (drawn == VESSEL) & (lung > 0)
    return CtPhantom(
        Volume(voxels, geometry, notes), lung, lesion, airway.astype(np.uint8),
        vessel.astype(np.uint8),
    )  # fmt: skip


def _draw_body(rng: np.random.Generator, height: float, lesions: int, trees: Trees) -> _Body:
    """Draw a patient; the random numbers do not depend on the size of the grid."""
    girth, fat = rng.normal(1.0, 0.04), max(6.0, rng.normal(15, 4))
    base, apex = height * 0.5 - 115 + rng.normal(0, 4), height * 0.5 + 125 + rng.normal(0, 4)
    domes = (rng.normal(62, 5), rng.normal(48, 5))
    carina = np.array([-4 + rng.normal(0, 2), 12 + rng.normal(0, 3), apex - 105])
    scale = trees.airway_scale
    tubes = [*_airways(rng, carina, apex, height, scale), *_vessels(rng, carina, trees)]
    return _Body(
        girth, fat, base, apex, domes,
        np.array([22 + rng.normal(0, 3), -28, base + 62]),
        np.array([56, 46, 62]) * rng.normal(1, 0.06),
        rng.uniform(0, 25),
        tuple(tubes),
        tuple(_lesions(rng, lesions, base)),
    )  # fmt: skip


def _airways(
    rng: np.random.Generator, carina: NDArray[np.float64], apex: float, height: float, scale: float
) -> Iterator[_Tube]:
    top = np.array([rng.normal(0, 2), carina[1] - 22, max(height, apex + 60)])
    tubes = [_Tube(top, carina, (8.5 * scale, 8.0 * scale), LUMEN)]
    for side, drop, length in ((-1, 26.0, 38.0), (1, 22.0, 52.0)):
        end = carina + np.array([side * length, 4, -drop])
        tubes.append(_Tube(carina, end, (6.6 * scale, 5.6 * scale), LUMEN))
        for lobe in ((0.75, -0.1, 0.75), (0.8, -0.6, -0.25), (0.45, 0.45, -0.85)):
            towards = np.array([side * lobe[0], lobe[1], lobe[2]])
            tubes += _branches(rng, end, towards, 24, 3.9 * scale, 4, LUMEN)
    # Walls first, so that no wall crosses the inside of another branch.
    for tube in tubes:
        thick = tuple(r + max(0.9, 0.25 * r) for r in tube.radius)
        yield _Tube(tube.start, tube.end, (thick[0], thick[1]), WALL)
    yield from tubes


def _vessels(
    rng: np.random.Generator, carina: NDArray[np.float64], trees: Trees
) -> Iterator[_Tube]:
    for side in (-1, 1):
        root = carina + np.array([side * 40, -8, -24])
        for azimuth in np.linspace(-2.2, 2.2, 6) + rng.normal(0, 0.1, 6):
            for lift in (-0.75, 0.6):
                towards = np.array([side * (0.35 + 0.65 * np.cos(azimuth)), np.sin(azimuth), lift])
                yield from _branches(
                    rng, root, towards, 30, trees.vessel_radius, trees.vessel_generations, VESSEL
                )


def _branches(
    rng: np.random.Generator,
    start: NDArray[Any],
    towards: NDArray[Any],
    length: float,
    radius: float,
    generations: int,
    label: int,
) -> Iterator[_Tube]:
    """Draw a tree: every branch splits in two, shorter and thinner ones (Murray's law)."""
    towards = towards / np.linalg.norm(towards)
    end = start + towards * (length * float(rng.uniform(0.85, 1.15)))
    yield _Tube(start, np.asarray(end, np.float64), (radius, 0.85 * radius), label)
    if generations == 0:
        return
    turn = rng.normal(0, 1, 3)
    turn -= (turn @ towards) * towards
    turn /= np.linalg.norm(turn)
    for sign in (-1, 1):
        way = towards + sign * rng.uniform(0.35, 0.75) * turn
        yield from _branches(rng, end, way, 0.82 * length, 0.79 * radius, generations - 1, label)


def _lesions(rng: np.random.Generator, count: int, base: float) -> Iterator[_Lesion]:
    """Mostly at the back and the rim of the lower lungs."""
    for _ in range(count):
        side, angle = rng.choice([-1, 1]), rng.uniform(-0.2, 1.3)
        centre = np.array(
            [side * 112 * np.cos(angle), 72 * np.sin(angle), base + rng.uniform(55, 150)]
        )
        yield _Lesion(
            centre, rng.uniform(11, 26, 3), rng.uniform(0, 2 * np.pi, 3), rng.uniform(-560, -380)
        )


def _draw_tube(trees: NDArray[np.uint8], tube: _Tube, axes: tuple[NDArray[Any], ...]) -> None:
    """Write a tube's label into all voxels whose centre it covers."""
    reach = max(tube.radius)
    spans = []
    for values, a, b in zip(axes, tube.start[::-1], tube.end[::-1], strict=True):
        low, high = np.searchsorted(values, (min(a, b) - reach, max(a, b) + reach))
        spans.append(slice(int(low), int(high)))
    z, y, x = np.ix_(*(values[s] for values, s in zip(axes, spans, strict=True)))
    if 0 in (z.size, y.size, x.size):
        return
    way = tube.end - tube.start
    dx, dy, dz = x - tube.start[0], y - tube.start[1], z - tube.start[2]
    t = np.clip((dx * way[0] + dy * way[1] + dz * way[2]) / (way @ way), 0, 1)
    distance = (dx - t * way[0]) ** 2 + (dy - t * way[1]) ** 2 + (dz - t * way[2]) ** 2
    radius = tube.radius[0] + t * (tube.radius[1] - tube.radius[0])
    trees[tuple(spans)][distance <= radius**2] = tube.label


def _slice(
    body: _Body,
    planes: Planes,
    z: float,
    trees: NDArray[np.uint8],
    noise: float,
    rng: np.random.Generator,
) -> tuple[Plane, Plane, Plane]:
    """HU, lung labels and lesion mask of one slice."""
    x, y, angle = planes
    rise = float(np.clip((z - body.base) / (body.apex - body.base), 0, 1.2))
    half = np.array([168 * (1 - 0.33 * rise**4), 116 * (1 - 0.2 * rise**4)]) * body.girth
    chest = np.array([138 * (1 - 0.55 * rise**3), 96 * (1 - 0.35 * rise**3)]) * body.girth
    trunk = _inside(x, y, (0, 0), half, 2.6) > 0
    muscle = _inside(x, y, (0, 0), half - body.fat, 2.6) > 0
    cavity = _inside(x, y, (0, 0), chest, 2.2) > 0
    hu = np.full(angle.shape, -1000, np.float32)
    hu[(np.abs(y - 132) < 5) & (np.abs(x) < 150)] = -650
    hu[trunk] = -100
    hu[muscle] = 45
    rib = np.mod(z + 16 * angle + 4, 27) < 9
    hu[(_inside(x, y, (0, 0), chest + 12, 2.2) > 0) & ~cavity & rib] = 320
    lung = _lungs(body, planes, z, cavity)
    hu[cavity] = -60 if z > body.base else 55
    _organs(body, planes, z, float(chest[1]), hu)
    hu[~trunk & (hu > 100)] = -1000
    hu = np.where(lung > 0, -865 + 0.45 * y, hu).astype(np.float32)
    lesion = _lesion_plane(body, planes, z, hu, lung)
    # The apparent density of the trees: vessels stand out in the lungs, airways everywhere.
    hu[(trees == VESSEL) & (lung > 0)] = 35
    hu[(trees == WALL) & trunk] = -60
    hu[(trees == LUMEN) & trunk] = -990
    hu = cv2.GaussianBlur(hu, (0, 0), 0.55)
    if noise:
        grain = rng.standard_normal(hu.shape, np.float32)
        hu += cv2.GaussianBlur(grain, (0, 0), 0.7) * np.float32(noise * 2.5)
    hu = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return hu, lung, lesion


def _lungs(body: _Body, planes: Planes, z: float, cavity: Plane) -> NDArray[np.uint8]:
    """Carve the lungs out of the thorax: above the diaphragm, beside heart, spine and vessels."""
    x, y, _ = planes
    free = cavity & (z > body.base - 20)
    free &= z < body.apex - 12 * (((np.abs(x) - 42) / 32) ** 2 + (y / 50) ** 2)
    heart = (
        _inside(x, y, body.heart[:2], body.heart_radii[:2], 2.0)
        - ((z - body.heart[2]) / body.heart_radii[2]) ** 2
    )
    free &= heart <= 0
    free &= x**2 + 0.8 * (y - 88) ** 2 > 34**2
    free &= (x - 26) ** 2 + (y - 48) ** 2 > 16**2
    # The mediastinum is thin in front and behind the trachea, wide at the hila.
    hilum = np.exp(-(((z - (body.apex - 125)) / 35) ** 2))
    free &= np.abs(x) > 12 + 14 * np.exp(-((y / 45) ** 2)) + 12 * hilum * np.exp(-((y / 30) ** 2))
    labels = np.zeros(cavity.shape, np.uint8)
    for label, side, dome in ((RIGHT, -1, body.domes[0]), (LEFT, 1, body.domes[1])):
        arch = 1 - ((x - side * 62) / 82) ** 2 - ((y + 8) / 92) ** 2
        labels[free & (x * side > 0) & (z > body.base - 20 + (20 + dome) * arch)] = label
    return labels


def _organs(body: _Body, planes: Planes, z: float, depth: float, hu: Plane) -> None:
    """Draw spine, aorta, heart and breastbone; `depth` is the chest's half depth."""
    x, y, _ = planes
    heart = _inside(x, y, body.heart[:2], body.heart_radii[:2] - 3, 2.0)
    heart -= ((z - body.heart[2]) / (body.heart_radii[2] - 3)) ** 2
    hu[heart > 0] = 42
    hu[(x - 26) ** 2 + (y - 48) ** 2 < 13**2] = 45
    disc = np.mod(z + body.spine, 25) < 5
    back = 0.85 * depth
    vertebra = x**2 + 1.3 * (y - back) ** 2
    hu[vertebra < 20**2] = 90 if disc else 190
    hu[(vertebra < 20**2) & (vertebra > 17.5**2)] = 110 if disc else 520
    canal = x**2 + (y - back - 24) ** 2
    arch = 0.2 * x**2 + (y - back - 26) ** 2
    hu[(arch < 12**2) & (y > back + 16)] = 260
    hu[canal < 8**2] = 25
    hu[(np.abs(x) < 16) & (np.abs(y + depth + 6) < 5) & (z > body.base + 60)] = 230


def _lesion_plane(
    body: _Body, planes: Planes, z: float, hu: Plane, lung: Plane
) -> NDArray[np.uint8]:
    """Haze the lungs with ground glass; returns where."""
    x, y, _ = planes
    mask = np.zeros(hu.shape, np.uint8)
    for lesion in body.lesions:
        cx, cy, cz = lesion.centre
        rx, ry, rz = lesion.radii
        if abs(z - cz) > 1.3 * rz:
            continue
        depth = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2 - ((z - cz) / rz) ** 2
        for way, phase in zip((x, y, z), lesion.phase, strict=True):
            depth = depth + 0.16 * np.sin(way * 0.3 + phase)
        inside = (depth > 0) & (lung > 0)
        haze = np.clip(0.45 + depth, 0, 1)
        hu[inside] += (haze * (lesion.density - hu))[inside]
        mask |= inside.astype(np.uint8)
    return mask


def _inside(x: Plane, y: Plane, centre: Any, radii: Any, power: float) -> Plane:
    """Positive inside an ellipse whose corners grow with `power`."""
    across = np.abs((x - centre[0]) / np.float32(radii[0])) ** power
    return 1 - across - np.abs((y - centre[1]) / np.float32(radii[1])) ** power
