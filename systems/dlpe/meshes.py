"""Surfaces of what DLPE finds in one study, and their files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.postprocessing.dlpe.quantities import ENHANCED_SETS, Quantities
from hilum.postprocessing.dlpe.sides import LEFT, RIGHT
from hilum.preprocessing.arrays import Array, to_host
from hilum.preprocessing.dlpe.placement import patient_affine
from hilum.preprocessing.dlpe.space import Normalised
from hilum.results.atomic import make_folder
from hilum.results.meshes import (
    Rgb,
    Structure,
    Surface,
    surfaces,
    write_glb,
    write_published_stl,
    write_stl,
)

FOLDER = "meshes"
"""Where they are written, in the study's folder."""

SCENE = "scene.glb"

PUBLISHED = "published"
"""Folder of the surfaces as the published program exports them, in mode ``parity``."""

GREEN: Rgb = (0, 200, 83)
RED: Rgb = (255, 45, 45)
BLUE: Rgb = (41, 121, 255)
YELLOW: Rgb = (255, 214, 0)

LUNG_ALPHA = 0.25

_ORGANS: Mapping[str, Rgb] = {
    "airway": BLUE,
    "vessel": RED,
    "heart": (255, 138, 128),
    "artery": (213, 0, 0),
    "vein": (48, 79, 254),
}


def structures(masks: Mapping[str, Array], quantities: Quantities | None) -> Iterator[Structure]:
    """What gets a surface: lungs, trees, heart and roots, smoothed; and lesions, as they are."""
    if quantities is None:
        yield Structure("lung", to_host(masks["lung"]), GREEN, LUNG_ALPHA, smooth=True)
    else:
        for name, label in (("lung-right", RIGHT), ("lung-left", LEFT)):
            side = quantities.crop.uncut(quantities.sides.labels == label)
            yield Structure(name, side, GREEN, LUNG_ALPHA, smooth=True)
    for name, colour in _ORGANS.items():
        if name in masks:
            yield Structure(name, to_host(masks[name]), colour, smooth=True)
    yield from _lesions(masks)


def make_surfaces(
    normalised: Normalised, masks: Mapping[str, Array], quantities: Quantities | None
) -> tuple[tuple[Surface, ...], tuple[str, ...]]:
    """Surfaces in the patient's mm, and the names of structures that are empty."""
    wanted = list(structures(masks, quantities))
    affine = patient_affine(normalised)
    made = surfaces(wanted, normalised.space.voxel_mm, affine)
    there = {one.name for one in made}
    return tuple(made), tuple(one.name for one in wanted if one.name not in there)


def write_meshes(
    folder: Path, made: Sequence[Surface], published: Mapping[str, NDArray[Any]]
) -> list[str]:
    """Write surfaces as STL and as one scene; returns the files' names.

    Parameters
    ----------
    published
        Masks that are also written as the published program does, by name.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    target = folder / FOLDER
    make_folder(target)
    for one in made:
        write_stl(target / f"{one.name}.stl", one)
    write_glb(target / SCENE, made)
    if published:
        make_folder(target / PUBLISHED)
    for name, mask in published.items():
        write_published_stl(target / PUBLISHED / f"{name}.stl", mask)
    return [f"{FOLDER}/"]


def lesions_in_parenchyma(masks: Mapping[str, Array]) -> dict[str, NDArray[np.bool_]]:
    """``visible`` lesions in parenchyma, and ``sub-visual`` ones, as far as they were looked for.

    Sub-visual is what a network found on the enhanced volume and that of visible lesions did not.
    """
    found = {n: to_host(masks[n]) for n in ("visible", *ENHANCED_SETS) if n in masks}
    if not found:
        return {}
    parenchyma = to_host(masks["lung"]).astype(bool)
    for name in ("airway", "vessel"):
        if name in masks:
            parenchyma &= to_host(masks[name]) == 0
    inside = {name: (mask != 0) & parenchyma for name, mask in found.items()}
    visible = inside.pop("visible", None)
    enhanced = functools.reduce(np.logical_or, inside.values()) if inside else None
    sets = {} if visible is None else {"visible": visible}
    if enhanced is not None:
        sets["sub-visual"] = enhanced if visible is None else enhanced & ~visible
    return sets


def _lesions(masks: Mapping[str, Array]) -> Iterator[Structure]:
    """Visible, sub-visual and all lesions in parenchyma."""
    found = lesions_in_parenchyma(masks)
    for name, mask in found.items():
        yield Structure(f"lesions-{name}", mask, GREEN if name == "visible" else YELLOW)
    if found:
        yield Structure("lesions-all", functools.reduce(np.logical_or, found.values()), YELLOW)
