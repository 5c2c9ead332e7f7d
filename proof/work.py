"""How much a network has to do at least: arithmetic and bytes, from its ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Work:
    """Of one execution.

    Attributes
    ----------
    flops
        Of convolutions and matrix products, a multiplication and an addition counted as two; the
        rest is less than a hundredth of it.
    moved_bytes
        Weights and inputs read once, outputs written once. What lies between the layers may stay
        on the chip.
    """

    flops: float
    moved_bytes: float


def work_of(path: Path, shapes: Shapes) -> Work:
    """The work of a network on inputs of some shapes, the batch axis included."""
    model = onnx.load(str(path))
    for value in model.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            for length in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=length)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    known = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    lengths = {
        n: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for n, v in known.items()
    }
    lengths |= {held.name: tuple(held.dims) for held in graph.initializer}
    border = [v for v in (*graph.input, *graph.output) if v.name in lengths]
    sizes = [prod(lengths[v.name]) * _width(v.type.tensor_type.elem_type) for v in border]
    sizes += [prod(held.dims) * _width(held.data_type) for held in graph.initializer]
    return Work(sum(_flops(node, lengths) for node in graph.node), float(sum(sizes)))


def _flops(node: onnx.NodeProto, lengths: Shapes) -> float:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0.0
    inside = [lengths.get(name, ()) for name in node.input]
    if node.op_type in ("Conv", "ConvTranspose"):
        # each element of the larger side (out; of a transposed one, in) meets a whole kernel
        meets = lengths.get(node.output[0], ()) if node.op_type == "Conv" else inside[0]
        return 2.0 * prod(meets) * prod(inside[1][1:])
    return 2.0 * prod(lengths.get(node.output[0], ())) * inside[0][-1]


def _width(element: int) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
