"""What some systems find slice by slice: boxes, heat maps and curves, on the grid of the CT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.postprocessing.ct_classifier.gradcam import heat_map
from hilum.preprocessing.reading.volume import Volume

_LINE = 2
"""Width of the outline of a box in voxels."""


def boxes_of(result: Any, volume: Volume) -> tuple[NDArray[np.bool_] | None, dict[str, Any] | None]:
    """CT-Angel's boxes as outlines [z, y, x], and as a list with their centres in RAS."""
    slices = getattr(result, "slices", ())
    if not slices or not hasattr(slices[0], "boxes"):
        return None, None
    drawn, rows = np.zeros(volume.voxels.shape, bool), []
    for one in slices:
        for box in one.boxes:
            x, y, width, height = (round(v) for v in box.box_original)
            outer = drawn[one.index, y : y + height, x : x + width]
            inner = outer[_LINE:-_LINE, _LINE:-_LINE].copy()
            outer[:] = True
            outer[_LINE:-_LINE, _LINE:-_LINE] = inner
            centre = (one.index, y + height / 2 - 0.5, x + width / 2 - 0.5)
            where = ", ".join(result.quadrant_names[q] for q in box.quadrants)
            cells = [one.shown, where, box.area, round(box.max_probability, 3)]
            rows.append({"ras": _ras(volume, centre), "cells": cells})
    columns = ["slice", "quadrants", "mask_area", "max_probability"]
    return drawn, {"columns": columns, "rows": rows} if rows else None


def heat_of(result: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The classifier's heat maps of positive slices, uint8 [z, y, x]; None without any."""
    maps, slices = getattr(result, "cam", None), getattr(result, "slices", ())
    if maps is None or len(maps) != shape[0] or not any(one.positive for one in slices):
        return None
    heat = np.zeros(shape, np.uint8)
    for one in slices:
        if one.positive:
            found = np.clip(heat_map(maps[one.index], (shape[1], shape[2])), 0, 1)
            heat[one.index] = np.rint(255 * found)
    return heat


def curve_of(entry: Mapping[str, Any], volume: Volume) -> dict[str, Any] | None:
    """A value for each slice from the feet to the head, and where the slices lie in RAS."""
    slices = entry.get("slices")
    if not isinstance(slices, list) or len(slices) != volume.voxels.shape[0]:
        return None
    if "probability" in slices[0]:
        values, kind = [one["probability"] for one in slices], "probability"
    else:
        values, kind = [len(one["boxes"]) for one in slices], "boxes"
    middle = volume.voxels.shape[1] / 2, volume.voxels.shape[2] / 2
    return {
        "kind": kind,
        "values": values,
        "threshold": entry.get("threshold") if kind == "probability" else None,
        "ras": [_ras(volume, (z, *middle)) for z in range(len(slices))],
    }


def _ras(volume: Volume, index: tuple[float, float, float]) -> list[float]:
    """Place of an index [z, y, x] in RAS, mm."""
    geometry = volume.geometry
    steps = np.array(geometry.direction) * np.array(geometry.spacing)[:, None]
    left, back, head = np.array(geometry.origin) + np.array(index) @ steps
    return [round(float(-left), 2), round(float(-back), 2), round(float(head), 2)]
