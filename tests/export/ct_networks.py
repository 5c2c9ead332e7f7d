"""What the tests of the CT networks share: weights, cores written by hand, running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hilum.export.graph import Nodes
from hilum.export.layers.random import calibrate, seeded

Net = TypeVar("Net", bound=nn.Module)


def calibrated(build: Callable[[], Net], shape: Sequence[int], scale: float, seed: int) -> Net:
    """A network with random weights whose outputs vary: every array differs from its default."""
    with seeded(seed):
        network = build()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    if "weight" in module._parameters:
                        module.weight.uniform_(0.8, 1.2)
                    module.bias.uniform_(-0.2, 0.2)
        coarse = torch.rand(*shape[:2], 8, 8)
        images = nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    calibrate(network, scale * images)
    return network


def macs(network: nn.Module, *inputs: Tensor) -> Mapping[str, int]:
    """Multiplications by module path; the whole is ``Global``."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(*inputs)
    counts = counter.get_flop_counts()
    return {name: sum(ops.values()) // 2 for name, ops in counts.items()}


def arrays(network: nn.Module) -> dict[str, Tensor]:
    """What Keras would count: no counters of batches."""
    return {k: v for k, v in network.state_dict().items() if "num_batches" not in k}


def elements(network: nn.Module) -> int:
    return sum(t.numel() for t in arrays(network).values())


def run(model: ModelProto, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Run a model in ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))


def hand_core(
    write: Callable[[Nodes], None], inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> ModelProto:
    """A core of a few nodes, where the exact values are what a test is about."""
    nodes = Nodes("n")
    write(nodes)
    graph = helper.make_graph(
        nodes.nodes,
        "core",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        nodes.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
