"""What surrounds the cores of X-ray severity scoring in the served ONNX files.

Pixels and masks of 8 bits go in and come out; masking, crop, bicubic resize, normalisation, gate
and thresholds are nodes of the graph, so they run where the network runs and batch with it
(spec cxr §3 steps 3–5 and 7–10).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from hilum.catalog import Network
from hilum.catalog import cxr_severity as catalog

from ...graph import Nodes, join, value_info

CUBIC = -0.75
"""Coefficient *a* of the bicubic kernel (spec cxr §5.3)."""

TAPS = (-1, 0, 1, 2)
"""Pixels that a bicubic sample reads, from the one at or before its position."""


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:
    """The served model of `network` around `core`.

    Parameters
    ----------
    core
        Takes ``image`` FP32 [N, 3, S, S], normalised; gives ``mask`` FP32 [N, 1, S, S] and, for a
        stage II network, ``cls`` FP32 [N, 1].
    sizes
        L, and S for a stage II network.
    """
    front, back = Nodes("front"), Nodes("back")
    if network.name == catalog.LUNG.name:
        _lung_front(front)
        _lung_back(back)
    else:
        _disease_front(front, network.name, sizes["L"], sizes["S"])
        _disease_back(back, sizes["S"])
    return join(
        core,
        front,
        back,
        [value_info(t, t.resolved(sizes)) for t in network.inputs],
        [value_info(t, t.resolved(sizes)) for t in network.outputs],
    )


def _lung_front(n: Nodes) -> None:
    image = n.add("Transpose", n.cast("image", "FP32"), perm=[0, 3, 1, 2])
    _normalise(n, image, catalog.MEAN, catalog.STD, scale=255.0)


def _lung_back(n: Nodes) -> None:
    n.add("Identity", "core/mask", out="mask")
    above = n.add("Greater", "core/mask", n.floats(catalog.MASK_THRESHOLD))
    n.cast(n.add("Squeeze", n.cast(above, "FP32"), n.axes(1)), "UINT8", out="lung")


def _disease_front(n: Nodes, network: str, length: int, side: int) -> None:
    facts = catalog.DISEASE[network]
    lung = n.add("Unsqueeze", n.cast("lung", "FP32"), n.axes(3))
    masked = n.add("Mul", n.cast("image", "FP32"), lung)
    box = n.cast("box", "FP32")
    left, top, right, bottom = (
        n.add("Slice", box, n.axes(k), n.axes(k + 1), n.axes(1)) for k in range(4)
    )
    rows = _resample(n, masked, top, bottom, length, side)
    # [N, S, L·3] → columns first, so that the same rows-only step does the other direction.
    rows = n.add("Reshape", rows, n.axes(0, side, length, 3))
    columns = n.add("Transpose", rows, perm=[0, 2, 3, 1])
    both = _resample(n, columns, left, right, length, side)
    both = n.add("Reshape", both, n.axes(0, side, 3, side))
    image = n.add("Transpose", both, perm=[0, 2, 3, 1])
    _normalise(n, image, facts.mean, facts.std, scale=255.0)


def _resample(n: Nodes, rows: str, low: str, high: str, length: int, side: int) -> str:
    """Bicubic resampling of the rows `low` … `high` − 1 of [N, length, …] to [N, side, …·…].

    Half-pixel centres, indices clamped to the box, no antialiasing (spec cxr §5.3). Each output row
    is a product of 4 weights and 4 gathered rows: 4 multiplications a pixel instead of `length`.
    A box outside the picture, or an empty one, reads the nearest pixels: nothing here can fail.
    """
    one, zero, last = n.floats(1), n.floats(0), n.floats(length - 1)
    extent = n.add("Max", n.add("Sub", high, low), one)
    # position = ((2d + 1)·extent − side) / (2·side): whole numbers below 2²⁴, so exact in float32
    odd = n.floats(2 * np.arange(side)[np.newaxis] + 1)
    numerator = n.add("Sub", n.add("Mul", extent, odd), n.floats(side))
    twice = n.floats(2 * side)
    before = n.add("Floor", n.add("Div", numerator, twice))
    rest = n.add("Div", n.add("Sub", numerator, n.add("Mul", before, twice)), twice)
    tap, taps = n.axes(2), n.floats(TAPS)
    index = n.add("Add", n.add("Unsqueeze", before, tap), taps)
    limit = n.add("Unsqueeze", n.add("Sub", extent, one), tap)
    index = n.add("Min", n.add("Max", index, zero), limit)
    index = n.add("Add", index, n.add("Unsqueeze", low, tap))
    index = n.add("Min", n.add("Max", index, zero), last)
    index = n.add("Unsqueeze", n.cast(index, "INT64"), n.axes(3))
    weight = _cubic(n, n.add("Abs", n.add("Sub", n.add("Unsqueeze", rest, tap), taps)))
    flat = n.add("Reshape", rows, n.axes(0, length, -1))
    gathered = n.add("GatherND", flat, index, batch_dims=1)
    return n.add("Squeeze", n.add("MatMul", n.add("Unsqueeze", weight, tap), gathered), tap)


def _cubic(n: Nodes, distance: str) -> str:
    """Weight of a pixel at a `distance` of 0…2 from the sample (Keys 1981)."""
    a, one = CUBIC, n.floats(1)

    def times(x: str, y: str) -> str:
        return n.add("Mul", x, y)

    def minus(x: str, value: float) -> str:
        return n.add("Sub", x, n.floats(value))

    near = times(minus(times(distance, n.floats(a + 2)), a + 3), times(distance, distance))
    far = minus(times(minus(times(distance, n.floats(a)), 5 * a), distance), -8 * a)
    far = minus(times(far, distance), 4 * a)
    return n.add("Where", n.add("LessOrEqual", distance, one), n.add("Add", near, one), far)


def _normalise(
    n: Nodes, image: str, mean: tuple[float, ...], std: tuple[float, ...], *, scale: float
) -> None:
    """``(image/scale − mean)/std`` as one product and one sum; it is the core's input."""
    shape = (1, 3, 1, 1)
    factor = 1 / (scale * np.array(std).reshape(shape))
    offset = -(np.array(mean) / np.array(std)).reshape(shape)
    n.add("Add", n.add("Mul", image, n.floats(factor)), n.floats(offset), out="core/image")


def _disease_back(n: Nodes, side: int) -> None:
    # Round is half to even, as in the published gate: p = 0.5 silences the mask.
    gate = n.add("Round", "core/cls")
    gate4 = n.add("Unsqueeze", gate, n.axes(2, 3))
    n.add("Mul", "core/mask", gate4, out="mask")
    n.add("Identity", "core/cls", out="probability")
    mask = "core/mask"
    if side != catalog.FRAME:
        scale = _scale(side, catalog.FRAME)
        mask = n.add(
            "Resize", mask, "", n.floats([1.0, 1.0, float(scale), float(scale)]),
            mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
    # The gate is 0 or 1 and the resize linear: gating its thresholded result is the same.
    above = n.cast(n.add("Greater", mask, n.floats(catalog.MASK_THRESHOLD)), "FP32")
    for name, pixels in (("ungated", above), ("disease", n.add("Mul", above, gate4))):
        n.cast(n.add("Squeeze", pixels, n.axes(1)), "UINT8", out=name)


def _scale(side: int, target: int) -> float:
    """The smallest float32 whose product with `side`, rounded down, is `target`.

    A scale and not a size: TensorRT takes no sizes beside a batch axis that is not fixed.
    """
    scale = np.float32(target / side)
    if float(scale) * side < target:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)
