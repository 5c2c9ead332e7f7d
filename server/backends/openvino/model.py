"""A Triton "Python-based backend" named ``openvino``.

Loads the model repository (``backend: "openvino"``, ``<version>/model.onnx``) that the C++ backend
of the containers loads, with its parameters, for servers without that backend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from hilum.catalog.openvino_runtime import Compiled
from hilum.server.network_backend import Config, NetworkModel, Node, Nodes, parameters

OPENVINO_TO_TRITON = {
    "f32": "TYPE_FP32", "f16": "TYPE_FP16", "f64": "TYPE_FP64", "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8", "u16": "TYPE_UINT16", "u32": "TYPE_UINT32", "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8", "i16": "TYPE_INT16", "i32": "TYPE_INT32", "i64": "TYPE_INT64",
}  # fmt: skip


class TritonPythonModel(NetworkModel):
    """One compiled network with one infer request."""

    @classmethod
    def read(cls, path: str, config: Config) -> Nodes:
        """The tensors of an ONNX file."""
        return _nodes(ov.Core().read_model(path), config)

    def open(self, path: str, config: Config, kind: str, device: int) -> tuple[Nodes, str]:  # noqa: ARG002
        """Compile the network for the processor."""
        if kind == "GPU":
            pb_utils.Logger.log_warn(f"{config['name']}: this backend computes on processors only")
        self._compiled = Compiled(path, _options(config))
        return _nodes(self._compiled.model, config), f"OpenVINO {ov.__version__}"

    def compute(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Run the request; every answer has memory of its own."""
        return self._compiled.run(names, feed)

    def finalize(self) -> None:
        """Let go of the network's memory."""
        del self._compiled


def _options(config: Config) -> dict[str, Any]:
    """Threads and streams, from parameters that the C++ backend knows as well."""
    given = parameters(config)
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": given.get("NUM_STREAMS", "1"),
    }
    if threads := given.get("INFERENCE_NUM_THREADS"):
        options["INFERENCE_NUM_THREADS"] = int(threads)
    return options


def _nodes(model: Any, config: Config) -> Nodes:
    """The tensors of a model; of several names for the same one, that of the configuration."""
    configured = {tensor["name"] for tensor in (*config["input"], *config["output"])}

    def node(port: Any) -> Node:
        name = min(port.get_names(), key=lambda name: (name not in configured, len(name), name))
        dims = tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape())
        return Node(name, OPENVINO_TO_TRITON[port.get_element_type().get_type_name()], dims)

    return Nodes(tuple(node(v) for v in model.inputs), tuple(node(v) for v in model.outputs))
