"""DeCoVNet in ONNX, its adaptive pools as exact Gather and ReduceMax (spec covid_mtl §14).

ONNX has no adaptive max-pool, and exporters refuse sizes that do not divide the input. Here each
axis is pooled in turn by a table of positions. Those of the plane are constants; the table of the
slices, the first of the head, is made in the graph, so that studies of any length are served.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto
from torch import nn

from hilum.catalog import covid_mtl as catalog

from ...layers.decovnet import POOLS, DeCoVNet, Norm, windows
from ...layers.layers3d import SPACE, Layers

BEFORE_HEAD = tuple(length // 8 for length in catalog.DECOVNET_PLANE)
"""Height and width of the map that the head begins with: three layers have halved them."""

SLICES = "T"
"""Name of the free number of slices."""


def to_onnx(core: DeCoVNet, opset: int, image: str, scores: str) -> ModelProto:
    """The core as ONNX: [N, C, T, 224, 336] → [N, 2]."""
    n = Layers("net")
    stem = core.s1["pathway0_stem"]
    conv = stem.get_submodule("conv")
    x = n.relu(_conv(n, image, conv, stem.get_submodule("bn")))
    x = n.max_pool(x, stem.get_submodule("pool_layer"))
    x = _block(n, core.get_submodule("s2.pathway0_res0"), x)
    x = n.max_pool(x, nn.MaxPool3d((2, 1, 1)))
    x = _block(n, core.get_submodule("s3.pathway0_res0"), x)
    before: Sequence[int] | None = None
    for size, layer in zip(POOLS, core.head.values(), strict=True):
        x = n.relu(n.conv(adaptive_pool(n, x, before, size), layer))
        before = size
    x = n.add("ReduceMax", x, n.axes(*SPACE), keepdims=0)
    first, last = core.classifier.children()
    n.linear(n.linear(x, first), last, out=scores)
    channels = core.s1.get_parameter("pathway0_stem.conv.weight").shape[1]
    shape = (channels, SLICES, *catalog.DECOVNET_PLANE)
    return n.model({image: shape}, {scores: (2,)}, opset)


def _conv(n: Layers, x: str, layer: nn.Module, norm: nn.Module) -> str:
    if isinstance(norm, Norm) and norm.per_volume:
        return n.instance_norm(n.conv(x, layer), norm)
    return n.conv(x, layer, norm)


def _block(n: Layers, block: nn.Module, x: str) -> str:
    shortcut = _conv(n, x, block.get_submodule("branch1"), block.get_submodule("branch1_bn"))
    inner = block.get_submodule("branch2")
    for name in ("a", "b", "c"):
        x = _conv(n, x, inner.get_submodule(name), inner.get_submodule(f"{name}_bn"))
        if name != "c":
            x = n.relu(x)
    return n.relu(n.add("Add", shortcut, x))


def adaptive_pool(n: Layers, x: str, before: Sequence[int] | None, size: Sequence[int]) -> str:
    """Add a max-pool from a map of the size `before` to one of `size`.

    Without `before` the map has the height and width of `BEFORE_HEAD` and any number of slices.
    """
    lengths = (None, *BEFORE_HEAD) if before is None else tuple(before)
    for axis, length, cells in zip(SPACE, lengths, size, strict=True):
        if length is None:
            table = table_of_slices(n, x, cells)
        else:
            table = n.constant(windows(length, cells))
        gathered = n.add("Gather", x, table, axis=axis)
        x = n.add("ReduceMax", gathered, n.axes(axis + 1), keepdims=0)
    return x


def table_of_slices(n: Layers, x: str, cells: int) -> str:
    """Add what `decovnet.windows` gives for the number of slices of `x`.

    One column more than needed may be there, which repeats positions and changes no maximum.
    """
    length = n.add("Shape", x, start=2, end=3)
    cell = [[o] for o in range(cells)]
    following = [[o + 1] for o in range(cells)]
    one, whole = n.axes(1), n.axes(cells)

    def rounded_up(numerator: str) -> str:
        return n.add("Div", n.add("Add", numerator, n.axes(cells - 1)), whole)

    starts = n.add("Div", n.add("Mul", n.constant(cell), length), whole)
    ends = rounded_up(n.add("Mul", n.constant(following), length))
    longest = n.add("Add", rounded_up(length), one)
    steps = n.add("Range", n.constant(0), n.add("Squeeze", longest), n.constant(1))
    return n.add("Min", n.add("Add", starts, steps), n.add("Sub", ends, one))
