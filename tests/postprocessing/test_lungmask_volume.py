"""Label maps of the lung network: cleaned, put back, and turned into the classifier's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hilum.catalog.ct_classifier import MASK_SLICE, PREPARE
from hilum.postprocessing.lungmask import (
    clean_volume,
    lungs_of_volume,
    masked_image,
    masked_slice_step,
    prepare_step,
    uncrop,
)
from hilum.preprocessing.phantoms.ct import chest_ct

FULL = np.ones((3, 3, 3))


def toy() -> np.ndarray:
    labels = np.zeros((16, 16), np.uint8)
    labels[2:14, 2:7] = 1
    labels[5:8, 3:5] = 0
    labels[10:12, 4:6] = 2
    labels[2:14, 9:14] = 2
    labels[3, 15] = 1
    labels[0, 0] = 2
    return labels


def test_toy_as_one_slice() -> None:
    cleaned = clean_volume(toy()[None])
    assert np.bincount(cleaned.ravel()).tolist() == [136, 60, 60]
    assert (cleaned[0, 5:12, 2:7] == 1).all()


def test_toy_as_three_slices_keeps_the_hole_that_runs_through() -> None:
    cleaned = clean_volume(np.stack([toy()] * 3))
    assert np.bincount(cleaned.ravel()).tolist() == [426, 162, 180]


def test_closed_voids_are_filled_and_open_ones_are_not() -> None:
    labels = np.ones((7, 12, 12), np.uint8)
    labels[:, 0] = 0
    labels[3, 5:8, 5:8] = 0
    labels[3, 4, 10:] = 0
    cleaned = clean_volume(labels)
    assert (cleaned[3, 5:8, 5:8] == 1).all()
    assert (cleaned[3, 4, 10:] == 0).all()


@pytest.mark.parametrize(("side", "filled"), [(7, True), (8, False)])
def test_one_slice_fills_holes_below_64_pixels(side: int, filled: bool) -> None:
    labels = np.ones((1, 20, 20), np.uint8)
    labels[0, 4 : 4 + side, 4 : 4 + side] = 0
    labels[0, 0:3, 15] = 0
    cleaned = clean_volume(labels)
    assert bool(cleaned[0, 4, 4]) is filled
    assert (cleaned[0, 0:3, 15] == 0).all()


def test_nothing_stays_nothing() -> None:
    assert not clean_volume(np.zeros((3, 8, 8), np.uint8)).any()


def test_spare_labels_are_given_away() -> None:
    labels = np.zeros((2, 10, 20), np.uint8)
    labels[:, 2:8, 2:8], labels[:, 2:8, 8:11] = 1, 3
    cleaned = clean_volume(labels, spare={3})
    assert np.bincount(cleaned.ravel()).tolist() == [400 - 108, 108]


def reference(labels: np.ndarray, spare: frozenset[int] = frozenset()) -> np.ndarray:
    """The procedure of spec lungmask §5 word by word, on whole arrays."""
    found = np.zeros(labels.shape, int)
    values, count = [0], 0
    for place in zip(*np.nonzero(labels), strict=True):
        if not found[place]:
            count += 1
            values.append(int(labels[place]))
            parts, _ = ndimage.label(labels == labels[place], FULL)
            found[parts == parts[place]] = count
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    order = sorted(range(1, count + 1), key=lambda i: sizes[i])
    largest, owner = dict.fromkeys(values, 0), np.zeros(count + 1, np.uint8)
    for i in order:
        if sizes[i] > largest[values[i]]:
            largest[values[i]], owner[i] = sizes[i], values[i]
    for i in order:
        if sizes[i] >= 3 and (sizes[i] < largest[values[i]] or values[i] in spare):
            ring = ndimage.binary_dilation(found == i)
            near, touched = np.unique(found[ring], return_counts=True)
            best, target = 0, i
            for n, c in zip(near, touched, strict=True):
                if n not in (0, i) and values[n] not in spare and c > best:
                    best, target = c, n
            if target != i:
                found[found == i] = target
                if sizes[target] == largest[values[target]]:
                    largest[values[target]] += sizes[i]
                sizes[target] += sizes[i]
    mapped = owner[found]
    result = np.zeros_like(labels)
    for value in sorted(set(mapped.ravel().tolist()) - {0} - spare):
        parts, _ = ndimage.label(mapped == value, FULL)
        largest_part = np.argsort(np.bincount(parts.ravel())[1:], kind="stable")[-1] + 1
        result[ndimage.binary_fill_holes(parts == largest_part)] = value
    return result


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_plain_implementation_on_ragged_volumes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (3, 9, 22, 24)), (0, 1, 1.2, 1.2))
    labels = smooth.argmax(0).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.03] = rng.integers(0, 3)
    spare = frozenset({2}) if seed == 5 else frozenset()
    assert np.array_equal(clean_volume(labels, spare), reference(labels, spare))


def test_crops_go_back_to_their_boxes() -> None:
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[0], labels[1, :, :2] = 1, 2
    whole = uncrop(labels, [(1, 2, 5, 8), (0, 0, 4, 4)], (6, 9))
    assert whole[0].sum() == 24 and (whole[0, 1:5, 2:8] == 1).all()
    assert np.array_equal(whole[1, :4, :4], labels[1])
    assert whole[1].sum() == 16


def test_a_lung_survives_crop_and_return() -> None:
    phantom = chest_ct(4, slices=8, size=160, spacing=(20.0, 2.25, 2.25), noise=5)
    crops, boxes, truth = [], [], []
    for hu, lung in zip(phantom.volume.voxels, phantom.lung, strict=True):
        step = prepare_step(hu)
        y0, x0, y1, x1 = boxes_of = tuple(int(v) for v in step["box"])
        boxes.append(boxes_of)
        rows = np.rint(np.linspace(y0, y1 - 1, 256)).astype(int)
        columns = np.rint(np.linspace(x0, x1 - 1, 256)).astype(int)
        crops.append(lung[rows][:, columns])
        truth.append(lung)
    back = lungs_of_volume(np.array(crops), boxes, (160, 160))
    for side in (1, 2):
        a, b = back == side, np.array(truth) == side
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.98


def test_steps_speak_as_the_catalog_declares() -> None:
    hu = np.full((512, 512), -1000, np.int16)
    hu[100:420, 60:460] = 40
    hu[150:350, 100:240] = hu[150:350, 280:420] = -850
    prepared = prepare_step(hu)
    check(prepared, PREPARE)
    label = np.where(prepared["crop"] < -500, 1, 0).astype(np.uint8)
    label[:, 128:][label[:, 128:] > 0] = 2
    masked = masked_slice_step(hu, label, prepared["box"])
    check(masked, MASK_SLICE)
    assert masked["lung"][250, 150] == 1 and masked["lung"][250, 350] == 2
    image = masked["image"]
    assert image[125, 75] == 0 and image[5, 5] == 255


def check(outputs: dict[str, np.ndarray], step: object) -> None:
    kinds = {"UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32}
    declared = {t.name: (t.resolved(step.sizes), kinds[t.dtype]) for t in step.outputs}  # type: ignore[attr-defined]
    assert {n: (a.shape, a.dtype.type) for n, a in outputs.items()} == declared


def test_masked_image_without_lung_is_black() -> None:
    hu = np.arange(512 * 512, dtype=np.int16).reshape(512, 512)
    image = masked_image(hu, np.zeros((512, 512), np.uint8))
    assert image.shape == (256, 256) and not image.any()


def test_masked_image_looks_like_the_published_ones(shared: Path) -> None:
    """Inside the lungs the published inputs are an affine copy of the slice; outside, one grey."""
    folder = shared / "data/ct-densenet-samples"
    raw = np.asarray(Image.open(folder / "png/IM0044_cruda.png").convert("L")).astype(np.int16)
    mask = np.asarray(Image.open(folder / "png/IM0044_mascara.png").convert("RGB"))[:, :, 0]
    published = np.asarray(
        Image.open(folder / "png_gen1_segmented/IM0044_seg.png").convert("L")
    ).astype(float)
    lung = (mask == 158).astype(np.uint8)
    # The grey slice stands in for HU: outside the lung is 0 HU, above everything inside.
    ours = masked_image(raw - 201, lung)
    inside = lung[1::2, 1::2] > 0
    assert np.corrcoef(ours[inside], published[1::2, 1::2][inside])[0, 1] > 0.99
    assert len(np.unique(ours[~inside])) == 1
