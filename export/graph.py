"""Writing ONNX nodes around a network's core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    compose,
    helper,
    numpy_helper,
    version_converter,
)

from hilum.catalog import Tensor
from hilum.catalog.errors import ExportError

OPSET = 18
"""Operator set of what is written here: the oldest in which Resize takes axes."""

NEWEST_OPSET, NEWEST_IR = 22, 10
"""Newest that ONNX Runtime of every supported container reads."""

OLDEST_OPSET = 13

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}
"""Triton's names of element types → ONNX's numbers."""

BATCH = "N"
"""Name of the batch axis."""


class Nodes:
    """Nodes and constants under one prefix, so that their names clash with nothing."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: ArrayLike, dtype: type[np.generic] | None = None) -> str:
        """Add a constant and return its name."""
        array = np.asarray(value, dtype=dtype)
        name = f"{self.prefix}/c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, value: ArrayLike) -> str:
        """Add a float32 constant and return its name."""
        return self.constant(value, np.float32)

    def axes(self, *numbers: int) -> str:
        """Add an int64 vector, as axes and shapes are, and return its name."""
        return self.constant(numbers, np.int64)

    def add(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name, `out` if given."""
        output = out or f"{self.prefix}/{operator.lower()}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator, inputs, [output], f"{self.prefix}/n{len(self.nodes)}", **attributes
            )
        )
        return output

    def cast(self, tensor: str, dtype: str, out: str | None = None) -> str:
        """Cast to an element type of the catalog."""
        return self.add("Cast", tensor, out=out, to=ELEMENTS[dtype])


def value_info(
    tensor: Tensor, shape: Iterable[int | str], *, batch: bool = True
) -> onnx.ValueInfoProto:
    """The declaration of a graph input or output; names in its shape are lengths that are free.

    Parameters
    ----------
    batch
        Put the batch axis before `shape`.
    """
    dims = [BATCH, *shape] if batch else list(shape)
    return helper.make_tensor_value_info(tensor.name, ELEMENTS[tensor.dtype], dims)


def modernise(model: ModelProto, where: str) -> ModelProto:
    """Bring a model to an operator set and file version that can be wrapped and served.

    Raises
    ------
    ExportError
        When the model is too old, too new, or cannot be converted.
    """
    opset = main_opset(model)
    if opset < OLDEST_OPSET or opset > NEWEST_OPSET:
        raise ExportError(
            f"{where}: operator set {opset}; export it again with one from {OLDEST_OPSET} to "
            f"{NEWEST_OPSET} (opset_version=18 is best)"
        )
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as failed:
            raise ExportError(
                f"{where}: operator set {opset} could not be converted to {OPSET} ({failed}); "
                f"export it again with opset_version={OPSET}"
            ) from failed
    model.ir_version = min(model.ir_version, NEWEST_IR)
    return model


def main_opset(model: ModelProto) -> int:
    """Version of the standard operator set that a model imports."""
    versions = [o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}]
    return versions[0] if versions else 0


def strip(model: ModelProto) -> None:
    """Remove documentation that exporters leave: source paths, stack traces, module names."""
    del model.metadata_props[:]
    model.doc_string = ""
    _strip(model.graph)


def _strip(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)


def join(
    core: ModelProto,
    front: Nodes,
    back: Nodes,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> ModelProto:
    """One model: the nodes of `front`, the core with its names behind ``core/``, those of `back`.

    `front` must provide the core's inputs as ``core/NAME``; `back` reads its outputs so. The core
    itself becomes the joined model: copies of hundreds of megabytes take seconds.
    """
    compose.add_prefix(core, "core/", inplace=True)
    graph, nodes = core.graph, list(core.graph.node)
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend([*front.nodes, *nodes, *back.nodes])
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    graph.initializer.extend([*front.constants, *back.constants])
    graph.name = "hilum"
    core.producer_name, core.producer_version = "hilum", ""
    strip(core)
    return core
