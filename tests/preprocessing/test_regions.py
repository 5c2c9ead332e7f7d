"""Connected regions, their boxes and interpolated points are those of SciPy, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from hilum.preprocessing.dlpe.resample import sample_points
from hilum.preprocessing.regions import label_regions, region_boxes

SHAPES = [(1, 1, 1), (3, 4, 5), (7, 1, 9), (1, 8, 8), (20, 21, 22), (5, 6)]


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_regions_are_numbered_as_by_scipy(shape, corners) -> None:
    rng = np.random.default_rng(3)
    structure = np.ones((3,) * len(shape)) if corners else None
    for share in (0, 0.05, 0.2, 0.3, 0.5, 0.8, 1):
        mask = rng.random(shape) < share
        expected, count = ndimage.label(mask, structure)
        for given in (mask, mask.astype(np.uint8), np.asfortranarray(mask)):
            labels, found = label_regions(given, corners=corners)
            assert (found, labels.dtype) == (count, np.int32)
            np.testing.assert_array_equal(labels, expected)
        if len(shape) == 3:
            assert region_boxes(labels, count) == ndimage.find_objects(expected)


def test_a_region_that_winds_through_the_volume_is_one() -> None:
    spiral = np.zeros((9, 64, 64), bool)
    spiral[::2, ::4], spiral[::2, :, 0] = True, True
    spiral[1::4, -1, 0] = spiral[3::4, 0, -1] = True
    spiral[2::4, :, -1] = True
    expected, count = ndimage.label(spiral)
    labels, found = label_regions(spiral, corners=False)
    assert found == count
    np.testing.assert_array_equal(labels, expected)


def test_points_between_voxels_are_those_of_scipy() -> None:
    rng = np.random.default_rng(4)
    array = rng.normal(0, 300, (9, 11, 7)).astype(np.float32)
    places = [rng.uniform(-0.5, n - 0.5, (40, 50)) for n in array.shape]
    places[0][:9, 0] = np.arange(9)  # whole numbers, the last voxel among them
    expected = ndimage.map_coordinates(
        array, np.stack(places), output=np.float32, order=1, mode="nearest"
    )
    np.testing.assert_array_equal(sample_points(array, places, "linear", -7.0), expected)
