"""FP16 and bfloat16 variants: the casts are in the graph, so every runtime computes alike."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, shape_inference

KEEP = (
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Range",
    "Softmax",
)
"""Operators that stay in FP32: sums over many elements, and values below FP16's smallest."""

HEAD = (
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "ReduceMean",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Squeeze",
)
"""Operators between the last features and an output: they cost nothing and decide everything."""


def to_half(core: ModelProto, *, keep_stem: bool = False) -> ModelProto:
    """Turn a core into mixed precision; its inputs and outputs stay FP32.

    FP32 remain the operators of `KEEP`, the products that a softmax feeds (the mean entry of
    MA-Net's attention over 83 521 positions is 1.2e-5, below FP16's smallest normal number), all
    resizing, and what lies between the last features and an output: sigmoids and classification
    heads (spec cxr §14).

    Parameters
    ----------
    keep_stem
        Keep the first convolution and its normalisation in FP32, too: the input has a wide range
        (spec ct_densenet §5.3).
    """
    # The converter lives beside heavy tools that log on import.
    from onnxruntime.transformers.float16 import convert_float_to_float16

    core = shape_inference.infer_shapes(core)
    with _silent():
        half = convert_float_to_float16(
            core,
            keep_io_types=True,
            op_block_list=[*KEEP, "Resize"],
            node_block_list=sorted(_islands(core) | (_stem(core) if keep_stem else set())),
        )
    _sort(half.graph)
    _unrepeat(half.graph)
    _unround(half.graph)
    return half


def to_bfloat(core: ModelProto) -> ModelProto:
    """Turn a core into a mix of bfloat16 and FP32; its inputs and outputs stay FP32.

    The same operators are reduced as for FP16. Weights are rounded from FP32, not from FP16, whose
    range is smaller. ONNX Runtime computes no bfloat16 on processors; OpenVINO does.
    """
    exact = {tensor.name: tensor for tensor in core.graph.initializer}
    reduced = to_half(core)
    for tensor in reduced.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            _round(tensor, exact.get(tensor.name, tensor))
    for node in reduced.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = _as_bfloat(attribute.i)
            elif attribute.t.data_type == TensorProto.FLOAT16:
                _round(attribute.t, attribute.t)
    for value in (*reduced.graph.value_info, *reduced.graph.input, *reduced.graph.output):
        value.type.tensor_type.elem_type = _as_bfloat(value.type.tensor_type.elem_type)
    return reduced


def _as_bfloat(kind: int) -> int:
    return TensorProto.BFLOAT16 if kind == TensorProto.FLOAT16 else kind


def _round(tensor: TensorProto, values: TensorProto) -> None:
    """Fill a tensor with the nearest bfloat16 of each value, ties to even."""
    bits = np.asarray(numpy_helper.to_array(values), np.float32).view(np.uint32)
    half = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    name, dims = tensor.name, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.raw_data = name, TensorProto.BFLOAT16, half.tobytes()
    tensor.dims.extend(dims)


def _unrepeat(graph: GraphProto) -> None:
    """Remove casts that the converter repeated for every reader of a constant."""
    made: set[str] = set()
    nodes = []
    for node in graph.node:
        if made.isdisjoint(node.output):
            made.update(node.output)
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for number, node in enumerate(graph.node):
        if "_cast_to_fp" in node.name:
            node.name = f"{node.name}{number}"


def _unround(graph: GraphProto) -> None:
    """Join FP32 neighbours, and FP32 outputs, that the converter linked through FP16."""
    target = {
        node.output[0]: (node, helper.get_node_attr_value(node, "to"))
        for node in graph.node
        if node.op_type == "Cast"
    }
    for node, kind in list(target.values()):
        inner, to = target.get(node.input[0], (None, None))
        if kind == TensorProto.FLOAT and inner is not None and to == TensorProto.FLOAT16:
            node.input[0] = inner.input[0]
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
        graph.node.remove(node)


def _sort(graph: GraphProto) -> None:
    """Put nodes behind those they read from, as ONNX asks; the converter appends its casts."""
    maker = {output: n for n, node in enumerate(graph.node) for output in node.output}
    order: dict[int, None] = {}
    for start in range(len(graph.node)):
        stack = [start]
        while stack:
            number = stack[-1]
            first = {maker[i] for i in graph.node[number].input if i in maker} - order.keys()
            if number in order or not first:
                order.setdefault(stack.pop())
            else:
                stack += sorted(first, reverse=True)
    nodes = [graph.node[number] for number in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _stem(core: ModelProto) -> set[str]:
    """Names of the nodes from the input to the first convolution and its normalisation."""
    names: set[str] = set()
    reached = {i.name for i in core.graph.input}
    after: set[str] = set()
    for node in core.graph.node:  # in topological order
        if reached.intersection(node.input):
            names.add(node.name)
            (after if node.op_type == "Conv" else reached).update(node.output)
        elif node.op_type == "BatchNormalization" and after.intersection(node.input):
            names.add(node.name)
    return names


def _islands(core: ModelProto) -> set[str]:
    """Names of nodes, beyond those of `KEEP`, that stay in FP32."""
    nodes = core.graph.node
    producer = {output: node for node in nodes for output in node.output}
    islands: set[str] = set()
    after = {output for node in nodes if node.op_type == "Softmax" for output in node.output}
    for node in nodes:  # in topological order
        if after.intersection(node.input):
            if node.op_type == "MatMul":
                islands.add(node.name)
            elif node.op_type in {"Reshape", "Transpose", "Squeeze", "Unsqueeze"}:
                islands.add(node.name)
                after.update(node.output)
    heads = [producer[o.name] for o in core.graph.output if o.name in producer]
    while heads:
        node = heads.pop()
        if node.op_type in {"Conv", "ConvTranspose", "MatMul"} or node.name in islands:
            continue
        islands.add(node.name)
        if node.op_type in HEAD:
            heads += [producer[i] for i in node.input if i in producer]
    return islands


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the converter's remarks on clipped constants off the terminal."""
    logger = logging.getLogger("onnxruntime.transformers.float16")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
