"""Outlines, edges and snakes against scikit-image: equal to the last bit."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage
from skimage import filters, measure, segmentation, util

from hilum.catalog.covid_mtl import OUTLINE_LEVEL, SNAKE
from hilum.preprocessing.covid_mtl import snake
from hilum.preprocessing.covid_mtl.contours import find_contours
from hilum.preprocessing.covid_mtl.surface import slopes


def blobs(random: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    return (ndimage.gaussian_filter(random.random(shape), size) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_outlines_have_the_same_points_in_the_same_order(size: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        mask = blobs(random, tuple(random.integers(2, 40, 2)), size)
        wanted = measure.find_contours(mask.astype(float), OUTLINE_LEVEL)
        found = find_contours(mask, OUTLINE_LEVEL)
        assert len(found) == len(wanted)
        assert all(np.array_equal(f, w) for f, w in zip(found, wanted, strict=True))


def test_nothing_and_everything_have_no_outline() -> None:
    for value in (0, 1):
        assert find_contours(np.full((5, 5), value, np.uint8), OUTLINE_LEVEL) == []


@pytest.mark.parametrize(("kind", "lowest"), [(np.uint16, 0), (np.int16, -1400)])
def test_edges_and_doubtful_snakes_are_those_of_the_library(kind: type, lowest: int) -> None:
    random = np.random.default_rng(1)
    image = (ndimage.gaussian_filter(random.random((120, 130)), 4) * 3000 + lowest).astype(kind)
    edges = snake.edges(image)
    assert np.array_equal(edges, filters.sobel(util.img_as_float(image)))
    forces = slopes(edges.T, exactly=True)
    outlines = find_contours(blobs(random, image.shape, 9), OUTLINE_LEVEL)
    assert outlines
    for outline in outlines:
        wanted = segmentation.active_contour(
            image, outline, boundary_condition="periodic", **asdict(SNAKE)
        )
        assert np.array_equal(snake._as_published(outline, forces), wanted)
