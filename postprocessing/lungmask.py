"""What lungmask does to the label maps of its network: clean the volume, put the crops back.

Spec lungmask §5. Sides are those of the patient: 1 is the right lung, 2 the left one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_classifier
from hilum.catalog.lungmask import MAX_HOLE, MIN_MERGED
from hilum.preprocessing.arrays import Array, namespace, to_host
from hilum.preprocessing.lungmask import Box, prepare_slice
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.regions import label_regions, region_boxes

Labels = NDArray[np.uint8]

_MARGIN = 2
"""Voxels around a component's box inside which its neighbours are looked for."""


def lungs_of_volume(labels: Array, boxes: Sequence[Box], shape: tuple[int, int]) -> Array:
    """Clean the label maps of all slices of a series and put them back into the slices.

    Parameters
    ----------
    labels
        uint8 [n, 256, 256], one map for each slice in order; NumPy or CuPy.
    boxes
        What part of its slice each map shows.
    shape
        Height and width of the slices.

    Returns
    -------
    uint8 [n, H, W]: 0, 1 right lung, 2 left lung; where the maps lie.
    """
    return uncrop(clean_volume(labels), boxes, shape)


def uncrop(labels: Array, boxes: Sequence[Box], shape: tuple[int, int]) -> Array:
    """Put label maps uint8 [n, h, w] back where they were cropped; uint8 [n, H, W]."""
    xp = namespace(labels)
    whole = xp.zeros((labels.shape[0], *shape), dtype=xp.uint8)
    there = to_host(xp.any(labels, axis=(1, 2))).tolist()
    for k, (found, (y0, x0, y1, x1)) in enumerate(zip(there, boxes, strict=True)):
        if found:
            size = (y1 - y0, x1 - x0)
            whole[k, y0:y1, x0:x1] = resize_nearest(labels[k, ...], size, "corners")
    return whole


def clean_volume(labels: Array, spare: Collection[int] = ()) -> Array:
    """Join stray pieces to what they touch; keep the largest piece of each label and fill it.

    Parameters
    ----------
    labels
        uint8 [z, y, x], the maps as the network gave them (before `uncrop`); NumPy or CuPy.
    spare
        Labels that are given away to their neighbours.

    Returns
    -------
    uint8 [z, y, x]. A volume of one slice has its holes below 64 pixels filled; in several slices
    only voids that are closed on all sides are.

    Notes
    -----
    As lungmask 0.2.22 does it. Runs on the host: stray pieces are joined one after the other, and
    each changes what the next one touches.
    """
    xp, host = namespace(labels), to_host(labels)
    cleaned = _cleaned(host, spare)
    return cleaned if xp is namespace(host) else xp.asarray(cleaned)


def _cleaned(labels: Labels, spare: Collection[int]) -> Labels:
    result = np.zeros_like(labels)
    region = _bounding(labels > 0)
    if region is None:
        return result
    inside = labels[region]
    found, values = _components(inside)
    mapped = _merge(found, values, set(spare))
    cleaned = np.zeros_like(inside)
    for value in np.unique(mapped[mapped > 0]):
        if value not in spare:
            cleaned[_filled(_largest(mapped == value), single=len(labels) == 1)] = value
    result[region] = cleaned
    return result


def prepare_step(hu: NDArray[np.int16]) -> dict[str, NDArray[Any]]:
    """Crop a slice [H, W] in HU for the lung network (`catalog.ct_classifier.PREPARE`)."""
    crop, box = prepare_slice(hu)
    return {"crop": crop, "box": np.array(box, np.int32)}


def masked_slice_step(
    hu: NDArray[np.int16], label: Labels, box: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    """Cut the lungs out of a slice (`catalog.ct_classifier.MASK_SLICE`, spec ct-classifier §4.2).

    Parameters
    ----------
    hu
        int16 [H, W] in HU.
    label
        uint8 [256, 256], what the lung network said about the crop.
    box
        int32 [4], the crop.

    Returns
    -------
    ``image``: uint8 [256, 256], see `masked_image`; ``lung``: uint8 [H, W], lung labels, cleaned as
    a volume of one slice.
    """
    y0, x0, y1, x1 = (int(v) for v in box)
    shape = (hu.shape[0], hu.shape[1])
    lung = lungs_of_volume(label[None], [(y0, x0, y1, x1)], shape)[0]
    return {"image": masked_image(hu, lung), "lung": lung}


def masked_image(hu: Array, lung: Array) -> Array:
    """Make generation 1's input: HU inside the lungs, 0 HU outside, spread over 8 bits, halved.

    Parameters
    ----------
    hu, lung
        [H, W], NumPy or CuPy; lung where not 0.

    Returns
    -------
    uint8 [256, 256]. Without lung everything is 0.
    """
    xp = namespace(hu, lung)
    values = xp.where(lung > 0, hu, xp.asarray(0, dtype=hu.dtype))
    low, high = int(xp.min(values)), int(xp.max(values))
    # The range is that of the whole slice; only the pixels that are kept need scaling.
    kept = resize_nearest(values, (ct_classifier.SIZE, ct_classifier.SIZE), "pillow")
    scale = 255 / (high - low) if high > low else 0.0
    return xp.astype(xp.round((xp.astype(kept, xp.float64) - low) * scale), xp.uint8)


def _bounding(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Smallest box around a mask; None for an empty one."""
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(others))
        if not len(hit):
            return None
        spans.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _reading_order(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return the components 1 … `count` in the order of their first voxels."""
    flat = labels.ravel()
    places = np.flatnonzero(flat)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[flat[places]] = places  # the last one written stays
    return np.argsort(first[1:], kind="stable") + 1


def _components(labels: Labels) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Components of equal label, numbered from 1 in reading order, and the label of each."""
    found = np.zeros(labels.shape, np.int32)
    total, values = 0, [0]
    for value in np.unique(labels[labels > 0]):
        mask = labels == value
        part, count = label_regions(mask)
        part[mask] += total
        found += part
        total += count
        values += [int(value)] * count
    order = _reading_order(found, total)
    number = np.zeros(total + 1, np.int32)
    number[order] = np.arange(1, total + 1)
    return number[found], np.array(values)[np.concatenate([[0], order])]


def _merge(found: NDArray[np.int32], values: NDArray[np.int64], spare: set[int]) -> Labels:
    """Give small components to the neighbour they touch most; `found` is changed.

    Returns
    -------
    uint8 map of labels.
    """
    sizes = np.bincount(found.ravel(), minlength=len(values))
    boxes = [None, *region_boxes(found, len(values) - 1)]
    ascending = np.argsort(sizes[1:], kind="stable") + 1
    largest: dict[int, int] = dict.fromkeys(values.tolist(), 0)
    owner = np.zeros(len(values), np.uint8)
    usable = ~np.isin(values, [0, *spare])
    for component in ascending:
        value = int(values[component])
        if sizes[component] > largest[value]:
            largest[value] = int(sizes[component])
            owner[component] = value
    for component in ascending.tolist():
        value, size = int(values[component]), int(sizes[component])
        if size < MIN_MERGED or (size >= largest[value] and value not in spare):
            continue
        box = _grown(boxes[component], found.shape)
        target = _touched_most(found[box], component, usable)
        if target == component:
            continue
        around = found[box]
        around[around == component] = target
        if sizes[target] == largest[int(values[target])]:
            largest[int(values[target])] += size
        sizes[target] += size
        boxes[target] = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(boxes[target], boxes[component], strict=True)
        )
    return owner[found]


def _grown(box: Any, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, s.start - _MARGIN), min(n, s.stop + _MARGIN))
        for s, n in zip(box, shape, strict=True)
    )


def _touched_most(around: NDArray[np.int32], component: int, usable: NDArray[np.bool_]) -> int:
    """Return the usable neighbour of `component` with the most voxels beside it, or itself."""
    mask = around == component
    ring = np.zeros_like(mask)
    for axis in range(3):
        a, b = np.moveaxis(ring, axis, 0), np.moveaxis(mask, axis, 0)
        a[1:] |= b[:-1]
        a[:-1] |= b[1:]
    near = around[ring]
    near = near[usable[near] & (near != component)]
    # The first of equal counts is the lowest number.
    return int(np.bincount(near).argmax()) if len(near) else component


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest fully connected component; of equal ones the last in reading order."""
    labels, count = label_regions(mask)
    if count == 1:
        return mask
    sizes = np.bincount(labels.ravel())
    return labels == np.flatnonzero(sizes[1:] == sizes[1:].max())[-1] + 1


def _filled(mask: NDArray[np.bool_], *, single: bool) -> NDArray[np.bool_]:
    """Fill holes: in one slice those below 64 pixels, in a volume those closed on all sides."""
    if single:
        background = np.pad(~mask[0], 1, constant_values=True).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < MAX_HOLE
        small[[0, labels[0, 0]]] = False  # the mask itself, and what is connected to the border
        return mask | small[np.asarray(labels, np.int32)][None, 1:-1, 1:-1]
    background = np.pad(~mask, 1, constant_values=True)
    labels, _ = label_regions(background, corners=False)
    return (labels != labels[0, 0, 0])[1:-1, 1:-1, 1:-1]
