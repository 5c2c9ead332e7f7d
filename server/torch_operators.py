"""ONNX's operators in PyTorch: those of the networks that Hilum exports (opset 18).

Each takes the attributes of its node and tensors, None for an input that is left out, and gives one
tensor (https://onnx.ai/onnx/operators). Inputs in `ON_HOST` are read as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor]

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""By ONNX's numbers of element types."""

ON_HOST: Mapping[str, tuple[int, ...]] = {
    "ReduceMean": (1,), "ReduceSum": (1,), "Reshape": (1,), "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4), "Squeeze": (1,), "Unsqueeze": (1,),
}  # fmt: skip
"""Places of inputs that hold shapes, axes and the like."""

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d
}  # fmt: skip
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class Unsupported(Exception):
    """An operator, or a setting of one, that is not here."""


def operator(name: str) -> Operator:
    """The operator called `name`.

    Raises
    ------
    Unsupported
    """
    if name not in _OPERATORS:
        raise Unsupported(f"no operator {name}")
    return _OPERATORS[name]


def _pads(given: Attributes, axes: int) -> tuple[list[int], list[int]]:
    """Padding before and after each axis."""
    if given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise Unsupported("a convolution or pooling with auto_pad")
    pads = given.get("pads", [0] * (2 * axes))
    return list(pads[:axes]), list(pads[axes:])


def _padded(x: Tensor, given: Attributes, axes: int, value: float) -> tuple[Tensor, list[int]]:
    """`x` padded where the two sides of an axis differ, and the padding that is left to do."""
    before, after = _pads(given, axes)
    if before == after:
        return x, before
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return functional.pad(x, sides, value=value), [0] * axes


def _conv(given: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes, one = x.dim() - 2, [1] * (x.dim() - 2)
    x, padding = _padded(x, given, axes, 0.0)
    return _CONVOLUTIONS[axes](
        x, weight, bias, given.get("strides", one), padding, given.get("dilations", one),
        given.get("group", 1),
    )  # fmt: skip


def _conv_transpose(
    given: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    axes, one = x.dim() - 2, [1] * (x.dim() - 2)
    before, after = _pads(given, axes)
    if before != after or "output_shape" in given:
        raise Unsupported("a transposed convolution with uneven pads or an output_shape")
    return _TRANSPOSED[axes](
        x, weight, bias, given.get("strides", one), before,
        given.get("output_padding", [0] * axes), given.get("group", 1),
        given.get("dilations", one),
    )  # fmt: skip


def _max_pool(given: Attributes, x: Tensor) -> Tensor:
    axes = x.dim() - 2
    x, padding = _padded(x, given, axes, -math.inf)
    return _MAXIMA[axes](
        x, given["kernel_shape"], given.get("strides", [1] * axes), padding,
        given.get("dilations", [1] * axes), bool(given.get("ceil_mode", 0)),
    )  # fmt: skip


def _average_pool(given: Attributes, x: Tensor) -> Tensor:
    axes = x.dim() - 2
    before, after = _pads(given, axes)
    if before != after or set(given.get("dilations", [1])) != {1}:
        raise Unsupported("an average pooling with uneven pads or dilations")
    return _MEANS[axes](
        x, given["kernel_shape"], given.get("strides", [1] * axes), before,
        bool(given.get("ceil_mode", 0)), bool(given.get("count_include_pad", 0)),
    )  # fmt: skip


def _batch_normalisation(
    given: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    epsilon = given.get("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def _instance_normalisation(given: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    epsilon = given.get("epsilon", 1e-5)
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _resize(
    given: Attributes,
    x: Tensor,
    _roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    mode = given.get("mode", b"nearest").decode()
    place = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = given.get("nearest_mode", b"round_prefer_floor").decode()
    names = {1: "linear", 2: "bilinear", 3: "trilinear"}
    if sizes is not None:
        shape = [int(n) for n in sizes.tolist()]
    else:
        assert scales is not None  # noqa: S101 - ONNX asks for one of the two
        shape = [int(n * s) for n, s in zip(x.shape, scales.tolist(), strict=True)]
    if shape[:2] != list(x.shape[:2]) or given.get("antialias", 0):
        raise Unsupported("a Resize of batch or channels, or with antialias")
    size = shape[2:]
    if mode == "nearest" and place == "asymmetric" and rounding == "floor":
        return functional.interpolate(x, size, mode="nearest")
    if mode == "linear" and place in ("half_pixel", "align_corners"):
        corners = place == "align_corners"
        return functional.interpolate(x, size, mode=names[len(size)], align_corners=corners)
    raise Unsupported(f"a Resize {mode}, {place}, {rounding}")


def _gemm(given: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    product = (a.T if given.get("transA", 0) else a) @ (b.T if given.get("transB", 0) else b)
    product = given.get("alpha", 1.0) * product
    return product if c is None else product + given.get("beta", 1.0) * c


def _gather(given: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = given.get("axis", 0) % x.dim()
    found = torch.where(indices < 0, indices + x.shape[axis], indices)
    taken = x.index_select(axis, found.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_nd(given: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    batch = given.get("batch_dims", 0)
    places: list[Tensor] = []
    for axis in range(batch):  # the batch's own number, spread over all that is taken of it
        shape = [1] * (indices.dim() - 1)
        shape[axis] = -1
        places.append(torch.arange(x.shape[axis], device=x.device).reshape(shape))
    return x[(*places, *indices.unbind(-1))]


def _slice(
    _: Attributes,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = starts.tolist(), ends.tolist()
    along = list(range(len(first))) if axes is None else axes.tolist()
    by = [1] * len(first) if steps is None else steps.tolist()
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        if step > 0:
            x = torch.ops.aten.slice(x, axis, start, end, step)
        else:  # an end before the first element is no -1 in Python
            stop = None if end < -x.shape[axis] else end
            places = list(range(x.shape[axis]))[start:stop:step]
            x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def _reshape(given: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    wanted = shape.tolist()
    if not given.get("allowzero", 0):
        wanted = [n or x.shape[axis] for axis, n in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(_: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(_: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _reduced(reduce: Callable[..., Tensor]) -> Operator:
    def run(given: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        if axes is None or not axes.numel():
            if given.get("noop_with_empty_axes", 0):
                return x
            along = list(range(x.dim()))
        else:
            along = axes.tolist()
        return reduce(x, dim=along, keepdim=bool(given.get("keepdims", 1)))

    return run


def _clip(
    _: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _div(_: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _shape(given: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[given.get("start", 0) : given.get("end")], dtype=torch.int64)


def _constant(given: Attributes) -> Tensor:
    raise Unsupported(f"a Constant with {', '.join(given)}")


def _argmax(given: Attributes, x: Tensor) -> Tensor:
    if given.get("select_last_index", 0):
        raise Unsupported("an ArgMax of the last index")
    return x.argmax(given.get("axis", 0), keepdim=bool(given.get("keepdims", 1)))


def _each(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda _given, *tensors: function(*tensors)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of tensors, two by two."""

    def run(_: Attributes, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return run


_OPERATORS: dict[str, Operator] = {
    "Abs": _each(torch.abs), "Add": _each(torch.add), "And": _each(torch.logical_and),
    "ArgMax": _argmax, "AveragePool": _average_pool, "BatchNormalization": _batch_normalisation,
    "Cast": lambda given, x: x.to(DTYPES[given["to"]]),
    "Clip": _clip, "Concat": lambda given, *xs: torch.cat(xs, given["axis"]),
    "Constant": _constant, "Conv": _conv, "ConvTranspose": _conv_transpose, "Div": _div,
    "Equal": _each(torch.eq), "Exp": _each(torch.exp), "Floor": _each(torch.floor),
    "Gather": _gather, "GatherND": _gather_nd, "Gemm": _gemm, "Greater": _each(torch.gt),
    "GreaterOrEqual": _each(torch.ge), "Identity": _each(lambda x: x),
    "InstanceNormalization": _instance_normalisation, "Less": _each(torch.lt),
    "LessOrEqual": _each(torch.le), "MatMul": _each(torch.matmul), "Max": _folded(torch.maximum),
    "MaxPool": _max_pool, "Min": _folded(torch.minimum), "Mul": _each(torch.mul),
    "Neg": _each(torch.neg), "Not": _each(torch.logical_not), "Or": _each(torch.logical_or),
    "Pow": _each(torch.pow), "Reciprocal": _each(torch.reciprocal),
    "ReduceMean": _reduced(torch.mean), "ReduceSum": _reduced(torch.sum),
    "Relu": _each(torch.relu), "Reshape": _reshape, "Resize": _resize,
    "Round": _each(torch.round), "Shape": _shape, "Sigmoid": _each(torch.sigmoid),
    "Slice": _slice, "Softmax": lambda given, x: torch.softmax(x, given.get("axis", -1)),
    "Sqrt": _each(torch.sqrt), "Squeeze": _squeeze, "Sub": _each(torch.sub),
    "Tanh": _each(torch.tanh),
    "Transpose": lambda given, x: x.permute(given.get("perm", list(range(x.dim()))[::-1])),
    "Unsqueeze": _unsqueeze, "Where": _each(torch.where),
}  # fmt: skip
