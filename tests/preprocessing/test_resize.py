"""Bilinear resizing against its analytic vectors, OpenCV and PyTorch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hilum.preprocessing.resize import resize_bilinear, resize_bilinear_u8


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([[0, 1]], [[0, 0, 1, 1]]),
        ([[0, 255]], [[0, 64, 191, 255]]),
        ([[0, 255, 255]], [[0, 102, 255, 255, 255]]),
        ([[0, 200], [100, 40]], [[0, 100, 200], [50, 85, 120], [100, 70, 40]]),
        ([[0, 1], [1, 0]], [[0, 0, 1], [1, 1, 1], [1, 0, 0]]),
    ],
)
def test_analytic_vectors(values, wanted) -> None:
    shape = np.shape(wanted)
    assert resize_bilinear_u8(np.array(values, np.uint8), shape).tolist() == wanted


SHAPES = [
    ((640, 760), (512, 512)),
    ((300, 300), (512, 512)),
    ((512, 512), (512, 512)),
    ((1024, 1024), (512, 512)),
    ((417, 391), (512, 512)),
    ((2500, 3040), (512, 512)),
    ((1101, 500), (512, 512)),
    ((5, 3), (512, 512)),
    ((777, 1333), (480, 300)),
    ((100, 1), (50, 7)),
]


@pytest.mark.parametrize(("source", "target"), SHAPES)
@pytest.mark.parametrize("kind", ["grey", "mask", "colour", "equal channels"])
def test_identical_to_opencv(source, target, kind) -> None:
    rng = np.random.default_rng(sum(source))
    x = rng.integers(0, 256, (*source, 3) if kind == "colour" else source, dtype=np.uint8)
    if kind == "mask":
        x = (x > 100).astype(np.uint8)
    if kind == "equal channels":
        x = np.ascontiguousarray(np.broadcast_to(x[:, :, None], (*source, 3)))
    resized = resize_bilinear_u8(x, target)
    np.testing.assert_array_equal(resized, cv2.resize(x, target[::-1]))
    assert resized.flags["C_CONTIGUOUS"]


def test_broadcast_plane_gives_the_same_as_copied_channels() -> None:
    plane = np.random.default_rng(1).integers(0, 256, (1300, 900), dtype=np.uint8)
    view = np.broadcast_to(plane[:, :, None], (1300, 900, 3))
    resized = resize_bilinear_u8(view, (512, 512))
    np.testing.assert_array_equal(resized, cv2.resize(view.copy(), (512, 512)))
    assert resized.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("source", [(417, 391), (700, 900), (2, 3)])
def test_float_resize_agrees_with_pytorch_and_opencv(source) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(2).random(source, np.float32)
    resized = resize_bilinear(x, (512, 500))
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x)[None, None], (512, 500), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    assert resized.dtype == np.float32
    # Both take the positions themselves in single precision.
    np.testing.assert_allclose(resized, wanted, atol=1e-4)
    np.testing.assert_allclose(resized, cv2.resize(x, (500, 512)), atol=1e-4)


def test_integer_resize_of_a_mask_is_not_the_float_one() -> None:
    mask = np.zeros((390, 410), np.uint8)
    cv2.ellipse(mask, (200, 190), (150, 170), 10, 0, 360, 1, -1)
    integer = resize_bilinear_u8(mask, (512, 512)) > 0.5
    floating = resize_bilinear(mask, (512, 512)) >= 0.5
    assert 0 < np.count_nonzero(integer != floating) < 1500
