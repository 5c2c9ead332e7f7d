"""A Triton "Python-based backend" named ``pytorch``.

Computes the networks of the model repository that the ``onnxruntime`` backends load
(``<version>/model.onnx``) in PyTorch, for GPUs whose machine has no ONNX Runtime for CUDA. Not yet
run on a GPU; on processors it gives what ONNX Runtime does, more slowly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from hilum.server.network_backend import Config, NetworkModel, Node, Nodes, parameters
from hilum.server.torch_graph import Border, TorchGraph, Unsupported, borders

ONNX_TO_TRITON = {
    1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 5: "TYPE_INT16", 6: "TYPE_INT32",
    7: "TYPE_INT64", 9: "TYPE_BOOL", 10: "TYPE_FP16", 11: "TYPE_FP64",
}  # fmt: skip


class TritonPythonModel(NetworkModel):
    """One network in PyTorch."""

    @classmethod
    def read(cls, path: str, config: Config) -> Nodes:  # noqa: ARG003
        """The tensors of an ONNX file."""
        return _nodes(*borders(path))

    def open(self, path: str, config: Config, kind: str, device: int) -> tuple[Nodes, str]:
        """Load the network onto its GPU, or onto the processors."""
        place = f"cuda:{device}"
        if kind != "GPU" or not torch.cuda.is_available():
            place = "cpu"
            if kind == "GPU":
                pb_utils.Logger.log_warn(f"{config['name']}: this PyTorch sees no GPU")
            if threads := int(parameters(config).get("intra_op_thread_count", 0)):
                torch.set_num_threads(threads)
        try:
            self._graph = TorchGraph(path, place)
        except Unsupported as missing:
            raise pb_utils.TritonModelException(
                f"PyTorch cannot compute this file: {missing}; serve it with ONNX Runtime "
                "(HILUM_NETWORKS=onnxruntime)"
            ) from None
        nodes = _nodes(self._graph.inputs, self._graph.outputs)
        return nodes, f"PyTorch {torch.__version__}, {place}"

    def compute(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Run the network."""
        return list(self._graph.run(names, feed))

    def finalize(self) -> None:
        """Let go of the network's memory."""
        del self._graph


def _nodes(inputs: tuple[Border, ...], outputs: tuple[Border, ...]) -> Nodes:
    def node(found: Border) -> Node:
        return Node(found.name, ONNX_TO_TRITON[found.element], found.dims)

    return Nodes(tuple(map(node, inputs)), tuple(map(node, outputs)))
