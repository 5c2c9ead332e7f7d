"""What the viewer shows of a study: the CT with its masks as volumes in LPS order, lists, curves.

Written once when a study is done. The volumes are NIfTI files; with ``-half`` in their names at
half the resolution, so that a browser has a first picture soon. Masks overlap, so they travel as
one volume of codes: ``codes[value]`` has a bit for each mask that covers the voxel.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.volume import Geometry
from hilum.results.atomic import make_folder
from hilum.results.canvas import AMBER, CYAN, RED, Canvas, Colour
from hilum.results.folder import RESULT
from hilum.results.nifti import nifti_image, save_nifti
from hilum.results.sections import ORANGE
from hilum.systems.studies import open_study

from .marks import boxes_of, curve_of, heat_of

HALVED = 2_000_000
"""Voxels from which on a volume is also there at half its resolution."""

_LEAST_SIDE = 32
"""An axis with fewer voxels keeps them all."""

_COLOURS: Mapping[str, Colour] = {
    "lung": (64, 214, 104), "lung-right": CYAN, "lung-left": ORANGE, "airway": (72, 140, 255),
    "vessel": RED, "heart": (255, 236, 130), "artery": (255, 130, 170), "vein": (206, 120, 255),
    "visible": AMBER, "follow-up": (255, 87, 34), "in-patient": (255, 45, 45),
    "lesion": (255, 45, 45), "boxes": (255, 45, 45),
}  # fmt: skip
"""Of masks, as in the pictures."""

_LESION_COLUMNS = (
    "lesion_id", "volume_ml", "side", "zone", "axial_diameter_mm", "mean_severity_hu",
)  # fmt: skip


def write_scene(options: Any, study: Path, result: Any, place: Path, view: Path) -> None:
    """Write what the viewer shows into the folder `view`, which is made.

    Parameters
    ----------
    options
        Of the system; ``series`` and ``acquisition`` say which series was read.
    place
        Folder of the result, which is complete.

    Raises
    ------
    OutputError
        When something cannot be written.
    """
    make_folder(view)
    entry = json.loads((place / RESULT).read_bytes())
    scene: dict[str, Any] = {
        "kind": "pictures",
        "pictures": sorted(p.name for p in place.glob("*.png")),
        "meshes": sorted(f"meshes/{p.name}" for p in (place / "meshes").glob("*.stl")),
        "windows": {},
        "lesions": None,
        "curve": None,
    }
    if (xray := getattr(result, "xray", None)) is not None:
        scene |= _xray(xray, place, view)
    elif (series := _series(options, study)) is not None:
        scene |= _ct(series, result, entry, place, view)
    (view / "scene.json").write_text(json.dumps(scene))


def _series(options: Any, study: Path) -> Series | None:
    """The CT that was read; None for pictures."""
    chosen = {k: getattr(options, k) for k in ("series", "acquisition") if hasattr(options, k)}
    try:
        return open_study(study, **chosen)
    except InputError:
        return None


def _xray(xray: Any, place: Path, view: Path) -> dict[str, Any]:
    """The X-ray as it is and as it was marked, of one size, so that one lies over the other."""
    plain = Canvas(xray.pixels).picture
    plain.save(view / "plain.png", format="PNG", compress_level=1)
    from PIL import Image

    with Image.open(place / "overlay.png") as marked:
        marked.crop((0, 0, *plain.size)).save(view / "marked.png", format="PNG", compress_level=1)
    return {"kind": "xray", "size": list(plain.size)}


def _ct(
    series: Series, result: Any, entry: Mapping[str, Any], place: Path, view: Path
) -> dict[str, Any]:
    volume = series.volume()
    masks = _Masks(volume.voxels.shape)
    for path in sorted(place.glob("*.nii.gz")):
        if path.name != "enhanced.nii.gz":
            masks.add_file(path, series)
    boxes, lesions = boxes_of(result, volume)
    if boxes is not None:
        masks.add("boxes", boxes)
    volumes = {"ct": _write(view, "ct", volume.voxels, volume.geometry, _mean)}
    if masks.layers:
        values, codes = masks.coded()
        volumes["masks"] = _write(view, "masks", values, volume.geometry, _first_of(codes)) | {
            "codes": codes
        }
    if (place / "enhanced.nii.gz").is_file():
        stored, slope = _stored(place / "enhanced.nii.gz", series)
        if stored is not None:
            volumes["enhanced"] = _write(view, "enhanced", stored, volume.geometry, _mean, slope)
    if (heat := heat_of(result, volume.voxels.shape)) is not None:
        volumes["heat"] = _write(view, "heat", heat, volume.geometry, _mean)
    level = entry.get("window_level")
    return {
        "kind": "ct",
        "volumes": volumes,
        "layers": masks.layers,
        "shape": list(volume.voxels.shape),
        "windows": {"optimal": entry["window"]} if level is not None else {},
        "lesions": _lesions(place / "lesions.csv") or lesions,
        "curve": curve_of(entry, volume),
    }


@dataclass(slots=True)
class _Masks:
    """Masks of one grid, a bit for each."""

    shape: tuple[int, ...]
    layers: list[dict[str, Any]] = field(default_factory=list)
    _bits: NDArray[np.uint16] | None = None

    def add(self, name: str, mask: NDArray[Any]) -> None:
        """Add a mask [z, y, x] in LPS order; what is not 0 counts."""
        if self._bits is None:
            self._bits = np.zeros(self.shape, np.uint16)
        bit = len(self.layers)
        if bit > 15 or not mask.any():
            return
        self._bits |= np.where(mask, np.uint16(1 << bit), np.uint16(0))
        colour = list(_COLOURS.get(name, (255, 255, 255)))
        self.layers.append({"name": name, "bit": bit, "colour": colour})

    def add_file(self, path: Path, series: Series) -> None:
        """Add the masks of a NIfTI file on the grid of the series; none of any other grid."""
        stored, _ = _stored(path, series)
        if stored is None or stored.dtype.kind not in "ui":
            return
        name = path.name.removesuffix(".nii.gz")
        if stored.size and stored.max() > 1:
            self.add(f"{name}-right", stored == 1)
            self.add(f"{name}-left", stored == 2)
        else:
            self.add(name, stored)

    def coded(self) -> tuple[NDArray[np.uint8], list[int]]:
        """Each voxel as the number of its combination of masks, and the bits of each number."""
        assert self._bits is not None  # noqa: S101 - there are layers
        counts = np.zeros(1 << 16, np.int64)
        for plane in self._bits:
            counts += np.bincount(plane.ravel(), minlength=1 << 16)
        found = np.argsort(-counts, kind="stable")[: min(255, np.count_nonzero(counts))]
        codes = [0, *(int(bits) for bits in found if bits)]
        table = np.zeros(1 << 16, np.uint8)
        for code, bits in enumerate(codes):
            table[bits] = code
        return table[self._bits], codes


def _stored(path: Path, series: Series) -> tuple[NDArray[Any] | None, float]:
    """The numbers of a NIfTI file on the grid of the series, in LPS order, and their slope."""
    image: Any = nibabel.load(path)
    values = np.asarray(image.dataobj.get_unscaled()).transpose(2, 1, 0)
    if values.shape != series.stored_geometry.shape:
        return None, 1.0
    slope = image.header["scl_slope"]
    return series.reorientation.apply(values), float(slope) if np.isfinite(slope) else 1.0


def _write(
    view: Path, name: str, voxels: NDArray[Any], geometry: Geometry, shrink: Any, slope: float = 1.0
) -> dict[str, Any]:
    """Write a volume, and one of half its resolution where it is large."""
    _save(view / f"{name}.nii.gz", voxels, geometry, slope)
    if voxels.size < HALVED:
        return {"full": f"{name}.nii.gz", "half": None}
    steps = tuple(2 if side >= _LEAST_SIDE else 1 for side in voxels.shape)
    kept = tuple(side // step for side, step in zip(voxels.shape, steps, strict=True))
    cut = voxels[tuple(slice(0, n * step) for n, step in zip(kept, steps, strict=True))]
    small = shrink(cut, steps)
    origin = np.array(geometry.origin)
    for step, mm, axis in zip(steps, geometry.spacing, geometry.direction, strict=True):
        origin = origin + (step - 1) / 2 * mm * np.array(axis)
    moves = np.array(geometry.direction) * (np.array(geometry.spacing) * steps)[:, None]
    halved = Geometry.from_steps(small.shape, origin, moves)
    _save(view / f"{name}-half.nii.gz", small, halved, slope)
    return {"full": f"{name}.nii.gz", "half": f"{name}-half.nii.gz"}


def _save(path: Path, voxels: NDArray[Any], geometry: Geometry, slope: float) -> None:
    image = nifti_image(np.ascontiguousarray(voxels), geometry, "Hilum; research only")
    image.header.set_slope_inter(slope, 0)
    save_nifti(image, path)


def _blocks(voxels: NDArray[Any], steps: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """The first, second, … voxel of each block."""
    for offset in np.ndindex(*steps):
        yield voxels[tuple(slice(o, None, s) for o, s in zip(offset, steps, strict=True))]


def _mean(voxels: NDArray[Any], steps: tuple[int, ...]) -> NDArray[Any]:
    total = sum(part.astype(np.int32) for part in _blocks(voxels, steps))
    return np.asarray(total // int(np.prod(steps)), voxels.dtype)


def _first_of(codes: list[int]) -> Any:
    """Of each block the combination with the most masks, so that small ones stay to be seen."""
    rank = np.argsort(np.argsort([(bits.bit_count() << 16) + bits for bits in codes]))
    back = np.argsort(rank).astype(np.uint8)

    def shrink(values: NDArray[np.uint8], steps: tuple[int, ...]) -> NDArray[np.uint8]:
        ranked = rank.astype(np.uint8)
        best = None
        for part in _blocks(values, steps):
            mine = ranked[part]
            best = mine if best is None else np.maximum(best, mine)
        return back[best]

    return shrink


def _lesions(path: Path) -> dict[str, Any] | None:
    """DLPE's lesions with their places in RAS."""
    if not path.is_file():
        return None
    with path.open(newline="") as stream:
        rows = [
            {
                "ras": [-float(r["centroid_l_mm"]), -float(r["centroid_p_mm"]),
                        float(r["centroid_s_mm"])],
                "cells": [_cell(r[c]) for c in _LESION_COLUMNS],
            }
            for r in csv.DictReader(stream)
        ]  # fmt: skip
    return {"columns": list(_LESION_COLUMNS), "rows": rows} if rows else None


def _cell(text: str) -> str | float:
    try:
        return round(float(text), 2)
    except ValueError:
        return text
