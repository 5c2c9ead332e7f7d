"""Connected components against OpenCV's own statistics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hilum.postprocessing.cxr_severity.components import (
    column_counts,
    components,
    count_components,
    row_counts,
)


def masks():
    rng = np.random.default_rng(5)
    for share in (0.02, 0.3, 0.6):
        yield (rng.random((97, 130)) < share).astype(np.uint8)
    yield np.zeros((60, 50), np.uint8)
    yield np.ones((60, 50), np.uint8)
    rings = np.zeros((90, 90), np.uint8)
    for radius in (40, 30, 20, 8):
        cv2.circle(rings, (45, 45), radius, 1, 2)
    yield rings


@pytest.mark.parametrize("mask", list(masks()))
def test_labels_boxes_areas_and_centroids_are_opencvs(mask) -> None:
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = components(mask)
    assert len(found) == count_components(mask) == count - 1
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.areas, stats[1:, cv2.CC_STAT_AREA])
    np.testing.assert_array_equal(found.boxes[:, :2], stats[1:, :2])
    np.testing.assert_array_equal(found.boxes[:, 2:] - found.boxes[:, :2], stats[1:, 2:4])
    assert [found.centroid_x(i) for i in range(len(found))] == centroids[1:, 0].tolist()


def test_counts_along_rows_and_columns() -> None:
    mask = (np.random.default_rng(1).random((300, 400)) < 0.4).astype(np.uint8)
    np.testing.assert_array_equal(row_counts(mask), mask.astype(int).sum(axis=1))
    np.testing.assert_array_equal(column_counts(mask), mask.astype(int).sum(axis=0))
